#ifndef SHOAL_KERNELS_KV_VALUES_H
#define SHOAL_KERNELS_KV_VALUES_H

/* Cache values to and from f32, for one level: written over a lanes and a words header and
 * row_math.h. common/model/kv_type.h says what they are. */
#include "common/base/check.h"
#include "common/base/half.h"
#include "common/model/kv_type.h"
#include "worker/kernels/int8_codes.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline void store_f16(uint16_t *out, const float *values, size_t count)
{
    size_t i = 0;

    for (; i + LANE_COUNT <= count; i += LANE_COUNT) {
        lanes_store_f16(out + i, lanes_load(values + i));
    }
    for (; i < count; i++) {
        out[i] = f16_of_float(values[i]);
    }
}

static inline void store_bf16(uint16_t *out, const float *values, size_t count)
{
    size_t i = 0;

    for (; i + LANE_COUNT <= count; i += LANE_COUNT) {
        lanes_store_bf16(out + i, lanes_load(values + i));
    }
    for (; i < count; i++) {
        out[i] = bf16_of_float(values[i]);
    }
}

static inline void load_f16(float *out, const uint16_t *values, size_t count)
{
    size_t i = 0;

    for (; i + LANE_COUNT <= count; i += LANE_COUNT) {
        lanes_store(out + i, lanes_load_f16(values + i));
    }
    for (; i < count; i++) {
        out[i] = float_of_f16(values[i]);
    }
}

static inline void load_bf16(float *out, const uint16_t *values, size_t count)
{
    size_t i = 0;

    for (; i + LANE_COUNT <= count; i += LANE_COUNT) {
        lanes_store(out + i, lanes_load_bf16(values + i));
    }
    for (; i < count; i++) {
        out[i] = float_of_bf16(values[i]);
    }
}

static inline void kv_values_store(void *out, enum kv_type type, const float *values, size_t count)
{
    switch (type) {
    case KV_F32:
        memcpy(out, values, count * sizeof(float));
        return;
    case KV_F16:
        store_f16(out, values, count);
        return;
    case KV_BF16:
        store_bf16(out, values, count);
        return;
    case KV_Q8:
    case KV_TYPE_COUNT:
        break;
    }
    ASSERT(type < KV_Q8);
}

static inline void kv_values_load(float *out, const void *values, enum kv_type type, size_t count)
{
    switch (type) {
    case KV_F32:
        memcpy(out, values, count * sizeof(float));
        return;
    case KV_F16:
        load_f16(out, values, count);
        return;
    case KV_BF16:
        load_bf16(out, values, count);
        return;
    case KV_Q8:
    case KV_TYPE_COUNT:
        break;
    }
    ASSERT(type < KV_Q8);
}

/* out[i] = code[i] * scale */
static inline void kv_codes_load(float *out, const int8_t *codes, float scale, size_t count)
{
    const struct lanes factor = lanes_set(scale);
    size_t i = 0;

    for (; i + LANE_COUNT <= count; i += LANE_COUNT) {
        lanes_store(out + i, lanes_mul(lanes_load_i8(codes + i), factor));
    }
    for (; i < count; i++) {
        out[i] = (float)codes[i] * scale;
    }
}

#endif
