#ifndef SHOAL_CLUSTER_MODEL_SERVICE_H
#define SHOAL_CLUSTER_MODEL_SERVICE_H

/* Serves the model's files to workers on machines without them (common/net/fetch.h).
 *
 * What is served has an id of its own, under which workers keep it: checkpoints of one architecture
 * often have the very same headers (DeepSeek-R1 and R1-0528), so the id is made of each file's
 * name, size, time of change and some of its bytes. A copy of the files may have another id, and is
 * then fetched once more; other weights never have the same.
 */
#include "common/model/catalog.h"
#include "common/net/keys.h"

struct model_service;
struct model_service_config {
    const struct catalog *catalog; /* published weights; borrowed for life, as all below */
    const char *model_hash;
    const char *control_endpoint; /* the files are served on the same address */
    uint16_t port;                /* 0: a free one */
    const struct cluster_key *key;
};
struct model_service *model_service_start(const struct model_service_config *config,
                                          struct error *err) MUST_CHECK;
void model_service_stop(struct model_service *service); /* NULL is legal */
uint16_t model_service_port(const struct model_service *service);
const char *model_service_id(const struct model_service *service);      /* 16 hexadecimal digits */
uint64_t model_service_sent_bytes(const struct model_service *service); /* any thread */

#endif
