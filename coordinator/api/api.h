#ifndef SHOAL_API_API_H
#define SHOAL_API_API_H

/* The HTTP side of the coordinator: OpenAI endpoints, health, metrics, status.
 *
 * Runs on its own threads (libmicrohttpd's pool and one that watches for clients that went away).
 * Local by default: an address other than loopback needs --insecure until API keys exist.
 */
#include "common/base/error.h"
#include "common/text/chat_template.h"
#include "common/text/tokenizer.h"
#include "coordinator/cluster/cluster.h"

#include <stdint.h>

struct api_config {
    const char *host;        /* "127.0.0.1", "::1", "0.0.0.0" */
    uint16_t port;           /* 0: a free one */
    const char *model_name;  /* what /v1/models says and requests may name */
    struct cluster *cluster; /* borrowed, as all below */
    const struct tokenizer *tokenizer;
    const struct chat_template *chat_template; /* NULL: chat is refused with the reason */
    struct sampling_params sampling;           /* where a request names none: sampling_defaults.h */
    uint32_t vocab;                            /* token ids of requests are below it */
    enum special_mode user_special;            /* --parse-special */
};

struct api;
/* ERROR_SYSTEM names host and port ("address in use"). */
struct api *api_start(const struct api_config *config, struct error *err) MUST_CHECK;
uint16_t api_port(const struct api *api);
/* New requests are answered 503 from now on; running ones go on. */
void api_drain(struct api *api);
uint32_t api_active_requests(const struct api *api);
/* Cancels what still runs and closes every connection. NULL is legal. */
void api_stop(struct api *api);

#endif
