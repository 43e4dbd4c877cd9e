/* rope.c - rotary frequencies and tables, in double.
 *
 * Everything up to the last rounding to f32 is done in double by our own functions: libm's differ
 * by CPU and version, and a table that differs in one bit would make two workers disagree. YaRN is
 * DeepSeek's form: fast dimensions keep their frequency, slow ones are divided by the factor, and a
 * linear ramp joins them, at every position, below the original context too.
 */
#include "worker/kernels/rope.h"

#include "common/base/check.h"
#include "common/model/portable_math.h"

#include <math.h>

#define PI 3.14159265358979323846

/* The (fractional) pair whose wave turns `rotations` times within the original context. */
static double pair_of_rotations(const struct rope_config *config, uint32_t dim, double rotations)
{
    double wave = (double)config->original_context / (rotations * 2.0 * PI);

    return (double)dim * portable_log(wave) / (2.0 * portable_log(config->theta));
}

static double yarn_mscale(double factor, double mscale)
{
    return factor <= 1.0 ? 1.0 : 0.1 * mscale * portable_log(factor) + 1.0;
}

static double clamp(double value, double low, double high)
{
    return value < low ? low : value > high ? high : value;
}

static void yarn_scale(const struct rope_config *config, uint32_t dim, double *frequencies)
{
    const double fast = floor(pair_of_rotations(config, dim, config->beta_fast));
    const double slow = ceil(pair_of_rotations(config, dim, config->beta_slow));
    const double low = fast > 0.0 ? fast : 0.0;
    const double high = slow < (double)dim - 1.0 ? slow : (double)dim - 1.0;
    const double width = high == low ? 0.001 : high - low;

    for (uint32_t pair = 0; pair < dim / 2; pair++) {
        double ramp = clamp(((double)pair - low) / width, 0.0, 1.0);
        double plain = frequencies[pair];

        frequencies[pair] = plain / config->factor * ramp + plain * (1.0 - ramp);
    }
}

/* Llama 3.1's: a wave of more than original / low_freq_factor tokens is stretched by the factor,
 * one of less than original / high_freq_factor is kept, and between them the two are blended. */
static void llama3_scale(const struct rope_config *config, uint32_t dim, double *frequencies)
{
    const double original = (double)config->original_context;
    const double low = config->low_freq_factor, high = config->high_freq_factor;

    for (uint32_t pair = 0; pair < dim / 2; pair++) {
        const double plain = frequencies[pair];
        const double wave = 2.0 * PI / plain;
        const double smooth = (original / wave - low) / (high - low);

        if (wave > original / low) {
            frequencies[pair] = plain / config->factor;
        } else if (wave >= original / high) {
            frequencies[pair] = (1.0 - smooth) * plain / config->factor + smooth * plain;
        }
    }
}

void rope_frequencies(const struct rope_config *config, uint32_t dim, double *frequencies,
                      double *multiplier)
{
    ASSERT(dim % 2 == 0);
    for (uint32_t pair = 0; pair < dim / 2; pair++) {
        frequencies[pair] = portable_pow(config->theta, -2.0 * (double)pair / (double)dim);
    }
    *multiplier = 1.0;
    switch (config->scaling) {
    case ROPE_PLAIN:
        break;
    case ROPE_YARN:
        yarn_scale(config, dim, frequencies);
        *multiplier = yarn_mscale(config->factor, config->mscale) /
                      yarn_mscale(config->factor, config->mscale_all_dim);
        break;
    case ROPE_LINEAR:
        for (uint32_t pair = 0; pair < dim / 2; pair++) {
            frequencies[pair] /= config->factor;
        }
        break;
    case ROPE_LLAMA3:
        llama3_scale(config, dim, frequencies);
        break;
    case ROPE_DIVISORS:
        ASSERT(dim / 2 <= ROPE_DIVISORS_MAX);
        for (uint32_t pair = 0; pair < dim / 2; pair++) {
            frequencies[pair] /= (double)config->divisors[pair];
        }
        break;
    }
}

void rope_table_row(const double *frequencies, double multiplier, uint32_t dim, uint32_t position,
                    float *cos_sin)
{
    for (uint32_t pair = 0; pair < dim / 2; pair++) {
        double sine, cosine;

        portable_sincos((double)position * frequencies[pair], &sine, &cosine);
        cos_sin[2 * pair] = (float)(cosine * multiplier);
        cos_sin[2 * pair + 1] = (float)(sine * multiplier);
    }
}
