#ifndef SHOAL_STAGE_PREPARE_H
#define SHOAL_STAGE_PREPARE_H

/* From an assignment to a stage that can run: opens the model, checks that it is the coordinator's,
 * adds up the ledger, loads the share. All of it on threads of its own, so that heartbeats go on.
 *
 * The communication thread starts one, asks for its progress, and takes its result when it has
 * ended. Parts of the model that are in memory from the epochs before are kept as far as the new
 * share has them, and only the others are read. An assignment that is refused gives up nothing; of
 * a load that fails or is cancelled, the parts that were complete stay.
 */
#include "common/base/ring.h"
#include "common/net/message.h"
#include "worker/layers/weights_dummy.h"
#include "worker/stage/ledger.h"
#include "worker/stage/model.h"
#include "worker/stage/stage.h"

enum prepare_goal { PREPARE_STAGE, PREPARE_PRELOAD };

struct prepare_config {
    const struct assign_message *assign; /* copied as far as needed; placement not yet checked */
    const char *model;                   /* --model; NULL: the assignment's */
    /* Where the model is fetched from, and how it is guarded; `path`, `fetch_id` and `cancel` are
     * set here. Key and cache directory are borrowed until the end. */
    struct model_source source;
    uint32_t worker;
    uint32_t thread_count;    /* that read */
    uint64_t limit_bytes;     /* of the ledger */
    uint64_t available_bytes; /* that the system can give now; UINT64_MAX: unknown */
    enum cpu_level cpu_level;
    struct team *team;        /* lent until the end */
    struct model *model_kept; /* taken; NULL: none */
    /* PRELOAD: only the weights, no stage, while another epoch may compute with the team. */
    enum prepare_goal goal;
    /* PRELOAD: memory that such an epoch takes; model_kept is only lent then, until the end.
     * 0: there is none */
    uint64_t busy_bytes;
    struct waker *waker; /* woken at the end */
};

struct prepared {
    struct arena arena; /* placement, seat, traffic, peers */
    struct placement *placement;
    struct peer_address *peers;
    uint32_t peer_count;
    struct seat *seat;
    struct traffic traffic;
    struct ledger ledger;
    bool is_loaded;              /* the weights are whole */
    struct model *model;         /* NULL: failed before there was one */
    struct weights *weights;     /* hold parts of the model */
    struct weights_dummy *dummy; /* instead of the model's parts; NULL: weights of files */
    struct stage *stage;         /* NULL: failed, or not wanted */
    uint32_t work_count;
    int64_t load_ns;
    uint64_t read_bytes, kept_bytes; /* of files: what was read, what needed not be */
};
/* Destroys all but the model, which the caller owns then. */
struct model *prepared_end(struct prepared *prepared);
void prepared_destroy(struct prepared *prepared); /* the model too; NULL is legal */

struct prepare;
/* On failure model_kept stays the caller's. */
struct prepare *prepare_start(const struct prepare_config *config, struct error *err) MUST_CHECK;
void prepare_cancel(struct prepare *prepare);
/* total 0: not known yet */
void prepare_progress(const struct prepare *prepare, uint64_t *done_bytes, uint64_t *total_bytes);
bool prepare_has_ended(const struct prepare *prepare);
/* After its end: frees it and gives the result. Without a stage err says why; the model, if any,
 * may be kept. */
struct prepared *prepare_finish(struct prepare *prepare, struct error *err);

#endif
