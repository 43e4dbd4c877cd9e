/* Where compute threads go, on machines that hwloc makes up, and on this one. */
#include "common/base/mem.h"
#include "worker/team/cores.h"
#include "worker/team/pinning.h"
#include "worker/team/team.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void assert_cores(const char *machine, const uint32_t *wanted, uint32_t count,
                         bool is_interleaved)
{
    struct pinning *pinning = pinning_create_synthetic(machine, count);

    assert_non_null(pinning);
    for (uint32_t thread = 0; thread < count; thread++) {
        assert_int_equal(pinning_core(pinning, thread), wanted[thread]);
    }
    assert_int_equal(pinning_is_interleaved(pinning), is_interleaved);
    pinning_destroy(pinning);
}

static void cores_come_before_their_siblings(void **state)
{
    static const uint32_t plain[] = {0, 1, 2, 3};
    static const uint32_t siblings[] = {0, 2, 4, 6, 1, 3, 5, 7};

    (void)state;
    assert_cores("core:4 pu:1", plain, 4, false);
    assert_cores("core:4 pu:2", siblings, 8, false);
    assert_cores("core:4 pu:2", siblings, 4, false);
}

static void nodes_are_filled_in_order_and_share_memory(void **state)
{
    static const uint32_t cores[] = {0, 2, 4, 6, 1, 3, 5, 7};

    (void)state;
    assert_cores("numa:2 core:2 pu:2", cores, 8, true);
    assert_cores("numa:2 core:2 pu:2", cores, 4, true);
    assert_cores("numa:2 core:2 pu:2", cores, 2, false); /* both on the first node */
}

static void a_machine_too_small_or_wrong_pins_nothing(void **state)
{
    (void)state;
    assert_null(pinning_create_synthetic("core:2 pu:1", 3));
    assert_null(pinning_create_synthetic("no such thing", 1));
    assert_null(pinning_create(cores_available() + 1));
    pinning_apply(NULL, 0);
    pinning_spread(NULL, NULL, 0);
    pinning_destroy(NULL);
}

struct places {
    struct pinning *pinning;
    uint32_t thread_count;
    atomic_uint arrived;
    atomic_uint wrong;
};

/* Every thread of the team runs one: none ends before all have begun. */
static void look(void *context, size_t tile, uint32_t thread)
{
    struct places *places = context;
    int core = sched_getcpu();

    (void)tile;
    if (core >= 0 && (uint32_t)core != pinning_core(places->pinning, thread)) {
        atomic_fetch_add(&places->wrong, 1);
    }
    atomic_fetch_add(&places->arrived, 1);
    while (atomic_load(&places->arrived) < places->thread_count) {
        sched_yield();
    }
}

static void a_team_of_all_cores_has_one_thread_on_each(void **state)
{
    const struct team_config config = {0, -1};
    struct places places = {0};
    struct error err;
    struct team *team = team_create(&config, &err);

    (void)state;
    assert_non_null(team);
    places.thread_count = team_thread_count(team);
    places.pinning = pinning_create(places.thread_count);
    if (places.pinning == NULL) {
        print_message("skipped: this process is under a quota\n");
    } else {
        team_join(team);
        team_run(team, look, &places, places.thread_count);
        assert_int_equal(atomic_load(&places.wrong), 0);
    }
    pinning_destroy(places.pinning);
    team_destroy(team);
}

static void spread_memory_stays_usable(void **state)
{
    struct pinning *pinning = pinning_create_synthetic("numa:2 core:1 pu:1", 2);
    char *memory = mem_new_array(char, 8192);

    (void)state;
    assert_true(pinning_is_interleaved(pinning));
    pinning_spread(pinning, memory, 8192); /* made up nodes: the system is not asked */
    memory[0] = 1;
    memory[8191] = 1;
    mem_free(memory);
    pinning_destroy(pinning);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cores_come_before_their_siblings),
        cmocka_unit_test(nodes_are_filled_in_order_and_share_memory),
        cmocka_unit_test(a_machine_too_small_or_wrong_pins_nothing),
        cmocka_unit_test(spread_memory_stays_usable),
        cmocka_unit_test(
            a_team_of_all_cores_has_one_thread_on_each), /* last: it pins this thread */
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
