/* packed_avx2.c - the look for codes of NaN. */
#include "worker/kernels/packed_panel.h"

#include <immintrin.h>

#define STREAMS 4 /* of comparisons, so that none waits for another */

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
