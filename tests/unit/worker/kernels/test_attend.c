/* Attention over key blocks, latent and grouped: each level against its definition, chain by chain,
 * and a whole context against a softmax in double. */
#include "tests/unit/worker/kernels/kernel_cases.h"

#include "common/base/mem.h"
#include "worker/kernels/kernels.h"

#include <math.h>

struct context {
    uint32_t head_count, width, latent, token_count;
    enum kv_type type;
    uint32_t stride;           /* 0: an entry is its key and begins with its value */
    uint32_t key_at, value_at; /* in an entry */
    float *query;              /* [head][width] */
    void *entries;             /* [token][stride] as stored */
    float *keys;               /* [token][stride] as f32 */
    float *scratch;
};

struct state {
    float *max, *sum, *acc;
};

static void context_init(struct context *c, struct numbers *numbers)
{
    const uint32_t widest = c->width > c->latent ? c->width : c->latent;
    const struct kernels *ref = kernels_for(CPU_REF, NUMERICS_EXACT);
    size_t values;

    c->stride = c->stride == 0 ? c->width : c->stride;
    values = (size_t)c->token_count * c->stride;
    c->query = mem_new_array(float, (size_t)c->head_count * c->width);
    c->entries = mem_new_array(float, values);
    c->keys = mem_new_array(float, values);
    c->scratch = mem_new_array(float, attend_scratch_values(widest, c->head_count));
    for (size_t i = 0; i < (size_t)c->head_count * c->width; i++) {
        c->query[i] = numbers_normal(numbers);
    }
    for (size_t i = 0; i < values; i++) {
        c->keys[i] = numbers_normal(numbers);
    }
    ref->kv_store(c->entries, c->type, c->keys, values);
    ref->kv_load(c->keys, c->entries, c->type, values);
}

static void context_deinit(struct context *c)
{
    mem_free(c->query);
    mem_free(c->entries);
    mem_free(c->keys);
    mem_free(c->scratch);
}

static struct state state_fresh(const struct context *c)
{
    struct state s = {mem_new_array(float, c->head_count), mem_new_array(float, c->head_count),
                      mem_new_array(float, (size_t)c->head_count * c->latent)};

