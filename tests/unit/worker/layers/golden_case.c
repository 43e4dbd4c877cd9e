/* golden_case.c - reads expected outputs. */
#include "tests/unit/worker/layers/golden_case.h"

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define FILE_BYTES_MAX ((size_t)64 << 20)

static char *read_whole(const char *name, const char *file, size_t *bytes)
{
    char path[512];
    struct error err = {ERROR_NONE, ""};
    char *text = NULL;

    snprintf(path, sizeof(path), "%s/%s/%s", SHOAL_TEST_DATA, name, file);
    if (!file_read(path, FILE_BYTES_MAX, &text, bytes, &err)) {
        fail_msg("%s", err.message);
    }
    return text;
}

float *golden_read_floats(const char *name, const char *file, size_t *bytes)
{
    return (float *)(void *)read_whole(name, file, bytes);
}

typedef void (*line_fn)(struct golden_case *golden, const json_t *line);

static void lines_read(struct golden_case *golden, const char *name, const char *file, line_fn fn)
{
    size_t bytes;
    char *text = read_whole(name, file, &bytes);
    char *rest = text;

    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        struct error err;
        json_t *value;

        if (*line == '\0') {
            continue;
        }
        value = json_parse(line, strlen(line), file, &err);
        assert_non_null(value);
        fn(golden, value);
        json_decref(value);
    }
    mem_free(text);
}

static uint32_t field_u32(const json_t *line, const char *field)
{
    return (uint32_t)json_integer_value(json_object_get(line, field));
}

static uint32_t item_u32(const json_t *array, size_t i)
{
    return (uint32_t)json_integer_value(json_array_get(array, i));
}

static void prompt_read(struct golden_case *golden, const json_t *line)
{
    const json_t *tokens = json_object_get(line, "tokens");
    uint32_t id = field_u32(line, "id");
    struct golden_prompt *prompt = &golden->prompts[id];

    assert_true(id < GOLDEN_PROMPTS);
    prompt->token_count = field_u32(line, "n");
    prompt->logits_row = field_u32(line, "logits_row");
    prompt->tokens = mem_new_array(uint32_t, prompt->token_count);
    for (uint32_t i = 0; i < prompt->token_count; i++) {
        prompt->tokens[i] = item_u32(tokens, i);
    }
    golden->position_count += prompt->token_count;
}

static void greedy_read(struct golden_case *golden, const json_t *line)
{
    struct golden_prompt *prompt = &golden->prompts[field_u32(line, "id")];

    for (uint32_t i = 0; i < 32; i++) {
        prompt->greedy[i] = item_u32(json_object_get(line, "tokens"), i);
        prompt->margins[i] = json_number_value(json_array_get(json_object_get(line, "margins"), i));
    }
}

/* Draft layers' lines have higher layer numbers than there is room for. */
static uint32_t route_layer_count;
static uint32_t route_chosen_count;

static void route_read(struct golden_case *golden, const json_t *line)
{
    uint32_t layer = field_u32(line, "layer");
    uint32_t row = golden->prompts[field_u32(line, "id")].logits_row + field_u32(line, "pos");
    struct golden_route *route;

    if (layer >= route_layer_count) {
        return;
    }
    route = &golden->routes[(size_t)layer * golden->position_count + row];
    route->gap = json_number_value(json_object_get(line, "gap"));
    for (uint32_t i = 0; i < route_chosen_count; i++) {
        uint32_t expert = item_u32(json_object_get(line, "experts"), i);
        json_t *weight = json_array_get(json_object_get(line, "weights"), i);
        uint32_t place = i;

        for (; place > 0 && route->experts[place - 1] > expert; place--) {
            route->experts[place] = route->experts[place - 1];
            route->weights[place] = route->weights[place - 1];
        }
        route->experts[place] = expert;
        route->weights[place] = (float)json_number_value(weight);
    }
}

struct golden_case golden_case_open(const char *name, uint32_t layer_count, uint32_t chosen_count)
{
    struct golden_case golden;

    memset(&golden, 0, sizeof(golden));
    assert_true(chosen_count <= 16);
    route_layer_count = layer_count;
    route_chosen_count = chosen_count;
    lines_read(&golden, name, "prompts.jsonl", prompt_read);
    lines_read(&golden, name, "greedy.jsonl", greedy_read);
    golden.routes = mem_new_array(struct golden_route, (size_t)layer_count * golden.position_count);
    if (chosen_count > 0) {
        lines_read(&golden, name, "routing.jsonl", route_read);
    }
    golden.logits = golden_read_floats(name, "logits.f32", &golden.logits_bytes);
    golden.hidden = golden_read_floats(name, "hidden.f32", &golden.hidden_bytes);
    return golden;
}

void golden_case_close(struct golden_case *golden)
{
    for (uint32_t i = 0; i < GOLDEN_PROMPTS; i++) {
        mem_free(golden->prompts[i].tokens);
    }
    mem_free(golden->routes);
    mem_free(golden->logits);
    mem_free(golden->hidden);
}
