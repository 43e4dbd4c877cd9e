/* facts.c - what this machine has.
 *
 * The memory limit is the least of what the user said, what the control groups allow and what is
 * free now; the read bandwidth, measured over a buffer that was flushed from all caches, is what
 * the planner divides layers by: a decode step reads every weight once and computes little with it.
 */
#include "worker/stage/facts.h"

#include "common/base/clock.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "worker/team/cores.h"

#include <emmintrin.h>
#include <hwloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROC_BYTES_MAX (4 << 20)
/* Of each thread, two threads at least. Little: to get fresh pages from the kernel and to flush
 * them takes longer than to read them. */
#define MEASURE_BYTES  ((size_t)2 << 20)
#define MEASURE_TILES  64
#define MEASURE_PASSES 3
#define CACHE_LINE     64
/* v1 writes LONG_MAX rounded down to a page for "no limit". */
#define LIMIT_NONE_ABOVE (UINT64_C(1) << 62)

/* --- memory --- */

uint64_t facts_available_bytes(const char *meminfo)
{
    const char *line = strstr(meminfo, "MemAvailable:");

    if (line == NULL) {
        return UINT64_MAX;
    }
    return strtoull(line + strlen("MemAvailable:"), NULL, 10) * 1024;
}

uint64_t facts_limit_bytes(const char *text)
{
    char *end;
    uint64_t bytes = strtoull(text, &end, 10);

    return end == text || bytes >= LIMIT_NONE_ABOVE ? UINT64_MAX : bytes;
}

static char *read_small(const char *path)
{
    struct error err;
    size_t length;
    char *text;

    return file_read(path, PROC_BYTES_MAX, &text, &length, &err) ? text : NULL;
}

/* The number in a file of the group; UINT64_MAX without one. */
static uint64_t group_number(const char *root, const char *group, size_t length, const char *file)
{
    char path[4096];
    uint64_t number;
    char *text;

    (void)snprintf(path, sizeof(path), "%s%.*s/%s", root, (int)length, group, file);
    text = read_small(path);
    number = text != NULL ? facts_limit_bytes(text) : UINT64_MAX;
    mem_free(text);
    return number;
}

