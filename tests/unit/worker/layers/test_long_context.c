/* Attention at the end of a context of 163 840 tokens, as DeepSeek-R1 has it: a tiny layer of that
 * architecture, dummy weights.
 *
 * With one layer an entry depends on its own token alone, so the whole context is stored cheaply
 * (forward_store), and only sampled rows attend to it: alone and in chunks, on every CPU level,
 * the same bits; and near a forward pass in double that takes YaRN's frequencies, cosines and sines
 * from their definition (arXiv:2309.00071 and DeepSeek's code) by libm.
 */
#include "common/base/mem.h"
#include "worker/layers/forward.h"
#include "worker/layers/weights_dummy.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define CONTEXT    163840u
#define STORE_ROWS 2048u
#define CHUNK_MAX  130u
#define VOCAB      64u
#define HIDDEN     32u
#define WIDTH      16u /* of latent, nope, rope and value alike */
#define ORIGINAL   4096.0
#define FACTOR     40.0

struct model {
    struct catalog *catalog;
    struct weights *weights;
    struct weights_dummy *dummy;
    struct team *team;
    struct kv_cache *cache;
    struct forward *forward;
};

static void weights_open(struct model *m)
{
    const struct weights_choice choice = {.source = WEIGHTS_DUMMY};
    const struct weights_share share = {.layer_end = 1, .has_embedding = true};
    struct error err = {ERROR_NONE, ""};

    m->catalog =
        catalog_open_weights(SHOAL_TEST_DATA "/configs/tiny-deepseek-163840.json", &choice, &err);
    assert_string_equal(err.message, "");
    m->weights = weights_plan(m->catalog, &share, &err);
    assert_non_null(m->weights);
    m->dummy = weights_dummy_plan(m->weights, 5);
    assert_true(weights_dummy_bind(m->dummy, m->weights, &err));
    assert_int_equal(m->catalog->arch.context_tokens_max, CONTEXT);
}

/* Blocks in an order of their own: prime steps visit all of them. */
static void cache_open(struct model *m, enum kv_type type)
{
    const uint32_t blocks = CONTEXT / KV_BLOCK_TOKENS;
    const struct kv_config config = {
        .layer_end = 1,
        .lane_count = 1,
        .block_count = blocks,
        .slot_count = 1,
        .blocks_per_slot_max = blocks,
        .layout = kv_layout_of(&m->catalog->arch, type),
    };
    struct error err;

    m->cache = kv_cache_create(&config, &err);
    assert_non_null(m->cache);
    for (uint32_t i = 0; i < blocks; i++) {
        uint32_t block = i * 7919u % blocks;

        assert_true(kv_cache_extend(m->cache, 0, 0, i, &block, 1, &err));
    }
}

static void forward_open(struct model *m, enum cpu_level level, uint32_t thread_count)
{
    const struct team_config team = {thread_count, -1};
    struct forward_config config = {
        .arch = &m->catalog->arch,
        .weights = m->weights,
        .cache = m->cache,
        .kernels = kernels_for(level, NUMERICS_EXACT),
        .rows_max = STORE_ROWS,
        .expert_rows_max = 1,
    };
    struct error err;

    m->team = team_create(&team, &err);
    assert_non_null(m->team);
    config.team = m->team;
    m->forward = forward_create(&config, &err);
    assert_non_null(m->forward);
}

static void forward_close(struct model *m)
{
    forward_destroy(m->forward);
    team_destroy(m->team);
}

static struct model model_open(enum kv_type type, enum cpu_level level)
{
    struct model m;

    weights_open(&m);
    cache_open(&m, type);
    forward_open(&m, level, 2);
    return m;
}

static void model_close(struct model *m)
{
    forward_close(m);
    kv_cache_destroy(m->cache);
    weights_dummy_destroy(m->dummy);
    weights_destroy(m->weights);
    catalog_close(m->catalog);
}

static uint32_t token_at(uint32_t position)
{
    return (position * 2654435761u >> 15) % VOCAB;
}

