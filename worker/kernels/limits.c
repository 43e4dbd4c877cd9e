/* limits.c - measures what the machine can do at most.
 *
 * Work is handed out in tiles of about a millisecond, so that a thread which the system takes away
 * for a while costs a tile and not the pass.
 */
#include "worker/kernels/limits.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define PASSES            7
#define STREAMS           4
#define READ_TILE_BYTES   ((size_t)4 << 20)
#define READ_BYTES_MIN    ((size_t)256 << 20)
#define READ_BYTES_MAX    ((size_t)4 << 30)
#define CACHE_MULTIPLE    2 /* so many times the last cache */
#define PREFETCH_BYTES    2048
#define UNIT_TILES        8 /* of each thread, in a pass */
#define UNIT_TILE_NS      (NS_PER_MS / 2)
#define UNIT_TURNS_PROBED 20000

struct measure {
    team_fn fn;
    size_t tiles;
    char *memory;
    const struct limit_unit *unit;
    uint64_t unit_turns; /* of a tile */
};

/* Values that a loop's outcome goes to, so that it is not left out. */
static void keep(float value)
{
    __asm__ volatile("" : : "m"(value) : "memory");
}

static void touch_tile(void *context, size_t tile, uint32_t thread)
{
    const struct measure *measure = context;

    (void)thread;
    memset(measure->memory + tile * READ_TILE_BYTES, 1, READ_TILE_BYTES);
}

#if defined(__x86_64__)
static void read_tile(void *context, size_t tile, uint32_t thread)
{
    const struct measure *measure = context;
    const char *at = measure->memory + tile * READ_TILE_BYTES;
    const size_t stream = READ_TILE_BYTES / STREAMS;
    __m128i sums[4] = {_mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128(),
                       _mm_setzero_si128()};

    (void)thread;
    for (size_t i = 0; i < stream; i += 64) {
        for (size_t s = 0; s < STREAMS; s++) {
            const __m128i *line = (const __m128i *)(const void *)(at + s * stream + i);

            _mm_prefetch((const char *)line + PREFETCH_BYTES, _MM_HINT_T0);
            for (size_t part = 0; part < 4; part++) {
                sums[part] = _mm_xor_si128(sums[part], _mm_load_si128(line + part));
            }
        }
    }
    sums[0] = _mm_xor_si128(_mm_xor_si128(sums[0], sums[1]), _mm_xor_si128(sums[2], sums[3]));
    keep(_mm_cvtss_f32(_mm_castsi128_ps(sums[0])));
}
#else
static void read_tile(void *context, size_t tile, uint32_t thread)
{
    const struct measure *measure = context;
    const char *at = measure->memory + tile * READ_TILE_BYTES;
    const size_t stream = READ_TILE_BYTES / STREAMS;
    uint64_t sum = 0;

    (void)thread;
    for (size_t i = 0; i < stream; i += sizeof(uint64_t)) {
        for (size_t s = 0; s < STREAMS; s++) {
            uint64_t value;

            memcpy(&value, at + s * stream + i, sizeof(value));
            sum ^= value;
        }
    }
    keep((float)sum);
}
#endif

static void unit_tile(void *context, size_t tile, uint32_t thread)
{
    const struct measure *measure = context;

    (void)tile;
    (void)thread;
    keep(measure->unit->run(measure->unit_turns));
}

static int compare_times(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a;
    int64_t right = *(const int64_t *)b;

    return (left > right) - (left < right);
}

/* Seconds of a pass, after one that is not counted. */
static double pass_seconds(struct team *team, struct measure *measure)
{
    int64_t times[PASSES];

    team_run(team, measure->fn, measure, measure->tiles);
    for (int pass = 0; pass < PASSES; pass++) {
        int64_t begin_ns = clock_monotonic_ns();

        team_run(team, measure->fn, measure, measure->tiles);
        times[pass] = clock_monotonic_ns() - begin_ns;
    }
    qsort(times, PASSES, sizeof(times[0]), compare_times);
    return (double)(times[PASSES / 2] > 0 ? times[PASSES / 2] : 1) / (double)NS_PER_S;
}

static size_t read_bytes_of(uint64_t memory_bytes)
{
    long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    uint64_t bytes = cache > 0 ? (uint64_t)cache * CACHE_MULTIPLE : 0;

    bytes = bytes > READ_BYTES_MIN ? bytes : READ_BYTES_MIN;
    bytes = bytes < READ_BYTES_MAX ? bytes : READ_BYTES_MAX;
    bytes = bytes < memory_bytes ? bytes : memory_bytes;
    bytes -= bytes % READ_TILE_BYTES;
    return (size_t)(bytes > READ_TILE_BYTES ? bytes : READ_TILE_BYTES);
}

static bool read_measure(struct team *team, uint64_t memory_bytes, double *bytes_per_s,
                         struct error *err)
{
    size_t bytes = read_bytes_of(memory_bytes);
    struct measure measure = {.fn = read_tile, .tiles = bytes / READ_TILE_BYTES};

    /* The prefetch goes beyond the last tile. */
    measure.memory = mem_map_pages(bytes + READ_TILE_BYTES, err);
    if (measure.memory == NULL) {
        return error_wrap(err, "measuring the read bandwidth");
    }
    team_run(team, touch_tile, &measure, measure.tiles);
    *bytes_per_s = (double)bytes / pass_seconds(team, &measure);
    mem_unmap_pages(measure.memory, bytes + READ_TILE_BYTES);
    return true;
}

static double unit_measure(struct team *team, const struct limit_unit *unit)
{
    struct measure measure = {
        .fn = unit_tile, .tiles = (size_t)UNIT_TILES * team_thread_count(team), .unit = unit};
    int64_t begin_ns, probe_ns;

    keep(unit->run(UNIT_TURNS_PROBED)); /* the clock rises with wide units */
    begin_ns = clock_monotonic_ns();
    keep(unit->run(UNIT_TURNS_PROBED));
    probe_ns = clock_monotonic_ns() - begin_ns;
    measure.unit_turns = (uint64_t)UNIT_TURNS_PROBED * UNIT_TILE_NS / (uint64_t)(probe_ns + 1) + 1;
    return (double)(measure.unit_turns * unit->turn_operations * measure.tiles) /
           pass_seconds(team, &measure);
}

static const struct limit_units *units_of(enum cpu_level level)
{
#if defined(__x86_64__)
    switch (level) {
    case CPU_REF:
        break;
    case CPU_AVX2:
        return &limit_units_avx2;
    case CPU_AVX512:
        return &limit_units_avx512;
    default:
        return &limit_units_vnni;
    }
#else
    (void)level;
#endif
    return &limit_units_ref;
}

bool limits_measure(struct team *team, enum cpu_level level, uint64_t memory_bytes,
                    struct machine_limits *out, struct error *err)
{
    const struct limit_units *units = units_of(level);
    struct machine_limits limits = {0};

    if (!read_measure(team, memory_bytes, &limits.read_bytes_per_s, err)) {
        return false;
    }
    limits.int8_operations_per_s = unit_measure(team, &units->int8);
    limits.f32_operations_per_s = unit_measure(team, &units->f32);
    (void)snprintf(limits.int8_unit, sizeof(limits.int8_unit), "%s", units->int8.name);
    (void)snprintf(limits.f32_unit, sizeof(limits.f32_unit), "%s", units->f32.name);
    *out = limits;
    return true;
}
