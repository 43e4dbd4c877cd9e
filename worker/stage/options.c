/* options.c - the command line of shoal-worker. */
#include "worker/stage/options.h"

#include "common/base/units.h"

#include <argp.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define VARIABLE_BYTES 64

const char *argp_program_version = "shoal-worker " SHOAL_VERSION;

enum {
    KEY_COORDINATOR = 0x1000,
    KEY_MODEL,
    KEY_MEMORY,
    KEY_THREADS,
    KEY_KEY,
    KEY_INSECURE,
    KEY_BIND,
    KEY_ADVERTISE,
    KEY_IFACE,
    KEY_DATA_PORTS,
    KEY_CACHE,
    KEY_CACHE_SIZE,
    KEY_VERIFY,
    KEY_RECONNECT,
    KEY_LAUNCH_TOKEN,
};

static const char description[] =
    "Computes a share of a model for a shoal coordinator.\n"
    "\n"
    "Start `shoal serve --model DIR --workers N --control tcp://HOST:PORT` on one machine, then "
    "this program on each machine that shall help:\n"
    "\n"
    "  shoal-worker --coordinator tcp://HOST:PORT\n"
    "\n"
    "The coordinator decides which layers and experts the worker holds; the worker reads them from "
    "its own copy of the model (same path as the coordinator's, or --model) or, without one, from "
    "the coordinator's into a cache, says in a ledger what "
    "they take, and connects to the other workers. Started by mpirun or srun, workers of one run "
    "exchange data over MPI, otherwise over ZeroMQ.\n"
    "\n"
    "A worker outlives its coordinator: it keeps its weights, tries to connect every 0.1 to 2 s, "
    "registers again, and reads only what a new assignment needs beside them.\v"
    "Every option can also be set by a variable: --memory by SHOAL_MEMORY, --data-ports by "
    "SHOAL_DATA_PORTS, and so on. SHOAL_LOG=debug shows more, SHOAL_CPU=ref|avx2|avx512|vnni "
    "limits "
    "the "
    "instruction set.\n"
    "SIGTERM or Ctrl-C lets running requests finish for up to 25 s; a second one ends at once.";

static const struct argp_option options[] = {
    {"coordinator", KEY_COORDINATOR, "tcp://HOST:PORT", 0,
     "Control address of the coordinator (required)", 1},
    {"model", KEY_MODEL, "DIR", 0,
     "Where this machine has the model; default: the "
     "coordinator's path",
     1},
    {"memory", KEY_MEMORY, "BYTES", 0,
     "Most memory to use, as 64G or 60GiB; default: what is available", 1},
    {"threads", KEY_THREADS, "N", 0, "Compute threads; default: one per core", 1},
    {"cache", KEY_CACHE, "DIR", 0,
     "Where fetched models and checksums are kept; default: shoal in the user's cache folder", 1},
    {"cache-size", KEY_CACHE_SIZE, "BYTES", 0,
     "Most that the cache may take; models unused longest leave first; default: no limit", 1},
    {"verify", KEY_VERIFY, NULL, 0,
     "Record checksums of local model files at their first load, and refuse what has changed since",
     1},
    {0, 0, NULL, 0, "Network:", 2},
    {"key", KEY_KEY, "FILE", 0, "Cluster key made by `shoal keygen`: encrypts and authenticates",
     2},
    {"insecure", KEY_INSECURE, NULL, 0, "Allow a network without a key", 2},
    {"bind", KEY_BIND, "HOST", 0,
     "Address to listen on for other workers; default: the one that reaches the coordinator", 2},
    {"advertise", KEY_ADVERTISE, "HOST", 0, "Address that other workers are told, behind NAT", 2},
    {"iface", KEY_IFACE, "NAME", 0, "Listen on the address of this network interface", 2},
    {"data-ports", KEY_DATA_PORTS, "A-B", 0, "Ports to listen on, for firewalls; default: any", 2},
    {"reconnect", KEY_RECONNECT, "SECONDS", 0,
     "How long to look for a coordinator that was lost, weights in memory; 0: end at once; "
     "default: "
     "for ever",
     2},
    {"launch-token", KEY_LAUNCH_TOKEN, "TEXT", OPTION_HIDDEN, NULL, 3},
    {0},
};

static unsigned long parse_number(const char *text, const char *what, unsigned long most,
                                  struct argp_state *state)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);

    if (!isdigit((unsigned char)text[0]) || *end != '\0' || value > most || value == 0) {
        argp_error(state, "%s %s: must be a number from 1 to %lu", what, text, most);
    }
    return value;
}

