/* packed_avx2.c - panels of 8-bit weights, 32 columns at a time, and the look for codes of NaN.
 *
 * The 16 × 16 transpose of packed.c in both halves of a register: the low one has columns 0 to 15,
 * the high one 16 to 31.
 */
#include "worker/kernels/packed_panel.h"

#include <immintrin.h>

#define COLUMNS 32
#define STREAMS 4 /* of comparisons, so that none waits for another */

static inline void interleave(const __m256i row[16], __m256i zipped[16])
{
    for (int i = 0; i < 8; i++) {
        zipped[2 * i] = _mm256_unpacklo_epi8(row[i], row[i + 8]);
        zipped[2 * i + 1] = _mm256_unpackhi_epi8(row[i], row[i + 8]);
    }
}

size_t pack_panel_8bit_avx2(uint8_t *out, const uint8_t *in, size_t stride, size_t columns)
{
    size_t column = 0;

    for (; column + COLUMNS <= columns; column += COLUMNS) {
        __m256i a[16], b[16];
        char *to = (char *)out + column * PANEL_ROWS;

        for (size_t i = 0; i < 16; i++) {
            a[i] = _mm256_loadu_si256((const __m256i *)(const void *)(in + i * stride + column));
        }
        panel_fetch_ahead(to, COLUMNS * PANEL_ROWS);
        interleave(a, b);
        interleave(b, a);
        interleave(a, b);
        interleave(b, a);
        for (int i = 0; i < 16; i += 2) {
            _mm256_storeu_si256((__m256i *)(void *)(to + i * 16),
                                _mm256_permute2x128_si256(a[i], a[i + 1], 0x20));
            _mm256_storeu_si256((__m256i *)(void *)(to + 256 + i * 16),
                                _mm256_permute2x128_si256(a[i], a[i + 1], 0x31));
        }
    }
    return column;
}

size_t f8_codes_seen_avx2(const uint8_t *codes, size_t count, bool *has_nan)
{
    const __m256i magnitude = _mm256_set1_epi8(0x7f);
    __m256i found[STREAMS] = {_mm256_setzero_si256(), _mm256_setzero_si256(),
                              _mm256_setzero_si256(), _mm256_setzero_si256()};
    size_t at = 0;

    for (; at + sizeof(found) <= count; at += sizeof(found)) {
        for (size_t i = 0; i < STREAMS; i++) {
            __m256i code = _mm256_loadu_si256(
                (const __m256i *)(const void *)(codes + at + i * sizeof(found[0])));

            found[i] = _mm256_or_si256(
                found[i], _mm256_cmpeq_epi8(_mm256_and_si256(code, magnitude), magnitude));
        }
    }
    found[0] =
        _mm256_or_si256(_mm256_or_si256(found[0], found[1]), _mm256_or_si256(found[2], found[3]));
    *has_nan = _mm256_movemask_epi8(found[0]) != 0;
    return at;
}
