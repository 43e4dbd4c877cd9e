/* test_pace.c - the pace against a simulated pipeline.
 *
 * The pipeline is drawn at random: stages, what a step, a row, a position and a sample cost each,
 * the share of experts, hops, the coordinator's turn, jitter, how many sequences decode, whether a
 * prompt waits. Events are few: a step passes the stages in order behind the one before, so that
 * its return is known when it is issued.
 */
#include "coordinator/engine/pace.h"

#include "tests/support/sim_random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define STAGES_MAX  6
#define STEPS_MAX   12
#define CASES       400
#define FLIGHTS_MAX (STEPS_MAX + 1) /* a prompt that arrives comes on top */

struct pipeline {
    struct sim_random random;
    uint32_t stage_count;
    uint32_t steps_max;
    double fixed_ns[STAGES_MAX];
    double row_ns[STAGES_MAX];
    double attended_ns[STAGES_MAX];
    double sampled_ns;    /* last stage */
    double experts_share; /* of the fixed time: weights that only some rows ask for */
    double hop_ns;
    double turn_ns;
    uint32_t jitter_percent;
    uint32_t sequence_count;
    uint32_t position;   /* of every sequence */
    uint32_t chunk_rows; /* of a prompt that is in every step */
};

/* A run of a pipeline. */
struct run {
    struct pipeline *pipeline;
    struct pace pace;
    bool measures;
    double now_ns;
    double stage_free_ns[STAGES_MAX];
    double done_ns_last;
    uint32_t decoding_count; /* sequences that have arrived */
    uint32_t ready_count;
    struct {
        double issued_ns;
        double done_ns;
        uint32_t decode_rows;
        struct step_load load;
        int64_t compute_ns[STAGES_MAX];
    } flights[FLIGHTS_MAX]; /* a ring */
    uint32_t flight_first;
    uint32_t flight_count;
    uint64_t rows_done;
};

static double draw_log(struct sim_random *random, double low, double high)
{
    double unit = (double)sim_random_range(random, 0, 1000000) / 1000000;

    return low * pow(high / low, unit);
}

static double draw(struct sim_random *random, double low, double high)
{
    return low + (high - low) * (double)sim_random_range(random, 0, 1000000) / 1000000;
}

static void pipeline_draw(struct pipeline *pipeline, uint64_t seed)
{
    struct sim_random random = sim_random_from(seed);
    double step_ns = draw_log(&random, 1e5, 1e8);
    double fixed_share = draw(&random, 0, 1);
    bool even = sim_random_chance(&random, 50);

    *pipeline = (struct pipeline){
        .stage_count = sim_random_u32(&random, 1, STAGES_MAX),
        .experts_share = sim_random_chance(&random, 30) ? draw(&random, 0, 1) : 0,
        .hop_ns = step_ns * draw_log(&random, 0.001, 1),
        .turn_ns = step_ns * draw_log(&random, 0.001, 1),
        .jitter_percent = sim_random_u32(&random, 0, 10),
        .sequence_count = (uint32_t)draw_log(&random, 1, 100),
        .position = (uint32_t)draw_log(&random, 10, 10000),
        .chunk_rows = sim_random_chance(&random, 25) ? sim_random_u32(&random, 16, 512) : 0,
    };
    pipeline->steps_max = sim_random_u32(&random, pipeline->stage_count, STEPS_MAX);
    for (uint32_t stage = 0; stage < pipeline->stage_count; stage++) {
        double ns = step_ns * (even ? 1 : draw(&random, 0.2, 1));
        double row_share = draw(&random, 0, 1);
        double rows = pipeline->sequence_count;

        pipeline->fixed_ns[stage] = ns * fixed_share;
        pipeline->row_ns[stage] = ns * (1 - fixed_share) * row_share / rows;
        pipeline->attended_ns[stage] =
            ns * (1 - fixed_share) * (1 - row_share) / rows / pipeline->position;
    }
    pipeline->sampled_ns = step_ns * draw_log(&random, 0.001, 0.3) / pipeline->sequence_count;
    pipeline->random = random;
}

static double stage_ns(struct pipeline *pipeline, uint32_t stage, const struct step_load *load)
{
    double unread = pipeline->experts_share * pow(1 - 8.0 / 256, load->rows);
    double ns = pipeline->fixed_ns[stage] * (1 - unread) + pipeline->row_ns[stage] * load->rows +
                pipeline->attended_ns[stage] * (double)load->attended;
    double jitter = pipeline->jitter_percent / 100.0;

    if (stage + 1 == pipeline->stage_count) {
        ns += pipeline->sampled_ns * load->sampled;
    }
    return ns * draw(&pipeline->random, 1 - jitter, 1 + jitter);
}

