/* top.c - `shoal top`: what runs where on a running server, as a table. */
#include "common/base/buffer.h"
#include "common/base/json.h"
#include "common/base/units.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cli/http_client.h"
#include "coordinator/cli/options.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REFRESH_MS 1000

struct top_options {
    const char *url;
    bool once;
    bool json;
};

enum { KEY_URL = 0x2000, KEY_ONCE, KEY_JSON };

static const struct argp_option options[] = {
    {"url", KEY_URL, "URL", 0, "Server (" HTTP_CLIENT_URL ")", 0},
    {"once", KEY_ONCE, NULL, 0, "Print the table once and end", 0},
    {"json", KEY_JSON, NULL, 0, "Print the server's status as JSON and end", 0},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct top_options *own = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        options_from_environment(options, parse_option, state);
        return 0;
    case KEY_URL:
        own->url = arg;
        return 0;
    case KEY_ONCE:
        own->once = true;
        return 0;
    case KEY_JSON:
        own->json = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", arg);
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static json_int_t integer(const json_t *object, const char *field)
{
    return json_integer_value(json_object_get(object, field));
}

static const char *text(const json_t *object, const char *field)
{
    const char *value = json_string_value(json_object_get(object, field));

    return value ? value : "";
}

/* "mpi x1 12 us, zmq x2 31 us, 3 damaged": each kind of link with its best latency, and the frames
 * that came with a wrong checksum. */
static void describe_links(const json_t *worker, struct buffer *out)
{
    static const char *const kinds[] = {"mpi", "zmq"};
    const json_t *links = json_object_get(worker, "links");
    json_int_t damaged = 0;

    buffer_clear(out);
    for (size_t i = 0; i < json_array_size(links); i++) {
        damaged += integer(json_array_get(links, i), "crc_errors");
    }
    for (size_t k = 0; k < ARRAY_LENGTH(kinds); k++) {
        json_int_t best_ns = -1;
        unsigned count = 0;

        for (size_t i = 0; i < json_array_size(links); i++) {
            const json_t *link = json_array_get(links, i);

            if (strcmp(text(link, "kind"), kinds[k]) == 0) {
                json_int_t latency_ns = integer(link, "latency_ns");

                best_ns = best_ns < 0 || latency_ns < best_ns ? latency_ns : best_ns;
                count++;
            }
        }
        if (count > 0) {
            buffer_printf(out, "%s%s x%u %.0f us", out->length ? ", " : "", kinds[k], count,
                          (double)best_ns / 1000);
        }
    }
    if (out->length == 0) {
        buffer_append_text(out, "-");
    }
    if (damaged > 0) {
        buffer_printf(out, ", %lld damaged", (long long)damaged);
    }
}

static const json_t *worker_find(const json_t *status, json_int_t id)
{
    const json_t *workers = json_object_get(status, "workers");

    for (size_t i = 0; i < json_array_size(workers); i++) {
        if (integer(json_array_get(workers, i), "id") == id) {
            return json_array_get(workers, i);
        }
    }
    return NULL;
}

/* Computing since the last look, as a share; without one (`before` NULL) since the epoch began. */
static double busy_share(const json_t *status, const json_t *worker, const json_t *before)
{
    const json_t *then = before != NULL ? worker_find(before, integer(worker, "id")) : NULL;
    double passed_s = json_number_value(json_object_get(status, "uptime_s")) -
                      json_number_value(json_object_get(before, "uptime_s"));
    double busy_s = (double)(integer(worker, "busy_ns") - integer(then, "busy_ns")) / 1e9;

    if (then == NULL || passed_s <= 0 || integer(status, "epoch") != integer(before, "epoch")) {
        return json_number_value(json_object_get(worker, "busy_share"));
    }
    return busy_s < passed_s ? busy_s / passed_s : 1; /* a step counts when it ends */
}

static void print_worker(const json_t *worker, double busy, struct buffer *links)
{
    char layers[32] = "-";
    char stage[24] = "spare";
    struct units_text memory;

    if (json_is_integer(json_object_get(worker, "stage"))) {
        snprintf(stage, sizeof(stage), "%lld.%lld", (long long)integer(worker, "stage"),
                 (long long)integer(worker, "member"));
        snprintf(layers, sizeof(layers), "%lld-%lld", (long long)integer(worker, "layer_begin"),
                 (long long)integer(worker, "layer_end") - 1);
    }
    describe_links(worker, links);
    printf("%6lld  %-14.14s  %-6s  %-7s  %7lld  %9s  %5.0f %%  %9lld  %s%s\n",
           (long long)integer(worker, "id"), text(worker, "host"), stage, layers,
           (long long)integer(worker, "expert_slots"),
           units_bytes(&memory, (uint64_t)integer(worker, "ledger_bytes")), 100 * busy,
           (long long)integer(worker, "rows"), buffer_text(links),
           json_is_true(json_object_get(worker, "alive")) ? "" : "  lost");
}

static void print_table(const json_t *status, const json_t *before)
{
    const json_t *scheduler = json_object_get(status, "scheduler");
    const json_t *workers = json_object_get(status, "workers");
    struct buffer links;

    buffer_init(&links);
    printf("%s  %s%s%s  epoch %lld  %s  %.1f tokens/s  requests %lld running, %lld waiting  "
           "KV %lld of %lld blocks\n",
           text(status, "model"), text(status, "state"), text(status, "problem")[0] ? ": " : "",
           text(status, "problem"), (long long)integer(status, "epoch"),
           text(status, "numerics_id"), json_number_value(json_object_get(status, "tokens_per_s")),
           (long long)integer(scheduler, "running"), (long long)integer(scheduler, "waiting"),
           (long long)integer(scheduler, "kv_blocks_used"),
           (long long)integer(scheduler, "kv_blocks_total"));
    printf("worker  %-14s  %-6s  %-7s  %7s  %9s  %7s  %9s  %s\n", "host", "stage", "layers",
           "experts", "memory", "busy", "rows", "links");
    for (size_t i = 0; i < json_array_size(workers); i++) {
        const json_t *worker = json_array_get(workers, i);

        print_worker(worker, busy_share(status, worker, before), &links);
    }
    buffer_deinit(&links);
}

static json_t *status_get(const struct top_options *own, struct error *err)
{
    struct buffer answer;
    json_t *status = NULL;

    buffer_init(&answer);
    if (http_client_get(own->url, "/shoal/status", &answer, err)) {
        status = json_parse(buffer_text(&answer), answer.length, "status", err);
    }
    buffer_deinit(&answer);
    return status;
}

static bool show(const struct top_options *own, struct error *err)
{
    json_t *status = status_get(own, err);

    if (!status) {
        return false;
    }
    if (own->json) {
        json_dumpf(status, stdout, JSON_INDENT(2));
        putchar('\n');
    } else {
        print_table(status, NULL);
    }
    json_decref(status);
    fflush(stdout);
    return true;
}

static bool watch(const struct top_options *own, struct error *err)
{
    bool terminal = cli_stdout_is_terminal();
    json_t *before = NULL;
    bool good = true;

    while (good && *cli_stop_count() == 0) {
        struct pollfd item = {.fd = cli_stop_fd(), .events = POLLIN};
        json_t *status = status_get(own, err);

        good = status != NULL;
        if (good) {
            fputs(terminal ? "\033[H\033[2J" : "", stdout);
            print_table(status, before);
            fflush(stdout);
            json_decref(before);
            before = status;
            poll(&item, 1, REFRESH_MS);
        }
    }
    json_decref(before);
    return good || *cli_stop_count() > 0;
}

int command_top(int argc, char **argv)
{
    static const struct argp argp = {options,
                                     parse_option,
                                     NULL,
                                     "Shows what runs where on a running `shoal serve`: worker, "
                                     "stage.member, layers, experts, memory, links.",
                                     NULL,
                                     NULL,
                                     NULL};
    struct top_options own = {.url = HTTP_CLIENT_URL};
    struct error err = {0};

    argp_parse(&argp, argc, argv, 0, NULL, &own);
    cli_signals_install();
    bool fine = own.once || own.json ? show(&own, &err) : watch(&own, &err);

    return fine ? CLI_OK : cli_fail(argv[0], &err);
}
