/* Profiles: to JSON and back, refused by the field that is wrong, and summed. */
#include "common/plan/profile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct operation_record records[] = {
    {.layer = OPERATION_NO_LAYER,
     .operation = OPERATION_LOGITS,
     .phase = OPERATION_DECODE,
     .row_class = 0,
     .calls = 4,
     .rows = 4,
     .ns = 4000000000,
     .work = {.weight_bytes = 2000000000, .f32_operations = 1000000000}},
    {.layer = 2,
     .operation = OPERATION_ATTENTION,
     .phase = OPERATION_PROMPT,
     .row_class = 5,
     .calls = 7,
     .rows = 700,
     .ns = 9007199254740993, /* no double holds it */
     .work = {1, 2000, 3, 4, 5, 6}},
    {.layer = 3, /* the draft layer */
     .operation = OPERATION_LOGITS,
     .phase = OPERATION_DECODE,
     .row_class = 1,
     .calls = 1,
     .rows = 3,
     .ns = 1000000000,
     .work = {.cache_bytes = 1000000000, .int8_operations = 2000000000}},
};

static struct profile_worker workers[] = {
    {.worker = 4,
     .host = "a",
     .cpu = "vnni, some processor",
     .thread_count = 2,
     .layer_begin = 0,
     .layer_end = 3,
     .memory_bytes = 1,
     .ledger_bytes = 2,
     .weight_bytes = 3,
     .kv_bytes = 4,
     .limits = {1e9, 2e9, 0.5e9, "avx512-vnni", "avx512-fma"},
     .record_count = 3,
     .records = records},
    {.worker = 5, .host = "b", .cpu = "", .stage = 1, .layer_begin = 3, .layer_end = 3},
};

static const struct profile whole = {.model = "/m/model.gguf",
                                     .model_hash = "abc",
                                     .architecture = "llama",
                                     .layer_count = 3,
                                     .expert_count = 8,
                                     .numerics_id = "int8/f16/k1",
                                     .worker_count = 2,
                                     .workers = workers};

static int arena_setup(void **state)
{
    static struct arena arena;

    arena_init(&arena, 4096);
    *state = &arena;
    return 0;
}

static int arena_teardown(void **state)
{
    arena_deinit(*state);
    return 0;
}

static void a_profile_comes_back_as_it_was_written(void **state)
{
    json_t *object = profile_json(&whole);
    char *text = json_dumps(object, 0);
    struct error err = {0};
    struct profile *got = profile_parse(text, strlen(text), "p", *state, &err);

    if (got == NULL) {
        fail_msg("%s", err.message);
    }
    assert_string_equal(got->model, whole.model);
    assert_string_equal(got->numerics_id, whole.numerics_id);
    assert_int_equal(got->worker_count, 2);
    assert_int_equal(got->workers[0].worker, 4);
    assert_string_equal(got->workers[0].cpu, workers[0].cpu);
    assert_int_equal(got->workers[0].layer_end, 3);
    assert_int_equal(got->workers[1].stage, 1);
    assert_memory_equal(&got->workers[0].limits, &workers[0].limits, sizeof(workers[0].limits));
    assert_int_equal(got->workers[0].record_count, 3);
    assert_memory_equal(got->workers[0].records, records, sizeof(records));
    free(text); /* json_dumps gives a string that the caller frees */
    json_decref(object);
}

/* Sets or removes (NULL) what `path` names in a profile that is right, and reads it. */
static void expect_refusal(struct arena *arena, json_t *object, json_t *holder, const char *field,
                           json_t *value, const char *words)
{
    struct error err = {0};
    char *text;

    if (value == NULL) {
        assert_int_equal(json_object_del(holder, field), 0);
    } else {
        assert_int_equal(json_object_set_new(holder, field, value), 0);
    }
    text = json_dumps(object, 0);
    assert_null(profile_parse(text, strlen(text), "file.json", arena, &err));
    if (strstr(err.message, words) == NULL || strstr(err.message, "file.json") == NULL ||
        strstr(err.message, field) == NULL) {
        fail_msg("\"%s\" does not say \"%s\" and \"%s\"", err.message, words, field);
    }
    free(text); /* json_dumps gives a string that the caller frees */
    json_decref(object);
}