static void step_issue(struct run *run, uint32_t decode_rows, uint32_t prompt_rows)
{
    struct pipeline *pipeline = run->pipeline;
    uint32_t place = (run->flight_first + run->flight_count++) % FLIGHTS_MAX;
    struct step_load load = {
        .rows = decode_rows + prompt_rows,
        .attended = (uint64_t)decode_rows * pipeline->position +
                    (uint64_t)prompt_rows * (prompt_rows + 1) / 2,
        .sampled = decode_rows,
    };
    double at = run->now_ns + pipeline->turn_ns / 2;

    run->flights[place].issued_ns = run->now_ns;
    run->flights[place].decode_rows = decode_rows;
    run->flights[place].load = load;
    for (uint32_t stage = 0; stage < pipeline->stage_count; stage++) {
        double compute_ns = stage_ns(pipeline, stage, &load);

        at = fmax(at, run->stage_free_ns[stage]) + compute_ns;
        run->stage_free_ns[stage] = at;
        run->flights[place].compute_ns[stage] = (int64_t)compute_ns;
        at += pipeline->hop_ns;
    }
    run->flights[place].done_ns = at + pipeline->turn_ns / 2;
    run->ready_count -= decode_rows;
}

static void step_return(struct run *run)
{
    uint32_t place = run->flight_first;

    run->flight_first = (run->flight_first + 1) % FLIGHTS_MAX;
    run->flight_count--;
    run->now_ns = run->flights[place].done_ns;
    run->ready_count += run->flights[place].decode_rows;
    run->rows_done += run->flights[place].load.rows;
    if (run->measures) {
        pace_measure(&run->pace, (int64_t)run->flights[place].issued_ns, (int64_t)run->now_ns,
                     &run->flights[place].load, run->flights[place].compute_ns);
    }
}

static uint32_t steps_asked(const struct run *run)
{
    struct step_load shared = {
        .rows = run->decoding_count,
        .attended = (uint64_t)run->decoding_count * run->pipeline->position,
        .sampled = run->decoding_count,
    };
    uint32_t chunk = run->pipeline->chunk_rows;
    struct step_load each = {.rows = chunk, .attended = (uint64_t)chunk * (chunk + 1) / 2};

    return pace_steps_in_flight(&run->pace, &shared, &each);
}

/* As the scheduler does: an equal share for each of the steps. steps 0: as many as the pace asks
 * for. */
static void steps_issue(struct run *run, uint32_t steps)
{
    uint32_t prompt = run->pipeline->chunk_rows;
    uint32_t wanted = steps > 0 ? steps : steps_asked(run);

    while (run->flight_count < wanted && (run->ready_count > 0 || prompt > 0)) {
        uint32_t others = wanted - run->flight_count;
        uint32_t fair = (run->decoding_count + wanted - 1) / wanted;
        uint32_t rows = (run->ready_count + others - 1) / others;

        step_issue(run, rows < fair ? rows : fair, prompt);
    }
}

/* A sequence and its prompt. */
static void sequence_arrive(struct run *run)
{
    step_issue(run, 0, sim_random_u32(&run->pipeline->random, 1, 300));
    run->decoding_count++;
    run->ready_count++;
}

/* Rows per second, after the sequences have arrived one by one. */
static double run_rate(struct pipeline *pipeline, uint32_t steps, uint32_t *steps_last)
{
    struct run run = {.pipeline = pipeline, .measures = steps == 0};
    double begin_ns;
    uint64_t begin_rows;
    double rate;

    pace_init(&run.pace, pipeline->stage_count, pipeline->steps_max);
    while (run.decoding_count < pipeline->sequence_count) {
        sequence_arrive(&run);
        steps_issue(&run, steps);
        step_return(&run);
        steps_issue(&run, steps);
        step_return(&run);
    }
    steps_issue(&run, steps);
    for (uint32_t i = 0; i < 200; i++) {
        step_return(&run);
        steps_issue(&run, steps);
    }
    begin_ns = run.now_ns;
    begin_rows = run.rows_done;
    for (uint32_t i = 0; i < 600; i++) {
        step_return(&run);
        steps_issue(&run, steps);
    }
    rate = (double)(run.rows_done - begin_rows) / (run.now_ns - begin_ns) * 1e9;
    *steps_last = steps_asked(&run);
    pace_deinit(&run.pace);
    return rate;
}

