/* local_cluster.c - from options to a serving cluster, with its progress shown (load_view.c). */
#include "coordinator/cli/local_cluster.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cli/load_view.h"
#include "coordinator/cluster/placement_file.h"

#include <stdio.h>
#include <string.h>

/* With a placement file and no word about workers, they are all started here. */
static bool placement_workers(struct cluster_config *config, struct error *err)
{
    struct arena arena;
    struct placement *placement;

    if (config->placement_path == NULL || config->local_count + config->remote_count > 0) {
        return true;
    }
    arena_init(&arena, 4096);
    placement = placement_file_read(config->placement_path, &arena, err);
    config->local_count = placement == NULL ? 0 : placement_worker_count(placement);
    arena_deinit(&arena);
    return placement != NULL || error_wrap(err, "placement");
}

static void numerics_choose(struct local_cluster *local, const struct cluster_options *options)
{
    local->config.numerics = catalog_numerics(local->catalog);
    if (options->numerics != NULL) {
        (void)numerics_asked(options->numerics, &local->config.numerics); /* checked by the parser */
    }
}

bool local_cluster_start(struct local_cluster *out, const struct cluster_options *options,
                         enum local_cluster_tokenizer tokenizer, struct error *err)
{
    memset(out, 0, sizeof(*out));
    out->catalog = catalog_open_weights(options->model, &options->weights, err);
    if (out->catalog != NULL && cluster_options_apply(options, &out->config, err) &&
        scheduling_options_draft(&options->scheduling, &out->catalog->arch, options->model,
                                 &out->config, err) &&
        placement_workers(&out->config, err)) {
        out->config.model = options->model;
        out->config.catalog = out->catalog;
        numerics_choose(out, options);
        if (tokenizer == LOCAL_CLUSTER_TOKENIZER) {
            out->tokenizer = tokenizer_open(options->model, err);
        }
        if (tokenizer == LOCAL_CLUSTER_NO_TOKENIZER || out->tokenizer != NULL) {
            out->cluster = cluster_start(&out->config, err);
        }
    }
    if (out->cluster == NULL) {
        local_cluster_stop(out);
        return false;
    }
    return true;
}

static void progress_show(void *view, const struct cluster_status *status)
{
    load_view_update(view, status, clock_monotonic_ns());
}

bool local_cluster_wait(struct local_cluster *local, struct error *err)
{
    /* Log lines and bars do not share a terminal. */
    bool in_place = cli_stderr_is_terminal() && !log_enabled(LOG_INFO);
    struct load_view *view =
        load_view_create(stderr, in_place ? LOAD_VIEW_BARS : LOAD_VIEW_LINES, clock_monotonic_ns());
    bool serving = cluster_wait(local->cluster, progress_show, view, cli_stop_count(), err);

    load_view_destroy(view);
    if (!serving) {
        local_cluster_explain(local);
    }
    return serving;
}

void local_cluster_explain(const struct local_cluster *local)
{
    struct cluster_status *status = cluster_status(local->cluster);

    if (status->misfit != NULL) {
        (void)fprintf(stderr, "%s\n", status->misfit);
    }
    cluster_status_destroy(status);
}

void local_cluster_stop(struct local_cluster *local)
{
    cluster_stop(local->cluster);
    tokenizer_close(local->tokenizer);
    catalog_close(local->catalog);
    memset(local, 0, sizeof(*local));
}