static struct forward_row row_at(uint32_t position, enum token_class token_class)
{
    return (struct forward_row){
        .position = position, .token = token_at(position), .token_class = token_class};
}

/* The whole context's entries, without attention. */
static void context_store(struct model *m)
{
    struct forward_row *rows = mem_new_array(struct forward_row, STORE_ROWS);
    float *x = mem_new_array(float, STORE_ROWS *HIDDEN);

    for (uint32_t begin = 0; begin < CONTEXT; begin += STORE_ROWS) {
        for (uint32_t i = 0; i < STORE_ROWS; i++) {
            rows[i] = row_at(begin + i, TOKEN_PROMPT);
        }
        forward_embed(m->forward, rows, STORE_ROWS, x);
        forward_store(m->forward, 0, rows, STORE_ROWS, x);
    }
    mem_free(rows);
    mem_free(x);
}

/* x of `position`, computed in a chunk of `count` rows that ends with it. */
static void attend(struct model *m, uint32_t position, uint32_t count, enum token_class token_class,
                   float out[HIDDEN])
{
    struct forward_row rows[CHUNK_MAX] = {{0}};
    float x[CHUNK_MAX * HIDDEN];

    for (uint32_t i = 0; i < count; i++) {
        rows[i] = row_at(position + 1 - count + i, token_class);
    }
    forward_embed(m->forward, rows, count, x);
    forward_attention(m->forward, 0, rows, count, x);
    memcpy(out, x + (size_t)(count - 1) * HIDDEN, HIDDEN * sizeof(float));
    for (uint32_t i = 0; i < count * HIDDEN; i++) {
        assert_true(isfinite(x[i]));
    }
}

/* Around the original context, at a split's beginning, anywhere, and at the very end. */
static const uint32_t positions[] = {4095, 4096, 65536, 100000, 163839};

struct attended {
    float x[ARRAY_LENGTH(positions)][2][HIDDEN]; /* of each class */
};

static void assert_attended(struct model *m, enum cpu_level level, uint32_t count,
                            const struct attended *wanted)
{
    for (size_t i = 0; i < ARRAY_LENGTH(positions); i++) {
        for (int of = TOKEN_PROMPT; of <= TOKEN_GENERATED; of++) {
            float got[HIDDEN];

            attend(m, positions[i], count, (enum token_class)of, got);
            if (memcmp(got, wanted->x[i][of], sizeof(got)) != 0) {
                fail_msg("%s: other bits at %u, class %d, in a chunk of %u", cpu_level_name(level),
                         positions[i], of, count);
            }
        }
    }
}

static void chunks_levels_and_threads_never_show_at(enum kv_type type)
{
    struct model m = model_open(type, CPU_REF);
    struct attended wanted;

    context_store(&m);
    for (size_t i = 0; i < ARRAY_LENGTH(positions); i++) {
        attend(&m, positions[i], 1, TOKEN_PROMPT, wanted.x[i][TOKEN_PROMPT]);
        attend(&m, positions[i], 1, TOKEN_GENERATED, wanted.x[i][TOKEN_GENERATED]);
    }
    for (enum cpu_level level = CPU_AVX2; level < CPU_LEVEL_COUNT; level++) {
        if (!cpu_level_available(level)) {
            print_message("skipped: this machine has no %s\n", cpu_level_name(level));
            continue;
        }
        if (SHOAL_SANITIZED != 0 && (level + (type == KV_Q8 ? 1 : 0)) % 2 == 0) {
            continue; /* slow; each level meets one of the types */
        }
        forward_close(&m);
        forward_open(&m, level, 1 + level);
        assert_attended(&m, level, 5, &wanted);
        assert_attended(&m, level, CHUNK_MAX, &wanted);
    }
    model_close(&m);
}

static void chunks_levels_and_threads_never_show(void **state)
{
    (void)state;
    chunks_levels_and_threads_never_show_at(KV_F16);
    chunks_levels_and_threads_never_show_at(KV_Q8);
}

