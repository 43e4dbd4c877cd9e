/* Control group texts as kernels write them. */
#include "common/base/check.h"
#include "worker/team/cores.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void quotas_round_up_to_cores(void **state)
{
    (void)state;
    assert_int_equal(cores_of_cpu_max("200000 100000\n"), 2);
    assert_int_equal(cores_of_cpu_max("150000 100000\n"), 2);
    assert_int_equal(cores_of_cpu_max("1000 100000\n"), 1);
    assert_int_equal(cores_of_cpu_max("max 100000\n"), 0);
}

static void odd_quotas_count_as_no_limit(void **state)
{
    (void)state;
    assert_int_equal(cores_of_cpu_max(""), 0);
    assert_int_equal(cores_of_cpu_max("100000"), 0);
    assert_int_equal(cores_of_cpu_max("-1 100000"), 0);
    assert_int_equal(cores_of_cpu_max("100000 0"), 0);
    assert_int_equal(cores_of_cpu_max("9223372036854775807 1"), 0);
}

static void the_group_is_found_in_either_version(void **state)
{
    char path[64];

    (void)state;
    assert_true(cores_cgroup_path("0::/user.slice/x.scope\n", CGROUP_V2, path, sizeof(path)));
    assert_string_equal(path, "/user.slice/x.scope");
    assert_true(cores_cgroup_path("12:cpuset:/a\n4:cpu,cpuacct:/b/c\n0::/\n", CGROUP_V1, path,
                                  sizeof(path)));
    assert_string_equal(path, "/b/c");
    assert_true(cores_cgroup_path("4:cpuacct,cpu:/d", CGROUP_V1, path, sizeof(path)));
    assert_string_equal(path, "/d");
    assert_true(cores_cgroup_path("12:cpuset:/a\n0::/\n", CGROUP_V2, path, sizeof(path)));
    assert_string_equal(path, "/");
}

static void what_is_not_there_is_not_found(void **state)
{
    char path[4];

    (void)state;
    assert_false(cores_cgroup_path("", CGROUP_V2, path, sizeof(path)));
    assert_false(cores_cgroup_path("nonsense\n:\n", CGROUP_V2, path, sizeof(path)));
    assert_false(cores_cgroup_path("3:cpuset:/a\n", CGROUP_V1, path, sizeof(path)));
    assert_false(cores_cgroup_path("0::/long", CGROUP_V2, path, sizeof(path)));
}

static void there_is_at_least_one_core(void **state)
{
    (void)state;
    assert_true(cores_available() >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quotas_round_up_to_cores),
        cmocka_unit_test(odd_quotas_count_as_no_limit),
        cmocka_unit_test(the_group_is_found_in_either_version),
        cmocka_unit_test(what_is_not_there_is_not_found),
        cmocka_unit_test(there_is_at_least_one_core),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
