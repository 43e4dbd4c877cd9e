/* Memory limits as the kernel writes them. */
#include "worker/stage/facts.h"

#include "common/base/file.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static void available_memory_is_read_in_bytes(void **state)
{
    (void)state;
    assert_int_equal(facts_available_bytes("MemTotal:  100 kB\nMemAvailable:     2048 kB\n"),
                     2048 * 1024);
    assert_true(facts_available_bytes("MemTotal: 100 kB\n") == UINT64_MAX);
}

static void no_limit_is_written_in_two_ways(void **state)
{
    (void)state;
    assert_int_equal(facts_limit_bytes("1073741824\n"), 1 << 30);
    assert_true(facts_limit_bytes("max\n") == UINT64_MAX);
    assert_true(facts_limit_bytes("9223372036854771712\n") == UINT64_MAX);
    assert_true(facts_limit_bytes("") == UINT64_MAX);
}

static void the_group_of_either_version_is_found(void **state)
{
    char path[64];

    (void)state;
    assert_true(facts_group_path("0::/a/b\n", "", path, sizeof(path)));
    assert_string_equal(path, "/a/b");
    assert_true(facts_group_path("5:cpu:/x\n4:memory:/m/n\n0::/a\n", "memory", path, sizeof(path)));
    assert_string_equal(path, "/m/n");
    assert_false(facts_group_path("5:cpu:/x\n", "memory", path, sizeof(path)));
    assert_false(facts_group_path("nonsense", "", path, sizeof(path)));
    assert_false(facts_group_path("0::/too/long/for/this", "", path, 5));
}

static void write_limit(struct scratch *scratch, const char *name, const char *text)
{
    struct error err;

    assert_true(file_write(scratch_path(scratch, name), text, strlen(text), 0600, &err));
}

static void the_least_limit_of_all_ancestors_counts(void **state)
{
    struct scratch scratch;

    (void)state;
    scratch_open(&scratch);
    assert_int_equal(mkdir(scratch_path(&scratch, "a"), 0700), 0);
    assert_int_equal(mkdir(scratch_path(&scratch, "a/b"), 0700), 0);
    assert_true(facts_group_limit(scratch.folder, "/a/b", "memory.max") == UINT64_MAX);
    write_limit(&scratch, "a/b/memory.max", "max\n");
    write_limit(&scratch, "a/memory.max", "5000\n");
    assert_int_equal(facts_group_limit(scratch.folder, "/a/b", "memory.max"), 5000);
    write_limit(&scratch, "a/b/memory.max", "7000\n");
    write_limit(&scratch, "memory.max", "6000\n");
    assert_int_equal(facts_group_limit(scratch.folder, "/a/b", "memory.max"), 5000);
    assert_int_equal(facts_group_limit(scratch.folder, "/", "memory.max"), 6000);
    scratch_close(&scratch);
}

static void the_least_room_of_all_ancestors_counts(void **state)
{
    static const struct facts_group_files files = {"memory.max", "memory.current", "inactive_file"};
    struct scratch scratch;

    (void)state;
    scratch_open(&scratch);
    assert_int_equal(mkdir(scratch_path(&scratch, "a"), 0700), 0);
    assert_int_equal(mkdir(scratch_path(&scratch, "a/b"), 0700), 0);
    assert_true(facts_group_room(scratch.folder, "/a/b", &files) == UINT64_MAX);
    write_limit(&scratch, "a/memory.max", "5000\n");
    assert_true(facts_group_room(scratch.folder, "/a/b", &files) == UINT64_MAX); /* use unknown */
    write_limit(&scratch, "a/memory.current", "3000\n");
    assert_int_equal(facts_group_room(scratch.folder, "/a/b", &files), 2000);
    write_limit(&scratch, "a/memory.stat", "anon 100\nactive_file 7\ninactive_file 400\n");
    assert_int_equal(facts_group_room(scratch.folder, "/a/b", &files), 2400);
    write_limit(&scratch, "a/b/memory.max", "max\n");
    write_limit(&scratch, "memory.max", "4000\n");
    write_limit(&scratch, "memory.current", "4100\n");
    assert_int_equal(facts_group_room(scratch.folder, "/a/b", &files), 0);
    assert_int_equal(facts_group_room(scratch.folder, "/", &files), 0);
    scratch_close(&scratch);
}

static void this_machine_has_facts(void **state)
{
    struct team_config config = {.thread_count = 2, .spin_ns = -1};
    struct error err;
    struct team *team = team_create(&config, &err);
    struct facts facts;

    (void)state;
    assert_non_null(team);
    facts_collect(UINT64_C(1) << 20, team, &facts);
    assert_true(facts.memory_bytes <= UINT64_C(1) << 20);
    assert_true(facts.core_count > 0 && facts.numa_node_count > 0);
    assert_true(facts.read_bytes_per_s > 1e6);
    assert_true(facts.host[0] != '\0' && facts.cpu_name[0] != '\0');
    assert_true(facts_resident_bytes() > 0);
    team_destroy(team);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(available_memory_is_read_in_bytes),
        cmocka_unit_test(no_limit_is_written_in_two_ways),
        cmocka_unit_test(the_group_of_either_version_is_found),
        cmocka_unit_test(the_least_limit_of_all_ancestors_counts),
        cmocka_unit_test(the_least_room_of_all_ancestors_counts),
        cmocka_unit_test(this_machine_has_facts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