/* --- the definition, in double --- */

/* A packed matrix as rows of f32: products with unit vectors are its values. */
static void matrix_read(const struct packed_matrix *w, double *out)
{
    float unit[HIDDEN] = {0}, column[3 * HIDDEN];

    assert_true(w->columns <= HIDDEN && w->rows <= ARRAY_LENGTH(column));
    for (uint32_t k = 0; k < w->columns; k++) {
        unit[k] = 1.0f;
        kernels_for(CPU_REF, NUMERICS_EXACT)
            ->matmul_exact(w, 0, packed_panel_count(w->rows), (struct rows_view){unit, HIDDEN}, 1,
                           (struct rows_out){column, ARRAY_LENGTH(column)});
        unit[k] = 0.0f;
        for (uint32_t o = 0; o < w->rows; o++) {
            out[o * w->columns + k] = (double)column[o];
        }
    }
}

static void product(const double *w, uint32_t rows, uint32_t columns, const double *x, double *out)
{
    for (uint32_t o = 0; o < rows; o++) {
        out[o] = 0.0;
        for (uint32_t k = 0; k < columns; k++) {
            out[o] += w[o * columns + k] * x[k];
        }
    }
}

static void rms_norm(const double *x, const float *weight, uint32_t count, double *out)
{
    double squares = 0.0;

    for (uint32_t i = 0; i < count; i++) {
        squares += x[i] * x[i];
    }
    for (uint32_t i = 0; i < count; i++) {
        out[i] = x[i] / sqrt(squares / count + 1e-6) * (double)weight[i];
    }
}

static void frequencies_make(double *frequencies)
{
    const double low = floor(WIDTH * log(ORIGINAL / (32 * 2 * M_PI)) / (2 * log(10000.0)));
    const double high = ceil(WIDTH * log(ORIGINAL / (1 * 2 * M_PI)) / (2 * log(10000.0)));

    for (uint32_t pair = 0; pair < WIDTH / 2; pair++) {
        double plain = pow(10000.0, -2.0 * pair / WIDTH);
        double ramp = fmin(fmax((pair - low) / (high - low), 0.0), 1.0);

        frequencies[pair] = plain / FACTOR * ramp + plain * (1.0 - ramp);
    }
}

/* Rotates adjacent pairs to `position`. */
static void rotate(const double *frequencies, const double *x, uint32_t position, double *out)
{
    for (uint32_t pair = 0; pair < WIDTH / 2; pair++) {
        double angle = position * frequencies[pair];

        out[2 * pair] = x[2 * pair] * cos(angle) - x[2 * pair + 1] * sin(angle);
        out[2 * pair + 1] = x[2 * pair] * sin(angle) + x[2 * pair + 1] * cos(angle);
    }
}

/* What does not depend on the position, for each token. */
struct definition {
    double x[VOCAB][HIDDEN];
    double latent[VOCAB][WIDTH], key[VOCAB][WIDTH];         /* the key before rotation */
    double query_latent[VOCAB][WIDTH], query[VOCAB][WIDTH]; /* absorbed; before rotation */
    double frequencies[WIDTH / 2];
    double w_uv[WIDTH * WIDTH], out[HIDDEN * WIDTH];
};

static void definition_make(struct model *m, struct definition *d)
{
    const struct attention_weights *w = &m->weights->layers[0].attention;
    double q_b[2 * WIDTH * HIDDEN], kv_a[2 * WIDTH * HIDDEN], w_uk[WIDTH * WIDTH];

    frequencies_make(d->frequencies);
    matrix_read(&w->q_b, q_b);
    matrix_read(&w->kv_a, kv_a);
    matrix_read(&w->w_uk[0], w_uk);
    matrix_read(&w->w_uv[0], d->w_uv);
    matrix_read(&w->out, d->out);
    for (uint32_t token = 0; token < VOCAB; token++) {
        struct forward_row row = {.token = token};
        double normed[HIDDEN], q[2 * WIDTH], entry[2 * WIDTH];
        float x[HIDDEN];

        forward_embed(m->forward, &row, 1, x);
        for (uint32_t i = 0; i < HIDDEN; i++) {
            d->x[token][i] = (double)x[i];
        }
        rms_norm(d->x[token], m->weights->layers[0].input_norm, HIDDEN, normed);
        product(q_b, 2 * WIDTH, HIDDEN, normed, q);
        product(kv_a, 2 * WIDTH, HIDDEN, normed, entry);
        rms_norm(entry, w->kv_a_norm, WIDTH, d->latent[token]);
        memcpy(d->key[token], entry + WIDTH, sizeof(d->key[token]));
        product(w_uk, WIDTH, WIDTH, q, d->query_latent[token]);
        memcpy(d->query[token], q + WIDTH, sizeof(d->query[token]));
    }
}