static int64_t parse_seconds(const char *text, struct argp_state *state)
{
    /* parse_number takes no 0 */
    return strcmp(text, "0") == 0 ? 0
                                  : (int64_t)parse_number(text, "--reconnect", UINT32_MAX, state);
}

static void parse_ports(const char *text, struct worker_options *out, struct argp_state *state)
{
    char *end;
    unsigned long first = strtoul(text, &end, 10);
    unsigned long last = *end == '-' ? strtoul(end + 1, &end, 10) : first;

    if (*end != '\0' || first == 0 || last < first || last > UINT16_MAX) {
        argp_error(state, "--data-ports %s: must be as 7100-7199", text);
    }
    out->port_begin = (uint16_t)first;
    out->port_end = (uint16_t)last;
}

static error_t parse_option(int key, char *text, struct argp_state *state);

/* --data-ports → SHOAL_DATA_PORTS */
static const char *variable_of(const struct argp_option *option)
{
    char name[VARIABLE_BYTES] = "SHOAL_";
    size_t used = strlen(name);

    for (const char *at = option->name; *at != '\0' && used + 1 < sizeof(name); at++) {
        name[used++] = *at == '-' ? '_' : (char)toupper((unsigned char)*at);
    }
    name[used] = '\0';
    return getenv(name);
}

static void parse_environment(struct argp_state *state)
{
    for (const struct argp_option *option = options; option->name != NULL || option->doc != NULL;
         option++) {
        const char *text = option->name != NULL ? variable_of(option) : NULL;

        if (text == NULL || *text == '\0') {
            continue;
        }
        if (option->arg != NULL || strcmp(text, "1") == 0 || strcmp(text, "true") == 0 ||
            strcmp(text, "yes") == 0) {
            (void)parse_option(option->key, (char *)text, state);
        }
    }
}

static void check(const struct worker_options *out, struct argp_state *state)
{
    if (out->coordinator == NULL) {
        argp_error(state, "--coordinator tcp://HOST:PORT is required");
    }
    if (strncmp(out->coordinator, "tcp://", 6) != 0) {
        argp_error(state, "--coordinator %s: must be as tcp://HOST:PORT", out->coordinator);
    }
    if (out->bind_host != NULL && out->interface != NULL) {
        argp_error(state, "--bind and --iface exclude each other");
    }
}

static error_t parse_option(int key, char *text, struct argp_state *state)
{
    struct worker_options *out = state->input;
    struct error err;

    switch (key) {
    case ARGP_KEY_INIT:
        parse_environment(state);
        break;
    case KEY_COORDINATOR:
        out->coordinator = text;
        break;
    case KEY_MODEL:
        out->model = text;
        break;
    case KEY_MEMORY:
        if (!units_parse_bytes(text, "--memory", &out->memory_bytes, &err)) {
            argp_error(state, "%s", err.message);
        }
        break;
    case KEY_CACHE:
        out->cache = text;
        break;
    case KEY_CACHE_SIZE:
        if (!units_parse_bytes(text, "--cache-size", &out->cache_bytes_max, &err)) {
            argp_error(state, "%s", err.message);
        }
        break;
    case KEY_VERIFY:
        out->verify = true;
        break;
    case KEY_THREADS:
        out->threads = (uint32_t)parse_number(text, "--threads", 4096, state);
        break;
    case KEY_KEY:
        out->key = text;
        break;
    case KEY_INSECURE:
        out->insecure = true;
        break;
    case KEY_BIND:
        out->bind_host = text;
        break;
    case KEY_ADVERTISE:
        out->advertise = text;
        break;
    case KEY_IFACE:
        out->interface = text;
        break;
    case KEY_DATA_PORTS:
        parse_ports(text, out, state);
        break;
    case KEY_RECONNECT:
        out->reconnect_seconds = parse_seconds(text, state);
        break;
    case KEY_LAUNCH_TOKEN:
        out->launch_token = text;
        break;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", text);
        break;
    case ARGP_KEY_END:
        check(out, state);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

void worker_options_parse(int argc, char **argv, struct worker_options *out)
{
    static const struct argp argp = {
        .options = options, .parser = parse_option, .doc = description};

    argp_err_exit_status = 2;
    *out = (struct worker_options){.launch_token = "", .reconnect_seconds = -1};
    (void)argp_parse(&argp, argc, argv, 0, NULL, out);
}
