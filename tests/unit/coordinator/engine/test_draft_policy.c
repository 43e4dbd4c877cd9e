/* test_draft_policy.c - the chosen depth against the best one, tried out in simulated decoding.
 *
 * Costs of a step and the chance of each draft are drawn; the pace is taught by the simulated steps
 * alone, and a few prompts before.
 */
#include "coordinator/engine/draft_policy.h"

#include "tests/support/sim_random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#define DEPTH_MAX 8

struct decoding {
    struct sim_random random;
    double fixed_ns, row_ns, attended_ns, sampled_ns;
    double noise;
    uint32_t rows;
    uint64_t position;
    uint32_t stage_count; /* all alike */
    uint32_t steps;       /* in flight */
    double hop_ns;
    double chances[DEPTH_MAX];
};

static double draw(struct sim_random *random, double low, double high)
{
    return low + (high - low) * (double)sim_random_range(random, 0, 1000000) / 1000000;
}

static struct step_load load_of(const struct decoding *decoding, uint32_t depth)
{
    struct step_load load = {.rows = decoding->rows * (1 + depth)};

    load.sampled = load.rows;
    for (uint32_t i = 0; i <= depth; i++) {
        load.attended += decoding->rows * (decoding->position + i);
    }
    return load;
}

static double stage_ns(const struct decoding *decoding, const struct step_load *load)
{
    return decoding->fixed_ns + decoding->row_ns * load->rows +
           decoding->attended_ns * (double)load->attended + decoding->sampled_ns * load->sampled;
}

/* Tokens of a sequence per time. */
static double rate_of(const struct decoding *decoding, uint32_t depth)
{
    struct step_load load = load_of(decoding, depth);
    double stage = stage_ns(decoding, &load);
    double tokens = 1;
    double reached = 1;

    for (uint32_t i = 0; i < depth; i++) {
        reached *= decoding->chances[i];
        tokens += reached;
    }
    return tokens / fmax(decoding->steps * stage, decoding->stage_count * stage + decoding->hop_ns);
}

static double rate_best(const struct decoding *decoding, uint32_t draft_max)
{
    double best = 0;

    for (uint32_t depth = 0; depth <= draft_max; depth++) {
        best = fmax(best, rate_of(decoding, depth));
    }
    return best;
}

static void step_measure(struct decoding *decoding, struct pace *pace, const struct step_load *load,
                         double *now_ns)
{
    int64_t compute_ns[8];
    double passage = decoding->hop_ns;

    for (uint32_t stage = 0; stage < decoding->stage_count; stage++) {
        double ns = stage_ns(decoding, load) *
                    draw(&decoding->random, 1 - decoding->noise, 1 + decoding->noise);

        compute_ns[stage] = (int64_t)ns;
        passage += ns;
    }
    pace_measure(pace, (int64_t)*now_ns, (int64_t)(*now_ns + passage), load, compute_ns);
    *now_ns += passage;
}

static void prompts_measure(struct decoding *decoding, struct pace *pace, double *now_ns)
{
    for (uint32_t i = 0; i < 6; i++) {
        uint32_t rows = sim_random_u32(&decoding->random, 16, 400);
        struct step_load load = {
            .rows = rows, .attended = (uint64_t)rows * (rows + 1) / 2, .sampled = i % 2};

        step_measure(decoding, pace, &load, now_ns);
    }
}

/* One step; the depth asked for. */
static uint32_t step_run(struct decoding *decoding, struct draft_policy *policy, struct pace *pace,
                         double *now_ns)
{
    struct step_load decode = load_of(decoding, 0);
    uint32_t depth = draft_policy_depth(policy, pace, &decode, decoding->steps);
    struct step_load load = load_of(decoding, depth);
    uint32_t accepted = 0;

    assert_true(depth <= policy->draft_max);
    while (accepted < depth && draw(&decoding->random, 0, 1) < decoding->chances[accepted]) {
        accepted++;
    }
    draft_policy_note(policy, depth, accepted);
    step_measure(decoding, pace, &load, now_ns);
    return depth;
}

/* The mean of the expected rates of the depths asked for, by the best one's. */
static double share_run(struct decoding *decoding, struct draft_policy *policy, struct pace *pace,
                        double *now_ns, uint32_t step_count)
{
    double tokens = 0;
    double time = 0;

    for (uint32_t i = 0; i < step_count; i++) {
        uint32_t depth = step_run(decoding, policy, pace, now_ns);
        struct step_load load = load_of(decoding, depth);
        double step_time = decoding->steps * stage_ns(decoding, &load);
        double passage = decoding->stage_count * stage_ns(decoding, &load) + decoding->hop_ns;

        step_time = fmax(step_time, passage);
        tokens += rate_of(decoding, depth) * step_time;
        time += step_time;
    }
    return tokens / time / rate_best(decoding, policy->draft_max);
}

