/* bench_report.c - results of `shoal bench` as lines. */
#include "coordinator/cli/bench_report.h"

static json_t *numbers(const double *values, uint32_t count)
{
    json_t *array = json_array();

    for (uint32_t i = 0; i < count; i++) {
        json_array_append_new(array, json_real(values[i]));
    }
    return array;
}

static json_t *limits_json(const struct bench_result *result)
{
    json_t *array = json_array();

    for (uint32_t i = 0; i < result->machine_count; i++) {
        const struct machine_limits *limits = &result->machines[i].limits;

        json_array_append_new(array,
                              json_pack("{s:I,s:f,s:f,s:f,s:s,s:s}", "worker",
                                        (json_int_t)result->machines[i].worker, "read_bytes_per_s",
                                        limits->read_bytes_per_s, "int8_operations_per_s",
                                        limits->int8_operations_per_s, "f32_operations_per_s",
                                        limits->f32_operations_per_s, "int8_unit",
                                        limits->int8_unit, "f32_unit", limits->f32_unit));
    }
    return array;
}

json_t *bench_result_json(const struct bench_result *result)
{
    struct bench_name name;
    json_t *object = json_pack(
        "{s:s,s:I,s:I,s:f,s:o,s:o,s:f,s:f,s:f,s:f,s:o}", "test",
        bench_test_name(&result->test, &name), "depth", (json_int_t)result->test.depth, "batch",
        (json_int_t)result->test.batch, "tokens_per_s",
        bench_median(result->tokens_per_s, result->sample_count), "samples",
        numbers(result->tokens_per_s, result->sample_count), "stage_busy",
        numbers(result->stage_busy, result->stage_count), "rows_per_step", result->rows_per_step,
        "steps_in_flight", result->shares.steps_in_flight, "memory_share", result->shares.memory,
        "arithmetic_share", result->shares.arithmetic, "limits", limits_json(result));

    ASSERT(object != NULL);
    return object;
}

void bench_table_head(struct buffer *out)
{
    buffer_printf(out, "%-9s  %6s  %5s  %9s  %19s  %9s  %10s  %10s  %s\n", "test", "depth", "batch",
                  "tokens/s", "least to most", "rows/step", "of memory", "of arithm.",
                  "busy, by stage");
}

void bench_table_line(const struct bench_result *result, struct buffer *out)
{
    struct bench_range range = bench_range(result->tokens_per_s, result->sample_count);
    struct bench_name name;

    buffer_printf(out, "%-9s  %6u  %5u  %9.2f  %8.2f - %8.2f  %9.1f  %8.1f %%  %8.1f %% ",
                  bench_test_name(&result->test, &name), result->test.depth, result->test.batch,
                  bench_median(result->tokens_per_s, result->sample_count), range.min, range.max,
                  result->rows_per_step, 100 * result->shares.memory,
                  100 * result->shares.arithmetic);
    for (uint32_t stage = 0; stage < result->stage_count; stage++) {
        buffer_printf(out, " %.1f %%", 100 * result->stage_busy[stage]);
    }
    buffer_append_text(out, "\n");
}

void bench_limits_lines(const struct bench_machine *machines, uint32_t machine_count,
                        struct buffer *out)
{
    for (uint32_t i = 0; i < machine_count; i++) {
        const struct machine_limits *limits = &machines[i].limits;

        buffer_printf(out, "limits of worker %u: reads %.1f GB/s, %s %.0f Gop/s, %s %.0f Gop/s\n",
                      machines[i].worker, limits->read_bytes_per_s * 1e-9, limits->int8_unit,
                      limits->int8_operations_per_s * 1e-9, limits->f32_unit,
                      limits->f32_operations_per_s * 1e-9);
    }
}
