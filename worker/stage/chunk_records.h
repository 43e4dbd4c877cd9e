#ifndef SHOAL_STAGE_CHUNK_RECORDS_H
#define SHOAL_STAGE_CHUNK_RECORDS_H

/* Checksums of chunks of a model's files, kept in a file of their own.
 *
 * The file is appended to, one record of 32 bytes at a time, each with a checksum of itself: what a
 * crash leaves half-written is nothing, what somebody damaged is not believed. Several processes
 * may append to one file; each sees what was there when it opened it and what it adds. A chunk
 * counts as present only if its bytes have the recorded checksum, which readers compare, so records
 * and data may reach the disk in any order.
 *
 *   header  "SHOALCHK", u32 version, u32 CRC32C of what is before, 16 zero bytes
 *   record  u64 hash of the file's name, u64 offset, u32 bytes, u32 CRC32C of the chunk, u32 zero,
 *           u32 CRC32C of what is before; later ones replace earlier ones
 *
 * Any thread.
 */
#include "common/base/error.h"

#include <stdint.h>

struct chunk_key {
    const char *name; /* of the file */
    uint64_t offset;
    uint32_t bytes;
};

struct chunk_records;
/* Makes the file if it is not there; one that is no such file is replaced, with a warning. */
struct chunk_records *chunk_records_open(const char *path, struct error *err) MUST_CHECK;
void chunk_records_close(struct chunk_records *records); /* NULL is legal; flushes */

bool chunk_records_find(struct chunk_records *records, const struct chunk_key *key,
                        uint32_t *crc32c);
/* ERROR_SYSTEM: it could not be written (it counts in this process all the same). */
bool chunk_records_add(struct chunk_records *records, const struct chunk_key *key, uint32_t crc32c,
                       struct error *err) MUST_CHECK;
/* In this process only; the next record of the chunk replaces it in the file. */
void chunk_records_forget(struct chunk_records *records, const struct chunk_key *key);
uint32_t chunk_records_count(struct chunk_records *records);
const char *chunk_records_path(const struct chunk_records *records);

#endif