    for (uint32_t head = 0; head < c->head_count; head++) {
        s.max[head] = -INFINITY;
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
    assert_same_bits(got->max, wanted->max, c->head_count, "max", level);
    assert_same_bits(got->sum, wanted->sum, c->head_count, "sum", level);
    assert_same_bits(got->acc, wanted->acc, (size_t)c->head_count * c->latent, "acc", level);
}

static void run_blocks(const struct context *c, const struct kernels *kernels, uint32_t begin,
                       uint32_t end, struct state *s)
{
    for (uint32_t token = begin; token < end; token += KV_BLOCK_TOKENS) {
        const size_t value_bytes = kv_type_bytes(c->type);
        const char *entries = (const char *)c->entries + (size_t)token * c->stride * value_bytes;
        const struct attend_block_args args = {
            .query = c->query,
            .head_count = c->head_count,
            .key_width = c->width,
            .value_width = c->latent,
            .scale = 0.11f,
            .keys = entries + c->key_at * value_bytes,
            .values = entries + c->value_at * value_bytes,
            .stride = c->stride,
            .type = c->type,
            .token_count = end - token < KV_BLOCK_TOKENS ? end - token : KV_BLOCK_TOKENS,
            .max = s->max,
            .sum = s->sum,
            .acc = s->acc,
            .scratch = c->scratch,
        };

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

/* One block for one head, written down straight from the definition in kernels.h. */
static void define_block(const struct context *c, uint32_t head, uint32_t begin, uint32_t count,
                         struct state *s)
{
    const float *q = c->query + (size_t)head * c->width;
    float *acc = s->acc + (size_t)head * c->latent;
    float p[KV_BLOCK_TOKENS], lane[16] = {0};
    float max = s->max[head], factor;

    for (uint32_t t = 0; t < count; t++) {
        const float *key = c->keys + (size_t)(begin + t) * c->stride + c->key_at;
        float sum = 0;

        for (uint32_t k = 0; k < c->width; k++) {
            sum = fmaf(q[k], key[k], sum);
        }
        p[t] = sum * 0.11f;
        max = p[t] > max ? p[t] : max;
    }
    factor = exp_of(s->max[head] - max);
    for (uint32_t t = 0; t < count; t++) {
        p[t] = exp_of(p[t] - max);
        lane[t % 16] += p[t];
    }
    for (uint32_t half = 8; half > 0; half /= 2) {
        for (uint32_t i = 0; i < half; i++) {
            lane[i] += lane[i + half];
        }
    }
    s->max[head] = max;
    s->sum[head] = s->sum[head] * factor + lane[0];
    for (uint32_t r = 0; r < c->latent; r++) {
        acc[r] *= factor;
        for (uint32_t t = 0; t < count; t++) {
            const float *value = c->keys + (size_t)(begin + t) * c->stride + c->value_at;

            acc[r] = fmaf(p[t], value[r], acc[r]);
        }
    }
}

static const struct context shapes[] = {
    {.head_count = 1, .width = 40, .latent = 32, .token_count = 1, .type = KV_F32},
    {.head_count = 4, .width = 48, .latent = 32, .token_count = 170, .type = KV_F32},
    {.head_count = 5, .width = 29, .latent = 21, .token_count = 77, .type = KV_F16},
    {.head_count = 6, .width = 72, .latent = 64, .token_count = 64, .type = KV_BF16},
    {.head_count = 7, .width = 17, .latent = 9, .token_count = 130, .type = KV_F16},
    {.head_count = 16, .width = 576, .latent = 512, .token_count = 200, .type = KV_F16},
    /* Grouped: the second of two heads, of three, the only one; values wider than keys. */
    {4, 16, 16, 170, KV_F32, .stride = 64, .key_at = 16, .value_at = 48},
    {3, 20, 20, 77, KV_F16, .stride = 120, .key_at = 20, .value_at = 80},
    {7, 128, 128, 130, KV_BF16, .stride = 256, .key_at = 0, .value_at = 128},
    {2, 18, 35, 66, KV_F16, .stride = 53, .key_at = 0, .value_at = 18},
};

static void check_definition(enum cpu_level level)
{
    struct numbers numbers = {.seed = 31};

    for (size_t i = 0; i < ARRAY_LENGTH(shapes); i++) {
        struct context c = shapes[i];
        struct state got, wanted;

        context_init(&c, &numbers);
        got = state_fresh(&c);
        wanted = state_fresh(&c);
        run_blocks(&c, kernels_for(level, NUMERICS_EXACT), 0, c.token_count, &got);
        for (uint32_t head = 0; head < c.head_count; head++) {
            for (uint32_t begin = 0; begin < c.token_count; begin += KV_BLOCK_TOKENS) {
                uint32_t left = c.token_count - begin;
                define_block(&c, head, begin, left < KV_BLOCK_TOKENS ? left : KV_BLOCK_TOKENS,
                             &wanted);
            }
        }
        assert_same_state(&c, &got, &wanted, level);
        state_free(&got);
        state_free(&wanted);
        context_deinit(&c);
    }
}

static void every_level_gives_the_definition(void **state)
{
    (void)state;
    on_every_level(check_definition);
}

static void near_naive_softmax(const struct context *c, uint32_t head, const struct state *s)
{
    double *p = mem_new_array(double, c->token_count);
    double max = -INFINITY, sum = 0;

    for (uint32_t t = 0; t < c->token_count; t++) {
        for (uint32_t k = 0; k < c->width; k++) {
            p[t] += (double)c->query[(size_t)head * c->width + k] *
                    (double)c->keys[(size_t)t * c->stride + c->key_at + k];
        }
        p[t] *= (double)0.11f;
        max = fmax(max, p[t]);
    }
    for (uint32_t t = 0; t < c->token_count; t++) {
        p[t] = exp(p[t] - max);
        sum += p[t];
    }
    for (uint32_t r = 0; r < c->latent; r++) {
        double wanted = 0, got = (double)s->acc[(size_t)head * c->latent + r] / s->sum[head];

        for (uint32_t t = 0; t < c->token_count; t++) {
            wanted += p[t] / sum * (double)c->keys[(size_t)t * c->stride + c->value_at + r];
        }
        assert_true(fabs(got - wanted) <= 1e-4);
    }
    mem_free(p);
}

/* Splits at a multiple of the block, joined in order, as threads do it. */
static void check_softmax(enum cpu_level level)
{
    struct numbers numbers = {.seed = 61};
    const struct kernels *kernels = kernels_for(level, NUMERICS_EXACT),
                         *ref = kernels_for(CPU_REF, NUMERICS_EXACT);

    for (size_t i = 0; i < ARRAY_LENGTH(shapes); i++) {
        struct context c = shapes[i];
        uint32_t middle = c.token_count > 64 ? 64 : c.token_count;
        struct state a, b, a_ref, b_ref;

        context_init(&c, &numbers);
        a = state_fresh(&c);
        b = state_fresh(&c); /* stays fresh for the shortest contexts */
        a_ref = state_fresh(&c);
        b_ref = state_fresh(&c);
        run_blocks(&c, kernels, 0, middle, &a);
        run_blocks(&c, kernels, middle, c.token_count, &b);
        run_blocks(&c, ref, 0, middle, &a_ref);
        run_blocks(&c, ref, middle, c.token_count, &b_ref);
        for (uint32_t head = 0; head < c.head_count; head++) {
            const size_t at = (size_t)head * c.latent;

            kernels->attend_join(&a.max[head], &a.sum[head], a.acc + at, b.max[head], b.sum[head],
                                 b.acc + at, c.latent);
            ref->attend_join(&a_ref.max[head], &a_ref.sum[head], a_ref.acc + at, b_ref.max[head],
                             b_ref.sum[head], b_ref.acc + at, c.latent);
            near_naive_softmax(&c, head, &a);
        }
        assert_same_state(&c, &a, &a_ref, level);
        state_free(&a);
        state_free(&b);
        state_free(&a_ref);
        state_free(&b_ref);
        context_deinit(&c);
    }
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
