/* model_fixture.c - see model_fixture.h. */
#include "tests/unit/common/model/model_fixture.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/model/catalog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BF16_MODEL "deepseek_v3-bf16/model"
#define FP8_MODEL  "deepseek_v3-fp8/model"

static const char *const bf16_files[] = {
    "config.json",
    "generation_config.json",
    "model-00001-of-00003.safetensors",
    "model-00002-of-00003.safetensors",
    "model-00003-of-00003.safetensors",
    "model.safetensors.index.json",
};
static const char *const fp8_files[] = {
    "config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
};

static void read_whole(const char *path, char **text, size_t *length)
{
    struct error err = {0};

    if (!file_read(path, (size_t)64 << 20, text, length, &err)) {
        fail_msg("%s", err.message);
    }
}

json_t *fixture_json(const char *name)
{
    char path[512];
    json_t *value;

    snprintf(path, sizeof(path), "%s/%s", SHOAL_TEST_DATA, name);
    value = json_load_file(path, 0, NULL);
    assert_non_null(value);
    return value;
}

static void change(json_t *object, const char *path, const char *value)
{
    const char *dot = strchr(path, '.');

    if (dot != NULL) {
        char *head = mem_strndup(path, (size_t)(dot - path));

        object = json_object_get(object, head);
        assert_non_null(object);
        mem_free(head);
        path = dot + 1;
    }
    if (value == NULL) {
        json_object_del(object, path);
    } else {
        json_t *parsed = json_loads(value, JSON_DECODE_ANY, NULL);

        assert_non_null(parsed);
        json_object_set_new(object, path, parsed);
    }
}

bool fixture_parse_changed(const char *config, const char *path, const char *value,
                           struct arch *out, struct error *err)
{
    json_t *object = fixture_json(config);
    char *text;
    bool parsed;

    change(object, path, value);
    text = json_dumps(object, 0);
    parsed = arch_parse(text, strlen(text), "config", out, err);
    free(text);
    json_decref(object);
    return parsed;
}

struct arch fixture_arch(const char *name)
{
    char path[512];
    struct arch arch;
    struct error err = {0};
    char *text;
    size_t length;

    snprintf(path, sizeof(path), "%s/configs/%s.json", SHOAL_TEST_DATA, name);
    read_whole(path, &text, &length);
    if (!arch_parse(text, length, path, &arch, &err)) {
        fail_msg("%s", err.message);
    }
    mem_free(text);
    return arch;
}

static void files_copy(struct model_copy *copy, const char *folder, const char *const *files,
                       size_t count)
{
    scratch_open(&copy->scratch);
    for (size_t i = 0; i < count; i++) {
        char path[512];
        char *text;
        size_t length;

        snprintf(path, sizeof(path), "%s/%s/%s", SHOAL_TEST_DATA, folder, files[i]);
        read_whole(path, &text, &length);
        model_copy_write(copy, files[i], text, length);
        mem_free(text);
    }
}

void model_copy_open(struct model_copy *copy)
{
    files_copy(copy, BF16_MODEL, bf16_files, ARRAY_LENGTH(bf16_files));
}

void model_copy_open_fp8(struct model_copy *copy)
{
    files_copy(copy, FP8_MODEL, fp8_files, ARRAY_LENGTH(fp8_files));
}

void model_copy_close(struct model_copy *copy)
{
    scratch_close(&copy->scratch);
}

const char *model_copy_path(struct model_copy *copy, const char *name)
{
    return scratch_path(&copy->scratch, name);
}

void model_copy_write(struct model_copy *copy, const char *name, const void *bytes, size_t length)
{
    struct error err = {0};

    if (!file_write(model_copy_path(copy, name), bytes, length, 0600, &err)) {
        fail_msg("%s", err.message);
    }
}

void model_copy_write_json(struct model_copy *copy, const char *name, const json_t *value)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY);

    assert_non_null(text);
    model_copy_write(copy, name, text, strlen(text));
    free(text);
}

void model_copy_cut(struct model_copy *copy, const char *name, size_t length)
{
    char *text;
    size_t whole;

    read_whole(model_copy_path(copy, name), &text, &whole);
    assert_true(length <= whole);
    model_copy_write(copy, name, text, length);
    mem_free(text);
}

static size_t header_bytes(const char *file)
{
    uint64_t length;

    memcpy(&length, file, sizeof(length));
    return (size_t)length;
}

json_t *model_copy_header(struct model_copy *copy, const char *name)
{
    json_t *header;
    char *text;
    size_t length;

    read_whole(model_copy_path(copy, name), &text, &length);
    header = json_loadb(text + 8, header_bytes(text), 0, NULL);
    assert_non_null(header);
    mem_free(text);
    return header;
}

void model_copy_set_header(struct model_copy *copy, const char *name, const json_t *header)
{
    char *json = json_dumps(header, JSON_COMPACT);
    uint64_t json_bytes = strlen(json);
    char *old, *new;
    size_t length, data;

    read_whole(model_copy_path(copy, name), &old, &length);
    data = length - 8 - header_bytes(old);
    new = mem_new_array(char, 8 + json_bytes + data);
    memcpy(new, &json_bytes, 8);
    memcpy(new + 8, json, json_bytes);
    memcpy(new + 8 + json_bytes, old + length - data, data);
    model_copy_write(copy, name, new, 8 + json_bytes + data);
    mem_free(new);
    mem_free(old);
    free(json);
}

void model_copy_expect_error(struct model_copy *copy, const char *const *words)
{
    struct error err = {0};
    struct catalog *catalog = catalog_open(copy->scratch.folder, &err);

    assert_null(catalog);
    assert_int_not_equal(err.code, ERROR_NONE);
    for (; *words != NULL; words++) {
        if (strstr(err.message, *words) == NULL) {
            fail_msg("\"%s\" is not in: %s", *words, err.message);
        }
    }
}
