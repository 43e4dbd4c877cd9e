#ifndef SHOAL_STAGE_PREPARE_H
#define SHOAL_STAGE_PREPARE_H

/* From an assignment to a stage that can run: opens the model, checks that it is the coordinator's,
 * adds up the ledger, loads the share. All of it on threads of its own, so that heartbeats go on.
 *
 * The communication thread starts one, asks for its progress, and takes its result when it has
 * ended. A model whose share did not change is kept from the epoch before.
 */
#include "common/base/ring.h"
#include "common/net/message.h"
#include "worker/layers/weights_dummy.h"
#include "worker/stage/ledger.h"
#include "worker/stage/load_plan.h"
#include "worker/stage/model_source.h"
#include "worker/stage/stage.h"

/* A loaded share. */
struct model {
    char *path;
    struct catalog *catalog;
    struct weights_share share; /* its bitmap is the model's own */
    uint8_t *owned_experts;
    size_t owned_bytes;
    struct weights *weights;
    struct load_plan *plan;      /* of the weights; NULL: nothing is read */
    char *fetch_id;              /* of what is in the cache */
    struct model_cache *cache;   /* that the files lie in; NULL: the machine's own */
    struct weights_dummy *dummy; /* instead of the memory; NULL: weights of files */
    void *memory;
    uint64_t memory_bytes;
    bool is_filled;
};
void model_destroy(struct model *model); /* NULL is legal */

struct prepare_config {
    const struct assign_message *assign; /* copied as far as needed; placement not yet checked */
    const char *model;                   /* --model; NULL: the assignment's */
    /* Where the model is fetched from, and how it is guarded; `path`, `fetch_id` and `cancel` are
     * set here. Key and cache directory are borrowed until the end. */
    struct model_source source;
    uint32_t worker;
    uint32_t thread_count; /* that read */
    uint64_t limit_bytes;
    enum cpu_level cpu_level;
    struct team *team;            /* lent until the end */
    struct machine_limits limits; /* known already; zeros: measured if the assignment wants it */
    struct model *model_kept;     /* taken; NULL: none */
    struct waker *waker;          /* woken at the end */
};

struct prepared {
    struct arena arena; /* placement, seat, traffic, peers */
    struct placement *placement;
    struct peer_address *peers;
    uint32_t peer_count;
    struct seat *seat;
    struct traffic traffic;
    struct ledger ledger;
    struct model *model;
    struct stage *stage; /* NULL: failed */
    uint32_t work_count;
    int64_t load_ns;
    struct machine_limits limits; /* zeros: not measured */
};
void prepared_destroy(struct prepared *prepared); /* the model too, unless it was taken out */

struct prepare;
struct prepare *prepare_start(const struct prepare_config *config, struct error *err) MUST_CHECK;
void prepare_cancel(struct prepare *prepare);
/* total 0: not known yet */
void prepare_progress(const struct prepare *prepare, uint64_t *done_bytes, uint64_t *total_bytes);
bool prepare_has_ended(const struct prepare *prepare);
/* After its end: frees it and gives the result. Without a stage err says why; the model, if any,
 * may be kept. */
struct prepared *prepare_finish(struct prepare *prepare, struct error *err);

#endif
