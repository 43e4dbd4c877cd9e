/* profile.c - `shoal profile`: the file of --profile as a table.
 *
 * One line for each operation and phase, sums over layers and workers, the longest first; beside
 * its time what memory and arithmetic would need at the measured limits. Shares are of the time in
 * which workers computed: waiting is shown below.
 */
#include "common/plan/profile.h"
#include "common/base/arena.h"
#include "common/base/buffer.h"
#include "common/base/file.h"
#include "common/base/mem.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cli/jsonl.h"
#include "coordinator/cli/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX ((size_t)256 << 20)

struct profile_command {
    const char *path;
    bool json;
};

enum { KEY_JSON = 0x2000 };

static const struct argp_option options[] = {
    {"json", KEY_JSON, NULL, 0, "Print one JSON object a line for each operation and phase", 0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct profile_command *own = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        options_from_environment(options, parse_option, state);
        return 0;
    case KEY_JSON:
        own->json = true;
        return 0;
    case ARGP_KEY_ARG:
        if (own->path != NULL) {
            argp_error(state, "one FILE at a time, not \"%s\" too", arg);
        }
        own->path = arg;
        return 0;
    case ARGP_KEY_END:
        if (own->path == NULL) {
            argp_error(state, "FILE is missing: one that --profile FILE has written");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* --- sums --- */

static int compare_sums(const void *a, const void *b)
{
    const struct profile_sum *left = a;
    const struct profile_sum *right = b;

    if (left->phase != right->phase) {
        return (int)left->phase - (int)right->phase;
    }
    return (left->ns < right->ns) - (left->ns > right->ns);
}

static uint64_t work_ns(const struct profile_sum *sums, enum operation_phase phase)
{
    uint64_t ns = 0;

    for (int i = 0; i < PROFILE_SUMS_MAX; i++) {
        if (sums[i].phase == phase && operation_is_work(sums[i].operation)) {
            ns += sums[i].ns;
        }
    }
    return ns;
}

static double share_percent(double part, double whole)
{
    return whole > 0 ? 100 * part / whole : 0;
}

/* --- output --- */

static void table_head(struct buffer *out)
{
    buffer_printf(out, "%-7s %-18s %10s %7s %9s %9s %8s %9s %8s\n", "phase", "operation", "calls",
                  "share", "ms", "GB/s", "of limit", "Gop/s", "of limit");
}

static void table_line(const struct profile_sum *sum, uint64_t phase_ns, struct buffer *out)
{
    double seconds = (double)sum->ns * 1e-9;

    buffer_printf(out, "%-7s %-18s %10llu ", operation_phase_name(sum->phase),
                  operation_name(sum->operation), (unsigned long long)sum->calls);
    if (operation_is_work(sum->operation)) {
        buffer_printf(out, "%5.1f %% ", share_percent((double)sum->ns, (double)phase_ns));
    } else {
        buffer_printf(out, "%7s ", "-");
    }
    buffer_printf(out, "%9.1f", seconds * 1e3);
    if (sum->read_bytes > 0 || sum->operations > 0) {
        buffer_printf(out, " %9.2f %6.1f %% %9.1f %6.1f %%",
                      seconds > 0 ? (double)sum->read_bytes / seconds * 1e-9 : 0,
                      share_percent(sum->memory_seconds, seconds),
                      seconds > 0 ? (double)sum->operations / seconds * 1e-9 : 0,
                      share_percent(sum->arithmetic_seconds, seconds));
    }
    buffer_append_text(out, "\n");
}

static void workers_print(const struct profile *profile, struct buffer *out)
{
    buffer_printf(out, "%s (%s), %s\n", profile->model, profile->architecture,
                  profile->numerics_id);
    for (uint32_t i = 0; i < profile->worker_count; i++) {
        const struct profile_worker *worker = &profile->workers[i];
        const struct machine_limits *limits = &worker->limits;

        buffer_printf(out, "worker %u: %s, %s, %u threads, layers %u-%u", worker->worker,
                      worker->host, worker->cpu, worker->thread_count, worker->layer_begin,
                      worker->layer_end > 0 ? worker->layer_end - 1 : 0);
        if (limits->read_bytes_per_s > 0) {
            buffer_printf(out, "; limits: read %.1f GB/s, %s %.0f Gop/s, %s %.0f Gop/s",
                          limits->read_bytes_per_s * 1e-9, limits->int8_unit,
                          limits->int8_operations_per_s * 1e-9, limits->f32_unit,
                          limits->f32_operations_per_s * 1e-9);
        }
        buffer_append_text(out, "\n");
    }
    buffer_append_text(out, "\n");
}

static bool table_print(const struct profile *profile, const struct profile_sum *sums,
                        struct error *err)
{
    struct buffer out;
    bool good;

    buffer_init(&out);
    workers_print(profile, &out);
    table_head(&out);
    for (int i = 0; i < PROFILE_SUMS_MAX; i++) {
        if (sums[i].calls > 0) {
            table_line(&sums[i], work_ns(sums, sums[i].phase), &out);
        }
    }
    good = fputs(buffer_text(&out), stdout) >= 0 && fflush(stdout) == 0;
    buffer_deinit(&out);
    return good || error_set_errno(err, "standard output");
}

static bool lines_print(const struct profile_sum *sums, struct error *err)
{
    for (int i = 0; i < PROFILE_SUMS_MAX; i++) {
        const struct profile_sum *sum = &sums[i];
        json_t *line;

        if (sum->calls == 0) {
            continue;
        }
        line = json_pack("{s:s,s:s,s:b,s:I,s:I,s:I,s:I,s:f,s:f}", "phase",
                         operation_phase_name(sum->phase), "operation",
                         operation_name(sum->operation), "work",
                         (int)operation_is_work(sum->operation), "calls", (json_int_t)sum->calls,
                         "ns", (json_int_t)sum->ns, "read_bytes", (json_int_t)sum->read_bytes,
                         "operations", (json_int_t)sum->operations, "memory_seconds",
                         sum->memory_seconds, "arithmetic_seconds", sum->arithmetic_seconds);
        ASSERT(line != NULL);
        if (!jsonl_write(stdout, line, err)) {
            return false;
        }
    }
    return true;
}

/* --- the command --- */

static bool show(const struct profile_command *own, struct arena *arena, struct error *err)
{
    struct profile_sum sums[PROFILE_SUMS_MAX];
    struct profile *profile;
    size_t length;
    char *text;

    if (!file_read(own->path, FILE_BYTES_MAX, &text, &length, err)) {
        return false;
    }
    profile = profile_parse(text, length, own->path, arena, err);
    mem_free(text);
    if (profile == NULL) {
        return false;
    }
    profile_sums(profile, sums);
    qsort(sums, PROFILE_SUMS_MAX, sizeof(sums[0]), compare_sums);
    return own->json ? lines_print(sums, err) : table_print(profile, sums, err);
}

int command_profile(int argc, char **argv)
{
    static const struct argp argp = {
        options,
        parse_option,
        "FILE",
        "Shows a file that --profile FILE has written: the time of each operation, by phase "
        "(decode: "
        "steps of generated tokens alone; prompt: all others), over all layers and workers.\v"
        "Shares are of the time in which workers computed; for waiting there is none. \"of limit\" "
        "is "
        "the time that reading the operation's weights and cache, and its arithmetic, would take "
        "at "
        "the machine's measured limits, over the time it took.\n\n"
        "  shoal bench --model DIR --profile out.json && shoal profile out.json",
        NULL,
        NULL,
        NULL};
    struct profile_command own = {0};
    struct arena arena;
    struct error err = {0};
    bool good;

    argp_parse(&argp, argc, argv, 0, NULL, &own);
    arena_init(&arena, (size_t)1 << 16);
    good = show(&own, &arena, &err);
    arena_deinit(&arena);
    return good ? CLI_OK : cli_fail(argv[0], &err);
}