static double dot(const double *a, const double *b)
{
    double sum = 0.0;

    for (uint32_t i = 0; i < WIDTH; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

/* x + attention of the row at `position`, over all before it. */
static void define(const struct definition *d, uint32_t position, double out[HIDDEN])
{
    const double mscale = 0.1 * log(FACTOR) + 1.0;
    const double scale = mscale * mscale / sqrt(2.0 * WIDTH);
    double *p = mem_new_array(double, position + 1);
    double query[WIDTH], attended[WIDTH] = {0}, value[WIDTH];
    double max = -INFINITY, sum = 0.0;
    uint32_t own = token_at(position);

    rotate(d->frequencies, d->query[own], position, query);
    for (uint32_t t = 0; t <= position; t++) {
        double key[WIDTH];

        rotate(d->frequencies, d->key[token_at(t)], t, key);
        p[t] = (dot(d->query_latent[own], d->latent[token_at(t)]) + dot(query, key)) * scale;
        max = fmax(max, p[t]);
    }
    for (uint32_t t = 0; t <= position; t++) {
        p[t] = exp(p[t] - max);
        sum += p[t];
        for (uint32_t i = 0; i < WIDTH; i++) {
            attended[i] += p[t] * d->latent[token_at(t)][i];
        }
    }
    for (uint32_t i = 0; i < WIDTH; i++) {
        attended[i] /= sum;
    }
    product(d->w_uv, WIDTH, WIDTH, attended, value);
    product(d->out, HIDDEN, WIDTH, value, out);
    for (uint32_t i = 0; i < HIDDEN; i++) {
        out[i] += d->x[own][i];
    }
    mem_free(p);
}

static void assert_near(const struct definition *d, uint32_t position, const float *got,
                        const double *wanted)
{
    double error = 0.0, size = 0.0;

    for (uint32_t k = 0; k < HIDDEN; k++) {
        error = fmax(error, fabs((double)got[k] - wanted[k]));
        size = fmax(size, fabs(wanted[k] - d->x[token_at(position)][k]));
    }
    print_message("position %u: attention adds up to %.3f, error %.1e\n", position, size, error);
    assert_true(error <= 2e-5 * size);
}

static void positions_beyond_the_original_context_follow_the_definition(void **state)
{
    struct model m = model_open(KV_F32, CPU_REF);
    struct definition *d = mem_new(struct definition);

    (void)state;
    context_store(&m);
    definition_make(&m, d);
    for (size_t i = 0; i < ARRAY_LENGTH(positions); i++) {
        double wanted[HIDDEN];
        float expanded[HIDDEN], absorbed[HIDDEN];

        define(d, positions[i], wanted);
        attend(&m, positions[i], 3, TOKEN_PROMPT, expanded);
        assert_near(d, positions[i], expanded, wanted);
        attend(&m, positions[i], 3, TOKEN_GENERATED, absorbed);
        assert_near(d, positions[i], absorbed, wanted);
        assert_memory_not_equal(expanded, absorbed, sizeof(expanded)); /* two forms they are */
    }
    mem_free(d);
    model_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_levels_and_threads_never_show),
        cmocka_unit_test(positions_beyond_the_original_context_follow_the_definition),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