/* The value of a line "key value" of the group's memory.stat; 0 without one. */
static uint64_t group_stat(const char *root, const char *group, size_t length, const char *key)
{
    char path[4096];
    uint64_t value = 0;
    size_t key_length = strlen(key);
    char *text;

    (void)snprintf(path, sizeof(path), "%s%.*s/memory.stat", root, (int)length, group);
    text = read_small(path);
    for (const char *line = text; line != NULL && *line != '\0';) {
        if (strncmp(line, key, key_length) == 0 && line[key_length] == ' ') {
            value = strtoull(line + key_length + 1, NULL, 10);
        }
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    mem_free(text);
    return value;
}

static size_t without_slashes(const char *group, size_t length)
{
    while (length > 0 && group[length - 1] == '/') {
        length--;
    }
    return length;
}

static size_t parent_length(const char *group, size_t length)
{
    while (length > 0 && group[length - 1] != '/') {
        length--;
    }
    return without_slashes(group, length);
}

/* What a group, the first `length` characters of a path below root, allows. */
typedef uint64_t (*group_fn)(const char *root, const char *group, size_t length,
                             const void *context);

/* The least of a group and all above it. */
static uint64_t group_least(const char *root, const char *group, group_fn fn, const void *context)
{
    size_t length = without_slashes(group, strlen(group));
    uint64_t least = fn(root, group, length, context);

    while (length > 0) {
        uint64_t number;

        length = parent_length(group, length);
        number = fn(root, group, length, context);
        least = number < least ? number : least;
    }
    return least;
}

static uint64_t limit_at(const char *root, const char *group, size_t length, const void *file)
{
    return group_number(root, group, length, file);
}

uint64_t facts_group_limit(const char *root, const char *group, const char *file)
{
    return group_least(root, group, limit_at, file);
}

static uint64_t room_at(const char *root, const char *group, size_t length, const void *context)
{
    const struct facts_group_files *files = context;
    uint64_t limit = group_number(root, group, length, files->limit);
    uint64_t used = limit != UINT64_MAX ? group_number(root, group, length, files->used) : 0;
    uint64_t idle = limit != UINT64_MAX ? group_stat(root, group, length, files->idle) : 0;

    if (limit == UINT64_MAX || used == UINT64_MAX) {
        return UINT64_MAX;
    }
    used = used > idle ? used - idle : 0;
    return limit > used ? limit - used : 0;
}

uint64_t facts_group_room(const char *root, const char *group,
                          const struct facts_group_files *files)
{
    return group_least(root, group, room_at, files);
}

bool facts_group_path(const char *text, const char *controller, char *out, size_t out_bytes)
{
    for (const char *line = text; line != NULL && *line != '\0';) {
        const char *first = strchr(line, ':');
        const char *second = first != NULL ? strchr(first + 1, ':') : NULL;
        size_t length;

        if (second == NULL) {
            return false;
        }
        length = strcspn(second + 1, "\n");
        if ((size_t)(second - first - 1) == strlen(controller) &&
            strncmp(first + 1, controller, strlen(controller)) == 0 && length < out_bytes) {
            memcpy(out, second + 1, length);
            out[length] = '\0';
            return true;
        }
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    return false;
}

static const struct facts_group_files files_v2 = {"memory.max", "memory.current", "inactive_file"};
static const struct facts_group_files files_v1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                                                  "total_inactive_file"};

enum group_question { GROUP_LIMIT, GROUP_ROOM };

static uint64_t group_ask(const char *root, const char *group,
                          const struct facts_group_files *files, enum group_question question)
{
    return question == GROUP_LIMIT ? facts_group_limit(root, group, files->limit)
                                   : facts_group_room(root, group, files);
}

/* Of the control groups of either version. */
static uint64_t groups_ask(enum group_question question)
{
    char *text = read_small("/proc/self/cgroup");
    char group[2048];
    uint64_t v1 = UINT64_MAX;
    uint64_t v2 = UINT64_MAX;

    if (text == NULL) {
        return UINT64_MAX;
    }
    if (facts_group_path(text, "", group, sizeof(group))) {
        v2 = group_ask("/sys/fs/cgroup", group, &files_v2, question);
    }
    if (facts_group_path(text, "memory", group, sizeof(group))) {
        v1 = group_ask("/sys/fs/cgroup/memory", group, &files_v1, question);
    }
    mem_free(text);
    return v1 < v2 ? v1 : v2;
}

static uint64_t machine_available(void)
{
    char *meminfo = read_small("/proc/meminfo");
    uint64_t available = meminfo != NULL ? facts_available_bytes(meminfo) : UINT64_MAX;

    mem_free(meminfo);
    return available;
}

uint64_t facts_available_now(void)
{
    uint64_t available = machine_available();
    uint64_t room = groups_ask(GROUP_ROOM);

    return room < available ? room : available;
}

static uint64_t memory_limit(uint64_t wanted)
{
    uint64_t available = machine_available();
    uint64_t group = groups_ask(GROUP_LIMIT);
    uint64_t limit = wanted > 0 ? wanted : UINT64_MAX;

    limit = available < limit ? available : limit;
    limit = group < limit ? group : limit;
    if (limit == UINT64_MAX) {
        limit = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    }
    return limit;
}

uint64_t facts_resident_bytes(void)
{
    char *status = read_small("/proc/self/status");
    const char *line = status != NULL ? strstr(status, "RssAnon:") : NULL;
    uint64_t bytes = line != NULL ? strtoull(line + strlen("RssAnon:"), NULL, 10) * 1024 : 0;

    mem_free(status);
    return bytes;
}

/* --- processor --- */

static bool has_word(const char *line, const char *word)
{
    size_t length = strlen(word);

    for (const char *at = strstr(line, word); at != NULL; at = strstr(at + 1, word)) {
        if (at[-1] == ' ' && (at[length] == ' ' || at[length] == '\0' || at[length] == '\n')) {
            return true;
        }
    }
    return false;
}

static void read_features(const char *flags, struct facts *out)
{
    static const char *const words[] = {"avx2",        "fma",         "f16c",        "avx512f",
                                        "avx512bw",    "avx512_vnni", "avx512_bf16", "avx_vnni",
                                        "avx512_fp16", "amx_int8",    "amx_bf16"};
    size_t used = 0;

    for (size_t i = 0; i < ARRAY_LENGTH(words); i++) {
        if (has_word(flags, words[i]) && used + strlen(words[i]) + 2 < sizeof(out->cpu_features)) {
            used += (size_t)snprintf(out->cpu_features + used, sizeof(out->cpu_features) - used,
                                     "%s%s", used > 0 ? " " : "", words[i]);
        }
    }
}

static void read_cpu(struct facts *out)
{
    char *cpuinfo = read_small("/proc/cpuinfo");
    char *name = cpuinfo != NULL ? strstr(cpuinfo, "model name") : NULL;
    char *flags = cpuinfo != NULL ? strstr(cpuinfo, "flags\t") : NULL;

    (void)snprintf(out->cpu_name, sizeof(out->cpu_name), "unknown");
    if (flags != NULL) {
        flags[strcspn(flags, "\n")] = '\0';
        read_features(flags, out);
    }
    if (name != NULL && strchr(name, ':') != NULL) {
        name = strchr(name, ':') + 1;
        name += strspn(name, " \t");
        (void)snprintf(out->cpu_name, sizeof(out->cpu_name), "%.*s", (int)strcspn(name, "\n"),
                       name);
    }
    mem_free(cpuinfo);
}

/* --- NUMA --- */

/* The node whose cores are all that this process may run on, or UINT32_MAX. */
static uint32_t bound_node(hwloc_topology_t topology)
{
    hwloc_bitmap_t allowed = hwloc_bitmap_alloc();
    uint32_t found = UINT32_MAX;

    if (hwloc_get_cpubind(topology, allowed, HWLOC_CPUBIND_PROCESS) == 0) {
        hwloc_obj_t node = NULL;

        while ((node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node)) != NULL) {
            if (hwloc_bitmap_isincluded(allowed, node->cpuset)) {
                found = node->os_index;
            }
        }
    }
    hwloc_bitmap_free(allowed);
    return found;
}

