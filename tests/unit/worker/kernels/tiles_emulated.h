#ifndef SHOAL_TESTS_TILES_EMULATED_H
#define SHOAL_TESTS_TILES_EMULATED_H

/* AMX tiles in plain C, in place of the intrinsics that worker/kernels/matmul_amx.c uses: what the
 * manual says of TILELOADD, TILESTORED and TDPBF16PS at full size. A source includes this, then
 * matmul_amx.c. Tiles keep what they hold between calls, as those of a CPU do. */
#include "common/base/half.h"

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

static _Thread_local uint32_t emulated_tiles[8][16][16];

static inline void emulated_load(int tile, const void *base, size_t stride)
{
    for (size_t row = 0; row < 16; row++) {
        memcpy(emulated_tiles[tile][row], (const char *)base + row * stride, 64);
    }
}

static inline void emulated_store(int tile, void *base, size_t stride)
{
    for (size_t row = 0; row < 16; row++) {
        memcpy((char *)base + row * stride, emulated_tiles[tile][row], 64);
    }
}

/* c[m][n] += a[m][2k] · b[k][2n], then += a[m][2k + 1] · b[k][2n + 1]; denormals are zero. */
static inline float emulated_fma(uint16_t a, uint16_t b, float c)
{
    const float x = (a & 0x7f80) == 0 ? 0 : float_of_bf16(a);
    const float y = (b & 0x7f80) == 0 ? 0 : float_of_bf16(b);

    return fmaf(x, y, c);
}

static inline void emulated_dot(int c, int a, int b)
{
    for (size_t m = 0; m < 16; m++) {
        for (size_t n = 0; n < 16; n++) {
            float sum = float_of_bits(emulated_tiles[c][m][n]);

            for (size_t k = 0; k < 16; k++) {
                const uint32_t x = emulated_tiles[a][m][k], w = emulated_tiles[b][k][n];

                sum = emulated_fma((uint16_t)x, (uint16_t)w, sum);
                sum = emulated_fma((uint16_t)(x >> 16), (uint16_t)(w >> 16), sum);
            }
            emulated_tiles[c][m][n] = float_bits(sum);
        }
    }
}

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(config)         ((void)(config))
#define _tile_release()                  ((void)0)
#define _tile_loadd(tile, base, stride)  emulated_load(tile, base, stride)
#define _tile_stored(tile, base, stride) emulated_store(tile, base, stride)
#define _tile_dpbf16ps(c, a, b)          emulated_dot(c, a, b)

#endif
