#ifndef SHOAL_CLUSTER_MODEL_SERVICE_H
#define SHOAL_CLUSTER_MODEL_SERVICE_H

/* Serves the model's files to workers on machines without them (common/net/fetch.h). */
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
uint64_t model_service_sent_bytes(const struct model_service *service); /* any thread */

#endif
