/* golden_lines.c - reads golden lines, and finds the rows that they are about. */
#include "golden_lines.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

void golden_lines_read(const char *path, void (*read)(const json_t *line))
{
    struct error err = {0};
    size_t length;
    char *text;

    assert_true(file_read(path, 1 << 20, &text, &length, &err));
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        json_t *parsed = json_loads(line, 0, NULL);

        assert_non_null(parsed);
        read(parsed);
        json_decref(parsed);
    }
    mem_free(text);
}

uint32_t golden_ids(const json_t *array, uint32_t *out, uint32_t count_max)
{
    uint32_t count = (uint32_t)json_array_size(array);

    assert_true(count <= count_max);
    for (uint32_t i = 0; i < count; i++) {
        out[i] = (uint32_t)json_integer_value(json_array_get(array, i));
    }
    return count;
}

bool golden_route_is_clear(const json_t *line)
{
    return json_real_value(json_object_get(line, "gap")) >= 1e-5;
}

static bool has_expert(const json_t *experts, uint32_t expert)
{
    for (size_t i = 0; i < json_array_size(experts); i++) {
        if (json_integer_value(json_array_get(experts, i)) == (json_int_t)expert) {
            return true;
        }
    }
    return false;
}

static void row_check(const struct step_result *result, const struct step_routing *row,
                      const json_t *line)
{
    const json_t *experts = json_object_get(line, "experts");

    assert_int_equal(json_array_size(experts), result->chosen_count);
    for (uint32_t i = 0; i < result->chosen_count; i++) {
        assert_true(has_expert(experts, result->experts[row->expert_begin + i]));
    }
}

void golden_route_check(const struct fixture *fixture, const uint32_t *prompt_of,
                        const json_t *line)
{
    json_int_t layer = json_integer_value(json_object_get(line, "layer"));
    json_int_t prompt = json_integer_value(json_object_get(line, "id"));
    json_int_t position = json_integer_value(json_object_get(line, "pos"));
    uint32_t found = 0;

    for (uint32_t w = 0; w < fixture_worker_count(fixture); w++) {
        const struct step_result *result = &fixture_job(fixture, w, 0)->result;

        for (uint32_t i = 0; i < result->routing_count; i++) {
            const struct step_routing *row = &result->routing[i];

            if (row->layer == layer && row->row == position && prompt_of[row->entry] == prompt) {
                row_check(result, row, line);
                found++;
            }
        }
    }
    assert_int_equal(found, 1);
}