static void the_chosen_number_of_steps_reaches_the_best_throughput(void **state)
{
    uint32_t near = 0;
    double worst = 1;
    double sum = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= CASES; seed++) {
        struct pipeline pipeline;
        double best = 0;
        uint32_t steps_best = 0;
        uint32_t steps_chosen;
        double chosen;
        double ratio;

        pipeline_draw(&pipeline, seed);
        for (uint32_t steps = 1; steps <= pipeline.steps_max; steps++) {
            struct pipeline copy = pipeline;
            uint32_t unused;
            double rate = run_rate(&copy, steps, &unused);

            if (rate > best) {
                best = rate;
                steps_best = steps;
            }
        }
        chosen = run_rate(&pipeline, 0, &steps_chosen);
        ratio = chosen / best;
        near += ratio >= 0.95;
        worst = fmin(worst, ratio);
        sum += ratio;
        if (ratio < 0.95) {
            print_message("seed %d: %u stages, %u sequences, chunk %u, jitter %u: %u steps of %u, "
                          "best %u, reaches %.3f\n",
                          (int)seed, pipeline.stage_count, pipeline.sequence_count,
                          pipeline.chunk_rows, pipeline.jitter_percent, steps_chosen,
                          pipeline.steps_max, steps_best, ratio);
        }
    }
    print_message("%u of %u within 5 %% of the best, worst %.3f, mean %.4f\n", near, CASES, worst,
                  sum / CASES);
    assert_true(near >= CASES * 95 / 100);
    assert_true(worst >= 0.8);
}

/* pace_teach's stages, working on a prompt alone in chunks of so many rows. */
static double prompt_run(uint32_t rows, uint32_t chunk)
{
    double end[2] = {0, 0};

    for (uint32_t done = 0; done < rows; done += chunk) {
        double count = rows - done < chunk ? rows - done : chunk;
        double attended = count * done + count * (count + 1) / 2;

        end[0] += 4e6 + 1e5 * count + 100 * attended;
        end[1] = fmax(end[0], end[1]) + 3e6 + 5e4 * count;
    }
    return end[1];
}

/* A pace that knows two stages, the second the slower one for samples only. */
static void pace_teach(struct pace *pace, uint32_t steps)
{
    int64_t now_ns = 0;

    pace_init(pace, 2, 8);
    for (uint32_t i = 0; i < steps; i++) {
        struct step_load load = {
            .rows = 1 + i * 7 % 40, .attended = 100 + i * 1301 % 9000, .sampled = 1 + i * 3 % 5};
        int64_t compute_ns[2];

        load.sampled = load.sampled < load.rows ? load.sampled : load.rows;
        compute_ns[0] = 4000000 + 100000 * (int64_t)load.rows + 100 * (int64_t)load.attended;
        compute_ns[1] = 3000000 + 50000 * (int64_t)load.rows + 1000000 * (int64_t)load.sampled;
        now_ns += 20000000;
        pace_measure(pace, now_ns, now_ns + compute_ns[0] + compute_ns[1] + 2000000, &load,
                     compute_ns);
        now_ns += 20000000;
    }
}

static void assert_near(double value, double expected)
{
    if (fabs(value - expected) > 0.02 * expected) {
        fail_msg("%g instead of %g", value, expected);
    }
}

static void nothing_is_predicted_before_eight_steps(void **state)
{
    struct step_load load = {.rows = 4, .attended = 400, .sampled = 4};
    struct step_load none = {0};
    struct pace pace;

    (void)state;
    pace_teach(&pace, 7);
    assert_true(pace_step_ns(&pace, &load) == 0);
    assert_true(pace_cycle_ns(&pace, &load, 1) == 0);
    assert_int_equal(pace_rows_max(&pace, &load, 0, 512, 1), 512);
    assert_int_equal(pace_steps_in_flight(&pace, &load, &none), 2);
    pace_deinit(&pace);
    pace_teach(&pace, 8);
    assert_true(pace_step_ns(&pace, &load) > 0);
    pace_deinit(&pace);
}

