/* Attention over key blocks, latent and grouped: each level against its definition, chain by chain,
 * and a whole context against a softmax in double. */
#include "tests/unit/worker/kernels/kernel_cases.h"

#include "common/base/mem.h"
#include "worker/kernels/kernels.h"

#include <math.h>

/* One block layout's part that some heads share: grouped keys and values apart, or MLA's entries.
 */
struct context {
    uint32_t row_count, head_count, width, value_width, token_count;
    enum kv_type type;
    bool latent;
    uint32_t key_gap; /* keys, values and scales of other heads between those of one block */
    float *query;     /* [row][head][width] */
    float *turned;
    char *blocks; /* [block][block_bytes] as stored: keys, values, scales */
    size_t block_bytes, value_begin, scale_begin;
    float *keys;   /* [token][width] as f32 */
    float *values; /* [token][value_width] */
    float *scratch;
};

struct state {
    float *max, *sum, *acc;
};

static size_t query_count(const struct context *c)
{
    return (size_t)c->row_count * c->head_count;
}

static uint32_t block_count(const struct context *c)
{
    return (c->token_count + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
}

/* What a part of a token is worth once it is stored: the definition in common/model/kv_type.h. */
static void part_define(enum kv_type type, float *x, uint32_t count, float *scale, int8_t *codes)
{
    float most = 0.0f;

    for (uint32_t i = 0; i < count; i++) {
        switch (type) {
        case KV_F32:
            break;
        case KV_F16:
            x[i] = float_of_f16(f16_of_float(x[i]));
            break;
        case KV_BF16:
            x[i] = float_of_bf16(bf16_of_float(x[i]));
            break;
        default:
            most = fmaxf(most, fabsf(x[i]));
            break;
        }
    }
    if (type != KV_Q8) {
        return;
    }
    *scale = most / 127.0f;
    for (uint32_t i = 0; i < count; i++) {
        codes[i] = (int8_t)rintf(x[i] * (127.0f / most));
        x[i] = (float)codes[i] * *scale;
    }
}

static void value_put(const struct context *c, char *to, size_t index, float value, int8_t code)
{
    uint16_t bits = c->type == KV_F16 ? f16_of_float(value) : bf16_of_float(value);

    switch (c->type) {
    case KV_F32:
        memcpy(to + 4 * index, &value, 4);
        return;
    case KV_Q8:
        memcpy(to + index, &code, 1);
        return;
    default:
        memcpy(to + 2 * index, &bits, 2);
        return;
    }
}

/* Token t of its block: each part rounded, then put where the layout says. */
static void token_put(struct context *c, uint32_t token)
{
    char *block = c->blocks + token / KV_BLOCK_TOKENS * c->block_bytes;
    float *scales = (float *)(void *)(block + c->scale_begin);
    uint32_t t = token % KV_BLOCK_TOKENS;
    float *key = c->keys + (size_t)token * c->width;
    float *value = c->values + (size_t)token * c->value_width;
    uint32_t first = c->latent ? c->value_width : c->width;
    int8_t codes[1024], value_codes[1024];

    part_define(c->type, key, first, &scales[t], codes);
    if (c->latent) {
        part_define(c->type, key + first, c->width - first, &scales[KV_BLOCK_TOKENS + t],
                    codes + first);
        memcpy(value, key, first * sizeof(float));
    } else {
        part_define(c->type, value, c->value_width, &scales[KV_BLOCK_TOKENS + t], value_codes);
    }
    for (uint32_t k = 0; k < c->width; k++) {
        size_t at = c->latent ? (size_t)t * c->width + k : (size_t)k * KV_BLOCK_TOKENS + t;

        value_put(c, block, at, key[k], codes[k]);
    }
    for (uint32_t r = 0; !c->latent && r < c->value_width; r++) {
        value_put(c, block + c->value_begin, (size_t)t * c->value_width + r, value[r],
                  value_codes[r]);
    }
}

static void context_init(struct context *c, struct numbers *numbers)
{
    const uint32_t widest = c->width > c->value_width ? c->width : c->value_width;
    const size_t bytes = kv_type_bytes(c->type);
    const size_t stored = (size_t)block_count(c) * KV_BLOCK_TOKENS;

    c->value_begin = (c->width + c->key_gap) * KV_BLOCK_TOKENS * bytes;
    c->scale_begin = c->value_begin + c->value_width * KV_BLOCK_TOKENS * bytes;
    c->block_bytes = c->scale_begin + 2 * KV_BLOCK_TOKENS * sizeof(float);
    c->query = mem_new_array(float, query_count(c) * c->width);
    c->turned = mem_new_array(float, attend_turned_values(c->width, (uint32_t)query_count(c)));
    c->blocks = mem_new_array(char, block_count(c) * c->block_bytes);
    c->keys = mem_new_array(float, stored * c->width);
    c->values = mem_new_array(float, stored * c->value_width);
    c->scratch = mem_new_array(float, attend_scratch_values(widest, (uint32_t)query_count(c)));
    for (size_t i = 0; i < query_count(c) * c->width; i++) {
        c->query[i] = numbers_normal(numbers);
    }
    for (size_t i = 0; i < stored * c->width; i++) {
        c->keys[i] = numbers_normal(numbers);
    }
    for (size_t i = 0; i < stored * c->value_width; i++) {
        c->values[i] = numbers_normal(numbers);
    }
    for (uint32_t token = 0; token < stored; token++) { /* what nobody sees is there too */
        token_put(c, token);
    }
}

static void context_deinit(struct context *c)
{
    mem_free(c->query);
    mem_free(c->turned);
    mem_free(c->blocks);
    mem_free(c->keys);
    mem_free(c->values);
    mem_free(c->scratch);
}

static struct state state_fresh(const struct context *c)
{
    struct state s = {mem_new_array(float, query_count(c)), mem_new_array(float, query_count(c)),
                      mem_new_array(float, query_count(c) * c->value_width)};

    for (size_t query = 0; query < query_count(c); query++) {
        s.max[query] = -INFINITY;
    }
    return s;
}

static void state_free(struct state *s)
{
    mem_free(s->max);
    mem_free(s->sum);
    mem_free(s->acc);
}

static void assert_same_state(const struct context *c, const struct state *got,
                              const struct state *wanted, enum cpu_level level)
{
    assert_same_bits(got->max, wanted->max, query_count(c), "max", level);
    assert_same_bits(got->sum, wanted->sum, query_count(c), "sum", level);
    assert_same_bits(got->acc, wanted->acc, query_count(c) * c->value_width, "acc", level);
}

/* The last row is the context's last token, the others stand right before it. */
static uint32_t tokens_seen(const struct context *c, uint32_t row)
{
    return c->token_count + row + 1 - c->row_count;
}

static void run_blocks(const struct context *c, const struct kernels *kernels, uint32_t begin,
                       uint32_t end, struct state *s)
{
    uint32_t counts[64];

    kernels->attend_turn(c->query, query_count(c), c->width, c->turned);
    for (uint32_t token = begin; token < end; token += KV_BLOCK_TOKENS) {
        const char *block = c->blocks + token / KV_BLOCK_TOKENS * c->block_bytes;
        const float *scales = (const float *)(const void *)(block + c->scale_begin);
        const struct attend_block_args args = {
            .query = c->latent ? c->turned : c->query,
            .row_count = c->row_count,
            .head_count = c->head_count,
            .token_counts = counts,
            .key_width = c->width,
            .value_width = c->value_width,
            .scale = 0.11f,
            .type = c->type,
            .keys = block,
            .values = c->latent ? NULL : block + c->value_begin,
            .key_scales = scales,
            .value_scales = scales + KV_BLOCK_TOKENS,
            .max = s->max,
            .sum = s->sum,
            .acc = s->acc,
            .scratch = c->scratch,
        };

        for (uint32_t row = 0; row < c->row_count; row++) {
            uint32_t seen = tokens_seen(c, row);
            uint32_t left = seen > token ? seen - token : 0;

            counts[row] = left < KV_BLOCK_TOKENS ? left : KV_BLOCK_TOKENS;
        }
        kernels->attend_block(&args);
    }
}

/* exp of the kernels, by way of a join (see test_row_math.c). */
static float exp_of(float x)
{
    float max = x, sum = 1.0f, acc = 1.0f;
    const float zero = 0.0f;

    kernels_for(CPU_REF, NUMERICS_EXACT)->attend_join(&max, &sum, &acc, 0.0f, 0.0f, &zero, 1);
    return acc;
}

/* One block for one query, written down straight from the definition in kernels.h. */
static void define_block(const struct context *c, size_t query, uint32_t begin, uint32_t count,
                         struct state *s)
{
    const float *q = c->query + query * c->width;
    float *acc = s->acc + query * c->value_width;
    float p[KV_BLOCK_TOKENS], lane[16] = {0};
    float max = s->max[query], factor;

    for (uint32_t t = 0; t < count; t++) {
        const float *key = c->keys + (size_t)(begin + t) * c->width;
        float sum = 0;

        for (uint32_t k = 0; k < c->width; k++) {
            sum = fmaf(q[k], key[k], sum);
        }
        p[t] = sum * 0.11f;
        max = p[t] > max ? p[t] : max;
    }
    factor = exp_of(s->max[query] - max);
    for (uint32_t t = 0; t < count; t++) {
        p[t] = exp_of(p[t] - max);
        lane[t % 16] += p[t];
    }
    for (uint32_t half = 8; half > 0; half /= 2) {
        for (uint32_t i = 0; i < half; i++) {
            lane[i] += lane[i + half];
        }
    }
    s->max[query] = max;
    s->sum[query] = s->sum[query] * factor + lane[0];
    for (uint32_t r = 0; r < c->value_width; r++) {
        acc[r] *= factor;
        for (uint32_t t = 0; t < count; t++) {
            acc[r] = fmaf(p[t], c->values[(size_t)(begin + t) * c->value_width + r], acc[r]);
        }
    }
}

static void define_context(const struct context *c, struct state *s)
{
    for (size_t query = 0; query < query_count(c); query++) {
        uint32_t seen = tokens_seen(c, (uint32_t)(query / c->head_count));

        for (uint32_t begin = 0; begin < seen; begin += KV_BLOCK_TOKENS) {
            define_block(c, query, begin,
                         seen - begin < KV_BLOCK_TOKENS ? seen - begin : KV_BLOCK_TOKENS, s);
        }
    }
}

/* rows, heads, key width, value width, tokens; each is run in every type. */
static const struct context shapes[] = {
    {1, 1, 40, 32, 1, .latent = true},
    {1, 4, 48, 32, 170, .latent = true},
    {3, 5, 29, 21, 77, .latent = true},
    {5, 13, 72, 64, 66, .latent = true}, /* rows on both sides of a block's border: 65 queries */
    {1, 7, 17, 9, 130, .latent = true},
    {4, 16, 576, 512, 68, .latent = true},
    /* Few queries read the cache itself, many widen it; ragged values, wider than keys. */
    {1, 4, 16, 16, 170, .key_gap = 16},
    {1, 3, 20, 20, 77, .key_gap = 40},
    {8, 4, 64, 64, 132, .key_gap = 64},
    {1, 7, 128, 128, 130, .key_gap = 0},
    {3, 2, 18, 35, 66, .key_gap = 3},
    {2, 5, 18, 35, 130, .key_gap = 0},
};

static void on_every_context(void (*check)(struct context *c, enum cpu_level level),
                             enum cpu_level level)
{
    struct numbers numbers = {.seed = 31};

    for (size_t i = 0; i < ARRAY_LENGTH(shapes); i++) {
        for (int type = 0; type < KV_TYPE_COUNT; type++) {
            struct context c = shapes[i];

            c.type = (enum kv_type)type;
            context_init(&c, &numbers);
            check(&c, level);
            context_deinit(&c);
        }
    }
}

static void context_is_defined(struct context *c, enum cpu_level level)
{
    struct state got = state_fresh(c), wanted = state_fresh(c);

    run_blocks(c, kernels_for(level, NUMERICS_EXACT), 0, c->token_count, &got);
    define_context(c, &wanted);
    assert_same_state(c, &got, &wanted, level);
    state_free(&got);
    state_free(&wanted);
}

static void check_definition(enum cpu_level level)
{
    on_every_context(context_is_defined, level);
}

static void every_level_gives_the_definition(void **state)
{
    (void)state;
    on_every_level(check_definition);
}

static void near_naive_softmax(const struct context *c, size_t query, const struct state *s)
{
    uint32_t seen = tokens_seen(c, (uint32_t)(query / c->head_count));
    double *p = mem_new_array(double, seen);
    double max = -INFINITY, sum = 0;

    for (uint32_t t = 0; t < seen; t++) {
        for (uint32_t k = 0; k < c->width; k++) {
            p[t] +=
                (double)c->query[query * c->width + k] * (double)c->keys[(size_t)t * c->width + k];
        }
        p[t] *= (double)0.11f;
        max = fmax(max, p[t]);
    }
    for (uint32_t t = 0; t < seen; t++) {
        p[t] = exp(p[t] - max);
        sum += p[t];
    }
    for (uint32_t r = 0; r < c->value_width; r++) {
        double wanted = 0, got = (double)s->acc[query * c->value_width + r] / s->sum[query];

        for (uint32_t t = 0; t < seen; t++) {
            wanted += p[t] / sum * (double)c->values[(size_t)t * c->value_width + r];
        }
        assert_true(fabs(got - wanted) <= 1e-4);
    }
    mem_free(p);
}

/* Split at a multiple of the block, joined in order, as threads do it. */
static void splits_are_joined(struct context *c, enum cpu_level level)
{
    const struct kernels *kernels = kernels_for(level, NUMERICS_EXACT);
    uint32_t middle = c->token_count > 64 ? 64 : c->token_count;
    struct state a = state_fresh(c);
    struct state b = state_fresh(c); /* stays fresh for rows that end before it */

    run_blocks(c, kernels, 0, middle, &a);
    run_blocks(c, kernels, middle, c->token_count, &b);
    for (size_t query = 0; query < query_count(c); query++) {
        size_t at = query * c->value_width;

        kernels->attend_join(&a.max[query], &a.sum[query], a.acc + at, b.max[query], b.sum[query],
                             b.acc + at, c->value_width);
        near_naive_softmax(c, query, &a);
    }
    if (level != CPU_REF) {
        struct state ref = state_fresh(c);

        run_blocks(c, kernels_for(CPU_REF, NUMERICS_EXACT), middle, c->token_count, &ref);
        assert_same_state(c, &b, &ref, level);
        state_free(&ref);
    }
    state_free(&a);
    state_free(&b);
}

static void check_softmax(enum cpu_level level)
{
    on_every_context(splits_are_joined, level);
}

static void splits_joined_in_order_are_near_a_softmax_in_double(void **state)
{
    (void)state;
    on_every_level(check_softmax);
}

static void check_fresh(enum cpu_level level)
{
    float max = -INFINITY, sum = 0.0f, acc[3] = {0}, other[3] = {1.0f, -2.0f, 0.5f};

    kernels_for(level, NUMERICS_EXACT)->attend_join(&max, &sum, acc, -INFINITY, 0.0f, acc, 3);
    assert_true(max == -INFINITY && sum == 0.0f && acc[0] == 0.0f);
    kernels_for(level, NUMERICS_EXACT)->attend_join(&max, &sum, acc, 4.0f, 2.0f, other, 3);
    assert_true(max == 4.0f && sum == 2.0f);
    assert_same_bits(acc, other, 3, "joined to a fresh state", level);
}

static void fresh_states_join_without_a_trace(void **state)
{
    (void)state;
    on_every_level(check_fresh);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_level_gives_the_definition),
        cmocka_unit_test(splits_joined_in_order_are_near_a_softmax_in_double),
        cmocka_unit_test(fresh_states_join_without_a_trace),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