static void read_numa(struct facts *out)
{
    hwloc_topology_t topology;

    out->numa_node_count = 1;
    out->numa_node = UINT32_MAX;
    if (hwloc_topology_init(&topology) != 0) {
        return;
    }
    if (hwloc_topology_load(topology) == 0) {
        int count = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE);

        if (count > 1) {
            out->numa_node_count = (uint32_t)count;
            out->numa_node = bound_node(topology);
        }
    }
    hwloc_topology_destroy(topology);
}

/* --- read bandwidth --- */

struct measure {
    uint64_t *values;
    size_t tile_values;
    uint64_t sums[MEASURE_TILES];
};

static void touch_tile(void *context, size_t tile, uint32_t thread)
{
    struct measure *measure = context;
    size_t count = measure->tile_values;

    (void)thread;
    memset(measure->values + tile * count, 1, count * sizeof(uint64_t));
}

/* From caches of any size: those of servers hold hundreds of megabytes. */
static void flush_tile(void *context, size_t tile, uint32_t thread)
{
    struct measure *measure = context;
    const uint64_t *values = measure->values + tile * measure->tile_values;

    (void)thread;
    for (size_t i = 0; i < measure->tile_values; i += CACHE_LINE / sizeof(uint64_t)) {
        _mm_clflush(values + i);
    }
    _mm_mfence();
}

static void read_tile(void *context, size_t tile, uint32_t thread)
{
    struct measure *measure = context;
    size_t count = measure->tile_values;
    const uint64_t *values = measure->values + tile * count;
    uint64_t sums[8] = {0};

    (void)thread;
    for (size_t i = 0; i + 8 <= count; i += 8) {
        for (size_t lane = 0; lane < 8; lane++) {
            sums[lane] ^= values[i + lane];
        }
    }
    for (size_t lane = 0; lane < 8; lane++) {
        measure->sums[tile] += sums[lane];
    }
}

/* The best pass: others only show what else the machine was doing. */
static double measure_read(struct team *team)
{
    const uint32_t thread_count = team_thread_count(team);
    const size_t bytes = MEASURE_BYTES * (thread_count > 2 ? thread_count : 2);
    struct measure measure = {.tile_values = bytes / MEASURE_TILES / sizeof(uint64_t)};
    struct error err;
    int64_t best_ns = INT64_MAX;

    measure.values = mem_map_pages(bytes, &err);
    if (measure.values == NULL) {
        return 1e9;
    }
    team_run(team, touch_tile, &measure, MEASURE_TILES);
    for (int pass = 0; pass < MEASURE_PASSES; pass++) {
        int64_t begin_ns, pass_ns;

        team_run(team, flush_tile, &measure, MEASURE_TILES);
        begin_ns = clock_monotonic_ns();
        team_run(team, read_tile, &measure, MEASURE_TILES);
        pass_ns = clock_monotonic_ns() - begin_ns;
        best_ns = pass_ns < best_ns ? pass_ns : best_ns;
    }
    mem_unmap_pages(measure.values, bytes);
    return (double)bytes / ((double)(best_ns > 0 ? best_ns : 1) * 1e-9);
}

void facts_collect(uint64_t memory_bytes, struct team *team, struct facts *out)
{
    *out = (struct facts){0};
    if (gethostname(out->host, sizeof(out->host) - 1) != 0) {
        (void)snprintf(out->host, sizeof(out->host), "unknown");
    }
    read_cpu(out);
    read_numa(out);
    out->core_count = cores_available();
    out->memory_bytes = memory_limit(memory_bytes);
    out->read_bytes_per_s = measure_read(team);
}
