/* test_cluster_file.c - described clusters, and what is wrong with bad ones, by line and field. */
#include "coordinator/cluster/cluster_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static struct cluster_file *parse(const char *text, struct arena *arena, struct error *err)
{
    return cluster_file_parse(text, strlen(text), "c.yaml", arena, err);
}

static void a_short_file_has_defaults(void **state)
{
    struct arena arena;
    struct error err;
    struct cluster_file *file;

    (void)state;
    arena_init(&arena, 4096);
    file = parse("nodes:\n  - {memory: 64GB, cores: 8, read_bandwidth: 60GB/s}\n", &arena, &err);
    assert_non_null(file);
    assert_int_equal(file->machine_count, 1);
    assert_int_equal(file->worker_count, 1);
    assert_int_equal(file->thread_count_max, 8);
    assert_int_equal(file->workers[0].memory_bytes, UINT64_C(64000000000));
    assert_true(file->workers[0].read_bytes_per_s == 60e9);
    assert_string_equal(file->workers[0].host, "node1");
    arena_deinit(&arena);
}

static const char mixed[] = "nodes:\n"
                            "  - name: big\n"
                            "    memory: 768GiB\n"
                            "    cores: 9\n"
                            "    read_bandwidth: 400GB/s\n"
                            "    workers: 2\n"
                            "    network: {bandwidth: 100Gbit/s, latency: 3us}\n"
                            "  - name: small\n"
                            "    count: 10\n"
                            "    memory: 32GB\n"
                            "    cores: 4\n"
                            "    read_bandwidth: 30GB/s\n"
                            "network:\n"
                            "  bandwidth: 1Gbit/s\n"
                            "  latency: 0.1ms\n";

static void workers_share_their_machine(void **state)
{
    struct arena arena;
    struct error err;
    struct cluster_file *file;

    (void)state;
    arena_init(&arena, 4096);
    file = parse(mixed, &arena, &err);
    assert_non_null(file);
    assert_int_equal(file->machine_count, 11);
    assert_int_equal(file->worker_count, 12);
    assert_int_equal(file->thread_count_max, 5);
    for (uint32_t i = 0; i < 12; i++) {
        assert_int_equal(file->workers[i].id, i);
    }
    for (uint32_t i = 0; i < 2; i++) {
        assert_string_equal(file->workers[i].host, "big");
        assert_int_equal(file->workers[i].memory_bytes, UINT64_C(384) << 30);
        assert_true(file->workers[i].read_bytes_per_s == 200e9);
        assert_int_equal(file->ports[i].machine, 0);
        assert_true(file->ports[i].bytes_per_s == 12.5e9 && file->ports[i].latency_s == 3e-6);
    }
    assert_string_equal(file->workers[2].host, "small-01");
    assert_string_equal(file->workers[11].host, "small-10");
    assert_int_equal(file->ports[11].machine, 10);
    assert_true(file->ports[11].bytes_per_s == 125e6 && file->ports[11].latency_s == 1e-4);
    arena_deinit(&arena);
}

#define NODE(lines) "nodes:\n  - memory: 64GB\n    cores: 8\n    read_bandwidth: 60GB/s\n" lines

