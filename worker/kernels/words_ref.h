#ifndef SHOAL_KERNELS_WORDS_REF_H
#define SHOAL_KERNELS_WORDS_REF_H

/* Sixteen 32-bit words in plain C, each an int32 or four bytes, one for each output of a panel: the
 * definition of what words_avx2.h, words_avx512.h and words_vnni.h must compute. All is exact: sums
 * of products stay far below 2^31 (DESIGN, canonical arithmetic).
 *
 * Included after a lanes header, whose lane i is word i.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* What activations have on top of their int8, because a level's instruction takes unsigned bytes;
 * its weights are then signed, and sums begin at minus this times the sum of the weights. */
#define WORDS_ACTIVATION_BIAS 0U
/* How many sums are held at a time: rows times panels. */
#define WORDS_GROUP_ROWS   1
#define WORDS_GROUP_PANELS 1

struct words {
    uint32_t v[LANE_COUNT];
};

#define WORDS_EACH(expression)                                                                     \
    struct words out;                                                                              \
    for (size_t i = 0; i < LANE_COUNT; i++) {                                                      \
        out.v[i] = (uint32_t)(expression);                                                         \
    }                                                                                              \
    return out

static inline struct words words_set(uint32_t value)
{
    WORDS_EACH(value);
}

static inline struct words words_load(const void *values)
{
    struct words out;

    memcpy(out.v, values, sizeof(out.v));
    return out;
}

static inline void words_store(void *values, struct words a)
{
    memcpy(values, a.v, sizeof(a.v));
}

static inline struct words words_and(struct words a, struct words b)
{
    WORDS_EACH(a.v[i] & b.v[i]);
}

static inline struct words words_or(struct words a, struct words b)
{
    WORDS_EACH(a.v[i] | b.v[i]);
}

static inline struct words words_xor(struct words a, struct words b)
{
    WORDS_EACH(a.v[i] ^ b.v[i]);
}

static inline struct words words_left(struct words a, uint32_t bits)
{
    WORDS_EACH(a.v[i] << bits);
}

/* Zeros come in from above. */
static inline struct words words_right(struct words a, uint32_t bits)
{
    WORDS_EACH(a.v[i] >> bits);
}

/* Copies of the sign come in from above. */
static inline struct words words_right_signed(struct words a, uint32_t bits)
{
    WORDS_EACH((int32_t)a.v[i] >> bits);
}

static inline struct words words_add(struct words a, struct words b)
{
    WORDS_EACH(a.v[i] + b.v[i]);
}

static inline struct words words_sub(struct words a, struct words b)
{
    WORDS_EACH(a.v[i] - b.v[i]);
}

static inline struct words words_mul(struct words a, struct words b)
{
    WORDS_EACH(a.v[i] * b.v[i]);
}

/* The larger as unsigned numbers. */
static inline struct words words_max(struct words a, struct words b)
{
    WORDS_EACH(a.v[i] > b.v[i] ? a.v[i] : b.v[i]);
}

/* Byte by byte, modulo 256. */
static inline struct words words_add_bytes(struct words a, struct words b)
{
    WORDS_EACH(((a.v[i] & 0x7f7f7f7f) + (b.v[i] & 0x7f7f7f7f)) ^ ((a.v[i] ^ b.v[i]) & 0x80808080));
}

static inline struct words words_sub_bytes(struct words a, struct words b)
{
    WORDS_EACH(((a.v[i] | 0x80808080) - (b.v[i] & 0x7f7f7f7f)) ^ ((a.v[i] ^ ~b.v[i]) & 0x80808080));
}

static inline struct words words_gather(const uint32_t *table, struct words index)
{
    WORDS_EACH(table[index.v[i]]);
}

/* Each byte, 0 … 15, becomes table[byte]. */
static inline struct words words_look_up(const int8_t *table, struct words codes)
{
    struct words out;

    for (size_t i = 0; i < LANE_COUNT; i++) {
        out.v[i] = 0;
        for (uint32_t byte = 0; byte < 32; byte += 8) {
            out.v[i] |= (uint32_t)(uint8_t)table[codes.v[i] >> byte & 15] << byte;
        }
    }
    return out;
}

static inline int32_t byte_of(uint32_t word, uint32_t index)
{
    return (int8_t)(uint8_t)(word >> 8 * index);
}

/* acc + the sum of four products; bytes of w are 0 … 127, those of a -127 … 127. */
static inline struct words words_dot(struct words acc, struct words w, struct words a)
{
    WORDS_EACH((int32_t)acc.v[i] + byte_of(w.v[i], 0) * byte_of(a.v[i], 0) +
               byte_of(w.v[i], 1) * byte_of(a.v[i], 1) + byte_of(w.v[i], 2) * byte_of(a.v[i], 2) +
               byte_of(w.v[i], 3) * byte_of(a.v[i], 3));
}

/* The same with any signed bytes in w. */
static inline struct words words_dot_signed(struct words acc, struct words w, struct words a)
{
    return words_dot(acc, w, a);
}

/* The same as words_load, of values that other sums begin with too. */
static inline struct words words_load_apart(const void *values)
{
    return words_load(values);
}

/* The sum of the four signed bytes of each word; `ones` are bytes of 1. */
static inline struct words words_sum_four(struct words a, struct words ones)
{
    return words_dot(words_set(0), ones, a);
}

static inline int32_t short_of(uint32_t word, int index)
{
    return (int16_t)(word >> 16 * index);
}

/* acc + a.low * b.low + a.high * b.high of the int16 in each word. */
static inline struct words words_dot_pairs(struct words acc, struct words a, struct words b)
{
    WORDS_EACH((int32_t)acc.v[i] + short_of(a.v[i], 0) * short_of(b.v[i], 0) +
               short_of(a.v[i], 1) * short_of(b.v[i], 1));
}

/* As signed integers, to the nearest even. */
static inline struct lanes words_to_lanes(struct words a)
{
    struct lanes out;

    for (size_t i = 0; i < LANE_COUNT; i++) {
        out.v[i] = (float)(int32_t)a.v[i];
    }
    return out;
}

/* To the nearest even integer; |a| < 2^31. */
static inline struct words words_of_lanes(struct lanes a)
{
    WORDS_EACH((int32_t)rintf(a.v[i]));
}

/* The bits of floats, and back. */
static inline struct words words_cast(struct lanes a)
{
    return words_load(a.v);
}

/* The low half of each word is an f16. */
static inline struct lanes words_half_lanes(struct words a)
{
    struct lanes out;

    for (size_t i = 0; i < LANE_COUNT; i++) {
        out.v[i] = float_of_f16((uint16_t)a.v[i]);
    }
    return out;
}

/* The lowest byte of each word. */
static inline void words_store_bytes(int8_t *out, struct words a)
{
    for (size_t i = 0; i < LANE_COUNT; i++) {
        out[i] = (int8_t)(uint8_t)a.v[i];
    }
}

static inline int32_t words_fold_add(struct words a)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < LANE_COUNT; i++) {
        sum += a.v[i];
    }
    return (int32_t)sum;
}

static inline uint32_t words_fold_max(struct words a)
{
    uint32_t most = 0;

    for (size_t i = 0; i < LANE_COUNT; i++) {
        most = a.v[i] > most ? a.v[i] : most;
    }
    return most;
}

#undef WORDS_EACH
#endif
