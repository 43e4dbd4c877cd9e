#ifndef SHOAL_CLI_LOCAL_CLUSTER_H
#define SHOAL_CLI_LOCAL_CLUSTER_H

/* From options to a cluster that serves: opens catalog and tokenizer, starts the cluster, shows the
 * progress of each worker (bars on a terminal, a line every few seconds otherwise), and ends
 * everything in order. Main thread; cli_signals_install() comes before.
 */
#include "common/base/error.h"
#include "common/model/catalog.h"
#include "common/text/tokenizer.h"
#include "coordinator/cli/options.h"
#include "coordinator/cluster/cluster.h"

enum local_cluster_tokenizer {
    LOCAL_CLUSTER_TOKENIZER,    /* needed */
    LOCAL_CLUSTER_NO_TOKENIZER, /* token ids only: the model may come without tokenizer.json */
};

struct local_cluster {
    struct catalog *catalog;
    struct tokenizer *tokenizer; /* NULL without */
    struct cluster *cluster;
    struct cluster_config config; /* as started; change nothing afterwards */
    const char *profile_path;     /* NULL: none is wanted */
};

/* Opens and starts; returns while workers gather. `out` is zeroed first. After a failure nothing is
 * left to stop. The options are borrowed for the cluster's life. */
bool local_cluster_start(struct local_cluster *out, const struct cluster_options *options,
                         enum local_cluster_tokenizer tokenizer, struct error *err) MUST_CHECK;
/* Waits until it serves, with progress on standard error. ERROR_PEER "interrupted" when a stop
 * signal came. */
bool local_cluster_wait(struct local_cluster *local, struct error *err) MUST_CHECK;
/* Where the model does not fit: every worker's ledger on standard error; local_cluster_wait has
 * done so when it fails. */
void local_cluster_explain(const struct local_cluster *local);
/* While it serves: writes the file that --profile names, if it was given. */
bool local_cluster_profile(const struct local_cluster *local, struct error *err) MUST_CHECK;
/* Ends workers, threads and all. Legal on a zeroed struct and twice. */
void local_cluster_stop(struct local_cluster *local);

#endif