static const struct {
    const char *text;
    const char *message;
} bad[] = {
    {"", "c.yaml: it is empty; \"nodes\" must list the machines"},
    {"# nothing\n", "c.yaml: it is empty; \"nodes\" must list the machines"},
    {"x", "c.yaml: Expecting MAPPING, got event: SCALAR"},
    {"nodes: []\n", "c.yaml: line 1: Insufficient entries (0 of 1 min) in sequence."},
    {"network: {bandwidth: 1Gbit/s, latency: 1us}\n",
     "c.yaml: line 1: Missing required mapping field: nodes"},
    {"nodes:\n  - memory: 64GB\n    read_bandwidth: 60GB/s\n",
     "c.yaml: line 3: Missing required mapping field: cores"},
    {NODE("    core: 8\n"), "c.yaml: line 5: Unexpected key: core"},
    {NODE("\n\n    cores: 8\n"), "c.yaml: line 7: Mapping field already seen: cores"},
    {NODE("    count: eight\n"),
     "c.yaml: line 5: field \"count\": Invalid uint64_t value: 'eight'"},
    {NODE("    count: -1\n"), "c.yaml: line 5: field \"count\": Invalid UINT value: '-1'"},
    {NODE("    count: [1]\n"),
     "c.yaml: line 5: field \"count\": Expecting UINT, got event: SEQUENCE_START"},
    {NODE("    count: 0\n"), "c.yaml: line 5: nodes[0].count: 0 must be from 1 to 4096"},
    {NODE("    workers: 9\n"), "c.yaml: line 5: nodes[0].workers: 9 must be from 1 to 8"},
    {NODE("    name: a b\n"),
     "c.yaml: line 5: nodes[0].name: \"a b\" must be of letters, digits and . _ -"},
    {NODE("    count: 2\n"),
     "c.yaml: nodes[0] (node1) has no network: \"network\" with bandwidth and latency is missing, "
     "there or for the whole cluster"},
    {NODE("    network: {bandwidth: 1Gbit/s}\n"),
     "c.yaml: line 5: Missing required mapping field: latency"},
    {NODE("    network:\n      bandwidth: 1Gbit/s\n      latency: 5\n"),
     "c.yaml: line 7: nodes[0].network.latency: \"5\" is not a time up to an hour; write 100us, "
     "1.5ms or 2s"},
    {NODE("network:\n  latency: 5us\n  bandwidth: 1Gb\n"),
     "c.yaml: line 7: network.bandwidth: \"1Gb\" is not a rate; write 40GB/s, 1Gbit/s or 512MiB/s"},
    {"nodes:\n  - {memory: 1GB, cores: 1, read_bandwidth: 1GB/s}\n  - cores: 1\n"
     "    read_bandwidth: 1GB/s\n    memory: lots\n",
     "c.yaml: line 5: nodes[1].memory: \"lots\" is not an amount of bytes; write 64G, 1.5GiB or "
     "4096"},
    {"nodes:\n  - {memory: 0, cores: 1, read_bandwidth: 1GB/s}\n",
     "c.yaml: line 2: nodes[0].memory: without memory a worker holds nothing"},
    {"nodes:\n  - {name: a, memory: 1GB, cores: 1, read_bandwidth: 1GB/s}\n"
     "  - {name: a, memory: 1GB, cores: 1, read_bandwidth: 1GB/s}\n",
     "c.yaml: line 3: nodes[1].name: nodes[0] has the name \"a\" too"},
    {"nodes:\n  - memory: &a 64GB\n    cores: 8\n    read_bandwidth: *a\n",
     "c.yaml: line 4: field \"read_bandwidth\": YAML alias unsupported"},
    {"nodes:\n  - {memory: 1GB, cores: 64, read_bandwidth: 1GB/s, count: 4096, workers: 2, "
     "network: {bandwidth: 1GB/s, latency: 1us}}\n",
     "c.yaml: it describes 8192 workers, at most 4096 can be planned"},
};

static void what_is_wrong_is_said_with_line_and_field(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(bad); i++) {
        struct arena arena;
        struct error err = {0};

        arena_init(&arena, 4096);
        if (parse(bad[i].text, &arena, &err) != NULL) {
            fail_msg("taken: %s", bad[i].text);
        }
        assert_string_equal(err.message, bad[i].message);
        assert_true(err.code == ERROR_INPUT || err.code == ERROR_LIMIT);
        arena_deinit(&arena);
    }
}

/* Of a file that is cut anywhere, either the whole rest still makes sense or the error says why. */
static void a_cut_file_is_refused_or_whole(void **state)
{
    uint32_t refused = 0;

    (void)state;
    for (size_t length = 0; length < sizeof(mixed) - 1; length++) {
        struct arena arena;
        struct error err = {0};

        arena_init(&arena, 4096);
        if (cluster_file_parse(mixed, length, "c.yaml", &arena, &err) == NULL) {
            refused++;
            assert_memory_equal(err.message, "c.yaml: ", 8);
        }
        arena_deinit(&arena);
    }
    assert_in_range(refused, sizeof(mixed) / 2, sizeof(mixed) - 2);
}

static void the_example_clusters_are_read(void **state)
{
    static const struct {
        const char *name;
        uint32_t machines, workers;
        uint64_t memory_bytes;
    } examples[] = {{"eight-desktops", 8, 8, UINT64_C(512000000000)},
                    {"epyc-rack", 2, 4, UINT64_C(1536000000000)},
                    {"sixteen-by-64", 16, 16, UINT64_C(1024000000000)}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(examples); i++) {
        struct arena arena;
        struct error err;
        struct cluster_file *file;
        uint64_t memory_bytes = 0;

        arena_init(&arena, 4096);
        file = cluster_file_read(
            arena_printf(&arena, "%s/deploy/clusters/%s.yaml", SHOAL_SOURCE_DIR, examples[i].name),
            &arena, &err);
        assert_non_null(file);
        assert_int_equal(file->machine_count, examples[i].machines);
        assert_int_equal(file->worker_count, examples[i].workers);
        for (uint32_t w = 0; w < file->worker_count; w++) {
            memory_bytes += file->workers[w].memory_bytes;
        }
        assert_int_equal(memory_bytes, examples[i].memory_bytes);
        arena_deinit(&arena);
    }
}

static void a_missing_file_is_named(void **state)
{
    struct arena arena;
    struct error err;

    (void)state;
    arena_init(&arena, 4096);
    assert_null(cluster_file_read("/nowhere/c.yaml", &arena, &err));
    assert_non_null(strstr(err.message, "/nowhere/c.yaml"));
    arena_deinit(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_short_file_has_defaults),
        cmocka_unit_test(workers_share_their_machine),
        cmocka_unit_test(what_is_wrong_is_said_with_line_and_field),
        cmocka_unit_test(a_cut_file_is_refused_or_whole),
        cmocka_unit_test(the_example_clusters_are_read),
        cmocka_unit_test(a_missing_file_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
