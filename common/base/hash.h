#ifndef SHOAL_BASE_HASH_H
#define SHOAL_BASE_HASH_H

/* Hashes that never change: they travel on the wire and decide sampling. Pure. */
#include <stddef.h>
#include <stdint.h>

/* CRC-32C (Castagnoli, reflected, as in iSCSI RFC 3720); crc of earlier bytes, 0 to begin.
 * SSE4.2 when the CPU has it, a table otherwise; equal results. */
uint32_t hash_crc32c(uint32_t crc, const void *bytes, size_t length);
/* The portable one of the two, by name for the tests. */
uint32_t hash_crc32c_table(uint32_t crc, const void *bytes, size_t length);

/* 64 bits, FNV-1a finished by the murmur3 finaliser; not for adversaries. */
uint64_t hash_bytes(const void *bytes, size_t length);

/* The finaliser of splitmix64: a bijection that mixes well. */
uint64_t hash_mix(uint64_t value);

/* Counter-based random bits: a pure function of its four arguments. */
uint64_t hash_counter(uint64_t seed, uint64_t a, uint64_t b, uint64_t c);
/* out[i] = hash_counter(seed, a, b, c_begin + i): a quarter of the work. */
void hash_counter_run(uint64_t seed, uint64_t a, uint64_t b, uint64_t c_begin, size_t count,
                      uint64_t *out);

#endif