static void decoding_draw(struct decoding *decoding, uint64_t seed)
{
    struct sim_random random = sim_random_from(seed);
    double step_ns = pow(10, draw(&random, 5, 8));
    double fixed_share = draw(&random, 0, 1);
    double chance = draw(&random, 0, 1);

    *decoding = (struct decoding){
        .fixed_ns = step_ns * fixed_share,
        .noise = draw(&random, 0, 0.15),
        .rows = (uint32_t)pow(10, draw(&random, 0, 1.7)),
        .position = (uint64_t)pow(10, draw(&random, 1, 4)),
        .stage_count = sim_random_u32(&random, 1, 4),
        .hop_ns = step_ns * pow(10, draw(&random, -3, 0.5)),
    };
    decoding->steps = sim_random_u32(&random, 1, decoding->stage_count + 1);
    decoding->row_ns = step_ns * (1 - fixed_share) * draw(&random, 0, 1) / decoding->rows;
    decoding->attended_ns = step_ns * (1 - fixed_share) * draw(&random, 0, 0.5) / decoding->rows /
                            (double)decoding->position;
    decoding->sampled_ns = step_ns * (1 - fixed_share) * draw(&random, 0, 0.3) / decoding->rows;
    for (uint32_t i = 0; i < DEPTH_MAX; i++) {
        decoding->chances[i] = chance;
        chance *= draw(&random, 0.6, 1.1);
        chance = fmin(chance, 0.98);
    }
    decoding->random = random;
}

static void the_depth_is_nearly_the_best(void **state)
{
    const uint32_t cases = 300;
    uint32_t near = 0;
    double sum = 0;
    double worst = 1;

    (void)state;
    for (uint64_t seed = 1; seed <= cases; seed++) {
        struct decoding decoding;
        struct draft_policy policy;
        struct pace pace;
        double now_ns = 0;
        double share;

        decoding_draw(&decoding, seed);
        draft_policy_init(&policy, seed % 5 == 0 ? 2 : DEPTH_MAX);
        pace_init(&pace, decoding.stage_count, 8);
        prompts_measure(&decoding, &pace, &now_ns);
        (void)share_run(&decoding, &policy, &pace, &now_ns, 200);
        share = share_run(&decoding, &policy, &pace, &now_ns, 500);
        if (share < 0.92) {
            print_message(
                "seed %d: chances %.2f %.2f %.2f, fixed %.2f, hops %.2f, depth %u: %.3f\n",
                (int)seed, decoding.chances[0], decoding.chances[1], decoding.chances[2],
                decoding.fixed_ns * rate_of(&decoding, 0) * decoding.steps,
                decoding.hop_ns * rate_of(&decoding, 0), policy.depth, share);
        }
        near += share >= 0.95;
        worst = fmin(worst, share);
        sum += share / cases;
        pace_deinit(&pace);
    }
    print_message("%u of %u within 5 %% of the best depth, worst %.3f, mean %.4f\n", near, cases,
                  worst, sum);
    assert_true(near >= cases * 95 / 100);
    assert_true(worst >= 0.85);
}

/* Weights cost nearly everything, a row nearly nothing. */
static const struct decoding memory_bound = {
    .fixed_ns = 20e6,
    .row_ns = 1e5,
    .sampled_ns = 5e4,
    .noise = 0.05,
    .rows = 1,
    .position = 500,
    .stage_count = 1,
    .steps = 1,
    .hop_ns = 1e5,
    .chances = {0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9},
};

/* Every row costs the same, however many there are. */
static const struct decoding compute_bound = {
    .fixed_ns = 1e5,
    .row_ns = 5e6,
    .sampled_ns = 1e5,
    .noise = 0.05,
    .rows = 16,
    .position = 500,
    .stage_count = 1,
    .steps = 1,
    .hop_ns = 1e5,
    .chances = {0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8},
};

struct bench {
    struct decoding decoding;
    struct draft_policy policy;
    struct pace pace;
    double now_ns;
};

static void bench_init(struct bench *bench, const struct decoding *decoding)
{
    *bench = (struct bench){.decoding = *decoding};
    bench->decoding.random = sim_random_from(1);
    draft_policy_init(&bench->policy, DEPTH_MAX);
    pace_init(&bench->pace, decoding->stage_count, 8);
    prompts_measure(&bench->decoding, &bench->pace, &bench->now_ns);
}

/* Steps that drafted. */
static uint32_t bench_run(struct bench *bench, uint32_t step_count)
{
    uint32_t drafting = 0;

    for (uint32_t i = 0; i < step_count; i++) {
        drafting += step_run(&bench->decoding, &bench->policy, &bench->pace, &bench->now_ns) > 0;
    }
    return drafting;
}

static void nearly_free_rows_are_drafted_deep(void **state)
{
    struct bench bench;

    (void)state;
    bench_init(&bench, &memory_bound);
    (void)bench_run(&bench, 300);
    assert_int_equal(bench.policy.depth, DEPTH_MAX);
    pace_deinit(&bench.pace);
}