static void a_step_takes_what_its_slowest_stage_takes(void **state)
{
    struct step_load prompt = {.rows = 30, .attended = 8000};
    struct step_load decode = {.rows = 5, .attended = 1000, .sampled = 5};
    struct pace pace;

    (void)state;
    pace_teach(&pace, 200);
    assert_near(pace_step_ns(&pace, &prompt), 4e6 + 30 * 1e5 + 8000 * 100);
    assert_near(pace_step_ns(&pace, &decode), 3e6 + 5 * 5e4 + 5 * 1e6);
    /* one step: its way through both stages, and 2 ms */
    assert_near(pace_cycle_ns(&pace, &prompt, 1), 7.8e6 + 4.5e6 + 2e6);
    assert_near(pace_cycle_ns(&pace, &prompt, 5), 5 * 7.8e6);
    pace_deinit(&pace);
}

static void rows_join_up_to_the_limit_and_no_further(void **state)
{
    struct sim_random random = sim_random_from(1);
    struct pace pace;

    (void)state;
    pace_teach(&pace, 200);
    for (int i = 0; i < 500; i++) {
        struct step_load base = {.rows = sim_random_u32(&random, 0, 40),
                                 .attended = sim_random_range(&random, 0, 20000),
                                 .sampled = sim_random_u32(&random, 0, 5)};
        uint64_t context = sim_random_range(&random, 0, 5000);
        uint32_t rows_max = sim_random_u32(&random, 0, 300);
        int64_t limit_ns = (int64_t)sim_random_range(&random, 3000000, 30000000);
        uint32_t rows = pace_rows_max(&pace, &base, context, rows_max, limit_ns);
        uint32_t expected = 0;
        struct step_load load = base;

        while (expected < rows_max) {
            load.rows++;
            load.attended += context + expected + 1;
            if (pace_step_ns(&pace, &load) > (double)limit_ns) {
                break;
            }
            expected++;
        }
        assert_int_equal(rows, expected);
        assert_true(pace_rows_max(&pace, &base, context, rows_max, limit_ns + 1000000) >= rows);
    }
    pace_deinit(&pace);
}

static void no_more_steps_than_sequences(void **state)
{
    struct step_load load = {.rows = 1, .attended = 100, .sampled = 1};
    struct step_load none = {0};
    struct step_load chunk = {.rows = 64, .attended = 64 * 65 / 2};
    struct pace pace;

    (void)state;
    pace_teach(&pace, 200);
    assert_int_equal(pace_steps_in_flight(&pace, &load, &none), 1);
    assert_int_equal(pace_steps_in_flight(&pace, &none, &none), 2);
    /* 10.6 ms, 6.2 ms and 2 ms: 1.8 of the slowest stage */
    assert_int_equal(pace_steps_in_flight(&pace, &none, &chunk), 2);
    pace_deinit(&pace);
}

static void prompts_are_cut_so_that_they_are_through_soonest(void **state)
{
    const uint32_t lengths[] = {1, 64, 100, 300, 512, 1000, 1024, 4096};
    struct pace pace;

    (void)state;
    pace_teach(&pace, 200);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        uint32_t rows = lengths[i];
        double best = INFINITY;
        uint32_t chunk = pace_chunk_rows(&pace, rows, 32, 512);

        assert_in_range(chunk, rows < 32 ? rows : 32, 512);
        for (uint32_t steps = (rows + 511) / 512; steps <= rows / 32; steps++) {
            best = fmin(best, prompt_run(rows, (rows + steps - 1) / steps));
        }
        assert_true(rows < 64 || prompt_run(rows, chunk) <= 1.03 * best);
    }
    pace_deinit(&pace);
    /* Nothing known: neither one step nor many. A single stage gains nothing from more. */
    pace_teach(&pace, 0);
    assert_in_range(pace_chunk_rows(&pace, 1024, 64, 4096), 128, 256);
    assert_int_equal(pace_chunk_rows(&pace, 40, 64, 4096), 40);
    pace_deinit(&pace);
    pace_init(&pace, 1, 3);
    assert_int_equal(pace_chunk_rows(&pace, 1024, 64, 512), 512);
    pace_deinit(&pace);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_predicted_before_eight_steps),
        cmocka_unit_test(a_step_takes_what_its_slowest_stage_takes),
        cmocka_unit_test(rows_join_up_to_the_limit_and_no_further),
        cmocka_unit_test(no_more_steps_than_sequences),
        cmocka_unit_test(the_chosen_number_of_steps_reaches_the_best_throughput),
        cmocka_unit_test(prompts_are_cut_so_that_they_are_through_soonest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
