#ifndef SHOAL_KERNELS_ROPE_H
#define SHOAL_KERNELS_ROPE_H

/* Rotary tables, made in double by our own pow, sin and cos (common/model/portable_math.h), so that
 * every machine rotates by the same bits. YaRN (arXiv:2309.00071) as DeepSeek uses it; linear and
 * Llama 3.1's scaling, the latter also as a list of divisors. */
#include "common/model/arch.h"

/* frequencies[dim / 2], in double; *multiplier scales cos and sin. */
void rope_frequencies(const struct rope_config *config, uint32_t dim, double *frequencies,
                      double *multiplier);
/* cos_sin[dim]: cos, sin for each pair at `position`. */
void rope_table_row(const double *frequencies, double multiplier, uint32_t dim, uint32_t position,
                    float *cos_sin);

#endif
