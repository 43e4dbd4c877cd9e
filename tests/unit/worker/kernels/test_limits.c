/* What the machine can do at most: plausible figures, in the units of the level, on any team. */
#include "tests/unit/worker/kernels/kernel_cases.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "worker/kernels/limits.h"

#define MEMORY_BYTES ((uint64_t)64 << 20)

static struct team *team_of(uint32_t thread_count)
{
    struct error err;
    struct team *team =
        team_create(&(struct team_config){.thread_count = thread_count, .spin_ns = -1}, &err);

    assert_non_null(team);
    return team;
}

static void every_level_has_limits_in_its_own_units(void **state)
{
    struct team *team = team_of(2);

    (void)state;
    for (int level = 0; level < CPU_LEVEL_COUNT; level++) {
        struct machine_limits limits;
        struct error err;

        if (!cpu_level_available((enum cpu_level)level)) {
            continue;
        }
        assert_true(limits_measure(team, (enum cpu_level)level, MEMORY_BYTES, &limits, &err));
        /* From a machine of 2000 to one that does not exist. */
        assert_true(limits.read_bytes_per_s > 1e7 && limits.read_bytes_per_s < 1e13);
        assert_true(limits.int8_operations_per_s > 1e6 && limits.int8_operations_per_s < 1e16);
        assert_true(limits.f32_operations_per_s > 1e6 && limits.f32_operations_per_s < 1e16);
        assert_true(strlen(limits.int8_unit) > 0 && strlen(limits.f32_unit) > 0);
        assert_int_equal(strcmp(limits.int8_unit, "scalar") == 0, level == CPU_REF);
    }
    team_destroy(team);
}

/* More operations take more time: the compiler has left nothing out. */
static void a_unit_takes_time_for_its_turns(void **state)
{
    const struct limit_unit *unit = &limit_units_ref.int8;
    int64_t few_ns = INT64_MAX, many_ns = INT64_MAX;

    (void)state;
    for (int i = 0; i < 5; i++) {
        int64_t begin_ns = clock_monotonic_ns();
        int64_t middle_ns;

        (void)unit->run(10000);
        middle_ns = clock_monotonic_ns();
        (void)unit->run(1000000);
        many_ns =
            clock_monotonic_ns() - middle_ns < many_ns ? clock_monotonic_ns() - middle_ns : many_ns;
        few_ns = middle_ns - begin_ns < few_ns ? middle_ns - begin_ns : few_ns;
    }
    assert_true(many_ns > 10 * few_ns);
}

static void without_memory_it_says_what_for(void **state)
{
    struct team *team = team_of(1);
    struct machine_limits limits;
    struct error err;

    (void)state;
    mem_fail_after(1);
    assert_false(limits_measure(team, CPU_REF, MEMORY_BYTES, &limits, &err));
    mem_fail_after(0);
    assert_non_null(strstr(err.message, "bandwidth"));
    team_destroy(team);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_level_has_limits_in_its_own_units),
        cmocka_unit_test(a_unit_takes_time_for_its_turns),
        cmocka_unit_test(without_memory_it_says_what_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
