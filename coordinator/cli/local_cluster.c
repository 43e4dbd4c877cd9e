/* local_cluster.c - from options to a serving cluster, with its progress shown.
 *
 * On a terminal that log lines do not share, one bar for each worker is drawn in place and removed
 * when all is loaded; otherwise the bars are printed again every five seconds. */
#include "coordinator/cli/local_cluster.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/units.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cluster/placement_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define BAR_CELLS         30
#define PRINT_INTERVAL_NS (5 * NS_PER_S)

struct progress {
    bool in_place;
    uint32_t lines_drawn;
    int64_t printed_ns;
};

/* --- progress --- */

static void lines_erase(struct progress *progress)
{
    if (progress->lines_drawn > 0) {
        (void)fprintf(stderr, "\033[%uA\033[J", progress->lines_drawn);
        progress->lines_drawn = 0;
    }
}

static void worker_draw(const struct cluster_worker_status *worker)
{
    uint64_t total = worker->load_total_bytes;
    double share = total == 0 ? 0 : (double)worker->load_done_bytes / (double)total;
    int cells = (int)(share * BAR_CELLS);
    struct units_text done_text, total_text;

    (void)fprintf(stderr, "  worker %-3u layers %3u-%-3u [", worker->id, worker->layer_begin,
                  worker->layer_end - 1);
    for (int i = 0; i < BAR_CELLS; i++) {
        (void)fputc(i < cells ? '#' : '.', stderr);
    }
    (void)fprintf(stderr, "] %3d%%  %s of %s\n", (int)(share * 100),
                  units_bytes(&done_text, worker->load_done_bytes),
                  units_bytes(&total_text, total));
}

static void status_draw(struct progress *progress, const struct cluster_status *status)
{
    uint32_t lines = 1;

    (void)fprintf(stderr, "%s%s%s\n", cluster_state_name(status->state),
                  status->problem[0] != '\0' ? ": " : "", status->problem);
    for (uint32_t i = 0; status->state == CLUSTER_LOADING && i < status->worker_count; i++) {
        if (status->workers[i].stage != PLACEMENT_NONE) {
            worker_draw(&status->workers[i]);
            lines++;
        }
    }
    progress->lines_drawn = lines;
}

static void progress_show(void *context, const struct cluster_status *status)
{
    struct progress *progress = context;
    int64_t now_ns = clock_monotonic_ns();

    if (progress->in_place) {
        lines_erase(progress);
    } else if (now_ns - progress->printed_ns < PRINT_INTERVAL_NS) {
        return;
    }
    if (status->state == CLUSTER_SERVING || status->state == CLUSTER_FAILED) {
        return;
    }
    progress->printed_ns = now_ns;
    status_draw(progress, status);
}

/* --- life --- */

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
        (void)numerics_find(options->numerics, &local->config.numerics); /* checked by the parser */
    }
}

bool local_cluster_start(struct local_cluster *out, const struct cluster_options *options,
                         enum local_cluster_tokenizer tokenizer, struct error *err)
{
    memset(out, 0, sizeof(*out));
    out->catalog = catalog_open_weights(options->model, &options->weights, err);
    if (out->catalog != NULL && cluster_options_apply(options, &out->config, err) &&
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

bool local_cluster_wait(struct local_cluster *local, struct error *err)
{
    struct progress progress = {.in_place = cli_stderr_is_terminal() && !log_enabled(LOG_INFO),
                                .printed_ns = clock_monotonic_ns()};
    bool serving = cluster_wait(local->cluster, progress_show, &progress, cli_stop_count(), err);

    if (progress.in_place) {
        lines_erase(&progress);
    }
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
