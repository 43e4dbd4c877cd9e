/* serve.c - `shoal serve`: the coordinator of a cluster behind an OpenAI-compatible URL.
 *
 * HTTP listens before the model is loaded, so that /health can say what is going on. The first
 * SIGTERM or SIGINT lets running requests finish for up to 25 s; a second one ends at once.
 */
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/model/model_path.h"
#include "coordinator/api/api.h"
#include "coordinator/api/sampling_defaults.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cli/local_cluster.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DRAIN_LIMIT_NS   (25 * NS_PER_S)
#define LOOK_INTERVAL_MS 200

struct serve_options {
    struct cluster_options cluster;
    const char *host;
    uint32_t port;
    const char *model_name;
    const char *chat_template;
    bool parse_special;
};

enum {
    KEY_HOST = 0x2000,
    KEY_PORT,
    KEY_MODEL_NAME,
    KEY_CHAT_TEMPLATE,
    KEY_PARSE_SPECIAL,
};

static const struct argp_option options[] = {
    {"host", KEY_HOST, "HOST", 0, "Address of the HTTP server (127.0.0.1)", 1},
    {"port", KEY_PORT, "PORT", 0, "Its port (8080); 0: a free one", 1},
    {"model-name", KEY_MODEL_NAME, "NAME", 0,
     "Name in /v1/models and in requests (that of the model's directory or file)", 1},
    {"chat-template", KEY_CHAT_TEMPLATE, "NAME|FILE", 0,
     "Chat template, where the model's own is unknown", 1},
    {"parse-special", KEY_PARSE_SPECIAL, NULL, 0, "Let users write control tokens in their texts",
     1},
    {0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct serve_options *own = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &own->cluster;
        options_from_environment(options, parse_option, state);
        return 0;
    case KEY_HOST:
        own->host = arg;
        return 0;
    case KEY_PORT:
        own->port = option_u32(arg, "--port", 0, 65535, state);
        return 0;
    case KEY_MODEL_NAME:
        own->model_name = arg;
        return 0;
    case KEY_CHAT_TEMPLATE:
        own->chat_template = arg;
        return 0;
    case KEY_PARSE_SPECIAL:
        own->parse_special = true;
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument \"%s\"", arg);
        return EINVAL;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static bool is_loopback(const char *host)
{
    return strncmp(host, "127.", 4) == 0 || strcmp(host, "::1") == 0 ||
           strcmp(host, "localhost") == 0;
}

/* Local by default: API keys don't exist yet, so the world needs --insecure. */
static bool check_host(const struct serve_options *own, struct error *err)
{
    if (is_loopback(own->host) || own->cluster.keys_policy == KEYS_INSECURE_ALLOWED) {
        return true;
    }
    return error_set(err, ERROR_USAGE,
                     "--host %s is open to the network and requests are not authenticated: say "
                     "--insecure if that is wanted",
                     own->host);
}

static bool prepare_api(const struct serve_options *own, const struct local_cluster *local,
                        struct api_config *config, struct error *err)
{
    *config = (struct api_config){
        .host = own->host,
        .port = (uint16_t)own->port,
        .model_name = own->model_name,
        .cluster = local->cluster,
        .tokenizer = local->tokenizer,
        .vocab = local->catalog->arch.vocab,
        .user_special = own->parse_special ? SPECIAL_PARSE : SPECIAL_TEXT,
    };
    config->chat_template = chat_template_choose(own->chat_template, local->tokenizer, err);
    if (!config->chat_template) {
        if (own->chat_template) {
            return false;
        }
        log_warn("chat requests will be refused: %s", err->message);
    }
    return sampling_defaults_read(own->cluster.model, &config->sampling, err);
}

/* What else must be running before anything can be served: a command to copy. An address that
 * stands for all of this machine's becomes its name. */
static void print_waiting(const struct serve_options *own, const struct local_cluster *local)
{
    const char *endpoint = cluster_control_endpoint(local->cluster);
    const char *key = own->cluster.key_path;
    const char *port = strrchr(endpoint, ':');
    char host[256] = "HOST";

    if (own->cluster.remote_count == 0) {
        return;
    }
    fprintf(stderr, "waiting for %u worker%s: shoal-worker --coordinator ",
            own->cluster.remote_count, own->cluster.remote_count == 1 ? "" : "s");
    if (strstr(endpoint, "//0.0.0.0:") || strstr(endpoint, "//*:") || strstr(endpoint, "//[::]:")) {
        (void)gethostname(host, sizeof(host) - 1);
        fprintf(stderr, "tcp://%s%s", host, port ? port : "");
    } else {
        fputs(endpoint, stderr);
    }
    fprintf(stderr, "%s%s\n", key ? " --key " : "",
            key                                                 ? key
            : own->cluster.keys_policy == KEYS_INSECURE_ALLOWED ? " --insecure"
                                                                : "");
}

static void print_serving(const struct serve_options *own, const struct api *api)
{
    bool six = strchr(own->host, ':') != NULL;
    char url[128];

    snprintf(url, sizeof(url), "http://%s%.90s%s:%u", six ? "[" : "", own->host, six ? "]" : "",
             api_port(api));
    fprintf(stderr,
            "serving %s at %s/v1\n"
            "  shoal chat --url %s        talk to it\n"
            "  shoal top  --url %s        what runs where\n",
            own->model_name, url, url, url);
}

/* Until a stop signal; false when the cluster has failed for good. */
static bool wait_for_end(const struct local_cluster *local, struct error *err)
{
    while (*cli_stop_count() == 0) {
        struct pollfd item = {.fd = cli_stop_fd(), .events = POLLIN};
        struct cluster_status *status = cluster_status(local->cluster);
        bool failed = status->state == CLUSTER_FAILED;

        if (failed) {
            error_set(err, ERROR_PEER, "%s", status->problem);
        }
        cluster_status_destroy(status);
        if (failed) {
            local_cluster_explain(local);
            return false;
        }
        poll(&item, 1, LOOK_INTERVAL_MS);
    }
    return true;
}

static void drain(struct api *api, struct cluster *cluster)
{
    int64_t limit_ns = clock_monotonic_ns() + DRAIN_LIMIT_NS;

    log_info("stopping: open requests have 25 s, a second signal ends at once: requests=%u",
             api_active_requests(api));
    api_drain(api);
    cluster_drain(cluster);
    while (api_active_requests(api) > 0 && clock_monotonic_ns() < limit_ns) {
        usleep(20 * 1000);
    }
}

static bool serve(const struct serve_options *own, struct local_cluster *local, struct error *err)
{
    struct api_config config;

    if (!prepare_api(own, local, &config, err)) {
        return false;
    }
    struct api *api = api_start(&config, err);

    if (!api) {
        return false;
    }
    print_waiting(own, local);
    bool fine = local_cluster_wait(local, err);

    if (fine) {
        print_serving(own, api);
        fine = wait_for_end(local, err);
    }
    if (fine) {
        drain(api, local->cluster);
    }
    bool written = !fine || local_cluster_profile(local, err);

    api_stop(api);
    return written && (fine || *cli_stop_count() > 0);
}

int command_serve(int argc, char **argv)
{
    static const struct argp_child children[] = {{&cluster_options_argp, 0, NULL, 0}, {0}};
    static const struct argp argp = {
        options,
        parse_option,
        NULL,
        "Serves a model over an OpenAI-compatible HTTP API.\v"
        "Workers are started here (--local N, --layout SxG) or on other machines, which join with\n"
        "  shoal-worker --coordinator tcp://HOST:PORT\n"
        "(--workers N waits for N of them; --control tcp://HOST:PORT is where they find this "
        "process).\n\n"
        "  shoal serve --model DIR --layout 3x1\n"
        "  shoal serve --model DIR --workers 3 --control tcp://0.0.0.0:5555 \\\n"
        "    --key cluster.key",
        children,
        NULL,
        NULL};
    struct serve_options own = {.host = "127.0.0.1", .port = 8080};
    struct local_cluster local;
    struct error err = {0};
    char *name = NULL;

    cluster_options_init(&own.cluster, OPTIONS_SERVE);
    argp_parse(&argp, argc, argv, 0, NULL, &own);
    if (!own.model_name) {
        own.model_name = name = model_path_name(own.cluster.model);
    }
    /* On a terminal, bars say what is going on. */
    log_init("coordinator", cli_stderr_is_terminal() ? LOG_WARN : LOG_INFO);
    cli_signals_install();
    cli_limits_raise();
    bool fine = check_host(&own, &err) &&
                local_cluster_start(&local, &own.cluster, LOCAL_CLUSTER_TOKENIZER, &err);

    if (fine) {
        fine = serve(&own, &local, &err);
        local_cluster_stop(&local);
    }
    mem_free(name);
    return fine ? CLI_OK : cli_fail(argv[0], &err);
}