static void rows_that_cost_all_are_only_probed(void **state)
{
    struct bench bench;
    uint32_t drafting;

    (void)state;
    bench_init(&bench, &compute_bound);
    (void)bench_run(&bench, 100);
    drafting = bench_run(&bench, 6400);
    print_message("%u of 6400 steps drafted\n", drafting);
    assert_int_equal(bench.policy.depth, 0);
    assert_true(drafting >= 90); /* 1 in 64, and again as long as it succeeds */
    assert_true(drafting <= 640);
    pace_deinit(&bench.pace);
}

static void a_text_that_becomes_predictable_is_noticed(void **state)
{
    struct bench bench;
    uint32_t steps = 0;

    (void)state;
    bench_init(&bench, &memory_bound);
    bench.decoding.row_ns = 4e6; /* a draft must be right once in five times */
    for (uint32_t i = 0; i < DEPTH_MAX; i++) {
        bench.decoding.chances[i] = 0.03;
    }
    (void)bench_run(&bench, 1000);
    assert_int_equal(bench.policy.depth, 0);
    for (uint32_t i = 0; i < DEPTH_MAX; i++) {
        bench.decoding.chances[i] = 0.95;
    }
    while (bench.policy.depth < 4) {
        (void)bench_run(&bench, 1);
        steps++;
        assert_true(steps < 400);
    }
    print_message("drafts 4 deep after %u steps\n", steps);
    for (uint32_t i = 0; i < DEPTH_MAX; i++) {
        bench.decoding.chances[i] = 0.03;
    }
    steps = 0;
    while (bench.policy.depth > 0) {
        (void)bench_run(&bench, 1);
        steps++;
        assert_true(steps < 150);
    }
    print_message("none after %u more\n", steps);
    pace_deinit(&bench.pace);
}

/* When two depths are worth the same, one of them is kept. */
static void a_tie_is_no_seesaw(void **state)
{
    struct bench bench;
    uint32_t changes = 0;
    uint32_t depth;

    (void)state;
    bench_init(&bench, &memory_bound);
    bench.decoding.row_ns = 0.5 * 20e6;
    bench.decoding.sampled_ns = 0;
    bench.decoding.chances[0] = 1.0 / 3; /* (1 + 1/3) / (2 rows) = 1 / (1 row) */
    for (uint32_t i = 1; i < DEPTH_MAX; i++) {
        bench.decoding.chances[i] = 0.1;
    }
    (void)bench_run(&bench, 200);
    depth = bench.policy.depth;
    for (uint32_t i = 0; i < 2000; i++) {
        (void)bench_run(&bench, 1);
        changes += bench.policy.depth != depth;
        depth = bench.policy.depth;
    }
    print_message("%u changes of depth in 2000 steps\n", changes);
    assert_true(changes < 60);
    pace_deinit(&bench.pace);
}

static void nothing_known_drafts_one(void **state)
{
    struct step_load decode = {.rows = 2, .attended = 100, .sampled = 2};
    struct draft_policy policy;
    struct pace pace;

    (void)state;
    pace_init(&pace, 1, 3);
    draft_policy_init(&policy, 4);
    assert_int_equal(draft_policy_depth(&policy, &pace, &decode, 1), 1);
    for (uint32_t i = 0; i < 20; i++) {
        draft_policy_note(&policy, 1, 0);
    }
    assert_int_equal(draft_policy_depth(&policy, &pace, &decode, 1), 1); /* the cost is unknown */
    draft_policy_init(&policy, 0);
    assert_int_equal(draft_policy_depth(&policy, &pace, &decode, 1), 0);
    draft_policy_note(&policy, 0, 0);
    assert_int_equal(draft_policy_depth(&policy, &pace, &decode, 1), 0);
    pace_deinit(&pace);
}

static void chances_are_conditional(void **state)
{
    struct draft_policy policy;

    (void)state;
    draft_policy_init(&policy, 3);
    policy.depth = 3;
    for (uint32_t i = 0; i < 600; i++) {
        /* half the first fail; the second never fails, the third always */
        draft_policy_note(&policy, 3, i % 2 == 0 ? 0 : 2);
    }
    assert_true(fabs(policy.accepted[0] - 0.5) < 0.05);
    assert_true(policy.accepted[1] > 0.99);
    assert_true(policy.accepted[2] < 0.01);
    assert_int_equal(policy.noted[0], 600);
    assert_int_equal(policy.noted[2], 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_known_drafts_one),
        cmocka_unit_test(chances_are_conditional),
        cmocka_unit_test(nearly_free_rows_are_drafted_deep),
        cmocka_unit_test(rows_that_cost_all_are_only_probed),
        cmocka_unit_test(a_text_that_becomes_predictable_is_noticed),
        cmocka_unit_test(a_tie_is_no_seesaw),
        cmocka_unit_test(the_depth_is_nearly_the_best),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