static json_t *worker_of(json_t *object)
{
    return json_array_get(json_object_get(object, "workers"), 0);
}

static json_t *record_of(json_t *object)
{
    return json_array_get(json_object_get(worker_of(object), "records"), 1);
}

static void the_wrong_field_is_named(void **state)
{
    json_t *object;

    object = profile_json(&whole);
    expect_refusal(*state, object, object, "format", json_string("other"), "not \"shoal-profile\"");
    object = profile_json(&whole);
    expect_refusal(*state, object, object, "version", json_integer(2), "reads version 1");
    object = profile_json(&whole);
    expect_refusal(*state, object, object, "numerics_id", NULL, "missing");
    object = profile_json(&whole);
    expect_refusal(*state, object, object, "layres", json_integer(1), "unknown");
    object = profile_json(&whole);
    expect_refusal(*state, object, worker_of(object), "layers", json_pack("[i,i]", 2, 9),
                   "workers[0]");
    object = profile_json(&whole);
    expect_refusal(*state, object, worker_of(object), "threads", json_integer(-1), "workers[0]");
    object = profile_json(&whole);
    expect_refusal(*state, object, json_object_get(worker_of(object), "limits"), "read_bytes_per_s",
                   json_real(-1), "limits");
    object = profile_json(&whole);
    expect_refusal(*state, object, record_of(object), "operation", json_string("attend"),
                   "records[1]");
    object = profile_json(&whole);
    expect_refusal(*state, object, record_of(object), "layer", json_integer(4), "from 0 to 3");
    object = profile_json(&whole);
    expect_refusal(*state, object, record_of(object), "layer", NULL, "records[1]");
    object = profile_json(&whole);
    expect_refusal(*state, object, record_of(object), "step_rows_max", json_integer(3), "class");
    object = profile_json(&whole);
    expect_refusal(*state, object, record_of(object), "ns", json_string("9"), "an integer");
    object = profile_json(&whole);
    expect_refusal(*state, object, record_of(object), "phase", json_string("prefill"), "unknown");
}

static void what_is_no_profile_is_refused(void **state)
{
    static const char *const texts[] = {"", "[]", "null", "{}", "{\"format\":\"shoal-profile\"}"};
    struct error err;

    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        assert_null(profile_parse(texts[i], strlen(texts[i]), "p", *state, &err));
        assert_int_equal(err.code, ERROR_INPUT);
    }
}

static void operations_are_summed_over_layers_and_put_beside_the_limits(void **state)
{
    struct profile_sum sums[PROFILE_SUMS_MAX];
    const struct profile_sum *logits = &sums[OPERATION_DECODE * OPERATION_COUNT + OPERATION_LOGITS];
    const struct profile_sum *attention =
        &sums[OPERATION_PROMPT * OPERATION_COUNT + OPERATION_ATTENTION];

    (void)state;
    profile_sums(&whole, sums);
    assert_int_equal(logits->operation, OPERATION_LOGITS);
    assert_int_equal(logits->phase, OPERATION_DECODE);
    assert_int_equal(logits->calls, 5);
    assert_int_equal(logits->ns, 5000000000);
    assert_int_equal(logits->read_bytes, 3000000000);
    assert_int_equal(logits->operations, 3000000000);
    assert_float_equal(logits->memory_seconds, 3, 1e-9);
    assert_float_equal(logits->arithmetic_seconds, 2 + 1, 1e-9);
    assert_int_equal(attention->read_bytes, 2001);
    assert_int_equal(sums[OPERATION_SAMPLING].calls, 0);
}

static void limits_that_were_not_measured_need_no_time(void **state)
{
    const struct machine_limits none = {0};

    (void)state;
    assert_float_equal(profile_memory_seconds(&none, 1000), 0, 0);
    assert_float_equal(profile_arithmetic_seconds(&none, 1000, 1000), 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_profile_comes_back_as_it_was_written, arena_setup,
                                        arena_teardown),
        cmocka_unit_test_setup_teardown(the_wrong_field_is_named, arena_setup, arena_teardown),
        cmocka_unit_test_setup_teardown(what_is_no_profile_is_refused, arena_setup, arena_teardown),
        cmocka_unit_test(operations_are_summed_over_layers_and_put_beside_the_limits),
        cmocka_unit_test(limits_that_were_not_measured_need_no_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
