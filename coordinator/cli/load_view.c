/* load_view.c - bars and lines about loading.
 *
 * Workers report four times a second at most, in steps of a chunk, so the rate is a mean that
 * forgets within some seconds. Lines that are too long for the terminal are clipped, not wrapped:
 * the way back up counts lines.
 */
#include "coordinator/cli/load_view.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/base/units.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define BAR_CELLS         16
#define ROWS_MAX          16 /* of workers; more do not fit a small terminal */
#define PRINT_INTERVAL_NS (5 * NS_PER_S)
#define FORGET_S          3.0
#define WRAP_OFF          "\033[?7l"
#define WRAP_ON           "\033[?7h"

/* What is known of one worker's load, or of all. */
struct load_rate {
    uint32_t worker;
    uint64_t epoch;
    uint64_t done_bytes;
    int64_t seen_ns;
    double bytes_per_s; /* 0: not known yet */
};

struct load_view {
    FILE *out;
    enum load_view_style style;
    uint32_t lines_drawn;
    int64_t printed_ns;
    uint32_t rate_count;
    struct load_rate *rates;
};

struct load_view *load_view_create(FILE *out, enum load_view_style style, int64_t now_ns)
{
    struct load_view *view = mem_new(struct load_view);

    view->out = out;
    view->style = style;
    view->printed_ns = now_ns;
    return view;
}

static void lines_erase(struct load_view *view)
{
    if (view->lines_drawn > 0) {
        (void)fprintf(view->out, "\033[%uA\033[J", view->lines_drawn);
        view->lines_drawn = 0;
    }
}

void load_view_destroy(struct load_view *view)
{
    if (view == NULL) {
        return;
    }
    lines_erase(view);
    (void)fflush(view->out);
    mem_free(view->rates);
    mem_free(view);
}

/* --- rates --- */

static struct load_rate *rate_of(struct load_view *view, uint32_t worker)
{
    for (uint32_t i = 0; i < view->rate_count; i++) {
        if (view->rates[i].worker == worker) {
            return &view->rates[i];
        }
    }
    view->rates = mem_resize(view->rates, view->rate_count + 1, sizeof(*view->rates));
    view->rates[view->rate_count] = (struct load_rate){.worker = worker};
    return &view->rates[view->rate_count++];
}

static void rate_update(struct load_rate *rate, uint64_t epoch, uint64_t done_bytes, int64_t now_ns)
{
    double seconds = (double)(now_ns - rate->seen_ns) / (double)NS_PER_S;

    if (rate->epoch != epoch || done_bytes < rate->done_bytes) {
        *rate = (struct load_rate){rate->worker, epoch, done_bytes, now_ns, 0};
        return;
    }
    if (seconds > 0) {
        double recent = (double)(done_bytes - rate->done_bytes) / seconds;
        double share = rate->bytes_per_s == 0 ? 1 : 1 - exp(-seconds / FORGET_S);

        rate->bytes_per_s += share * (recent - rate->bytes_per_s);
        rate->done_bytes = done_bytes;
        rate->seen_ns = now_ns;
    }
}

static bool is_loading(const struct cluster_worker_status *worker)
{
    return worker->stage != PLACEMENT_NONE;
}

static void rates_update(struct load_view *view, const struct cluster_status *status,
                         int64_t now_ns)
{
    for (uint32_t i = 0; i < status->worker_count; i++) {
        const struct cluster_worker_status *worker = &status->workers[i];

        if (is_loading(worker)) {
            rate_update(rate_of(view, worker->id), status->epoch, worker->load_done_bytes, now_ns);
        }
    }
}

/* --- lines --- */

struct row {
    char name[48];
    uint64_t done_bytes, total_bytes;
    double bytes_per_s;
    double remaining_s; /* below 0: not known */
};

/* "0:07", "1:02:03" */
static void duration_write(char *text, size_t bytes, double seconds)
{
    uint64_t whole = (uint64_t)(seconds + 0.5);
    uint64_t hours = whole / 3600, minutes = whole / 60 % 60;

    if (hours > 0) {
        (void)snprintf(text, bytes, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64, hours, minutes,
                       whole % 60);
    } else {
        (void)snprintf(text, bytes, "%" PRIu64 ":%02" PRIu64, minutes, whole % 60);
    }
}

static void bar_draw(const struct load_view *view, double share)
{
    int cells = (int)(share * BAR_CELLS);

    (void)fputs("[", view->out);
    for (int i = 0; i < BAR_CELLS; i++) {
        (void)fputc(i < cells ? '#' : '.', view->out);
    }
    (void)fputs("] ", view->out);
}

static void row_draw(struct load_view *view, const struct row *row)
{
    double share = row->total_bytes == 0 ? 0 : (double)row->done_bytes / (double)row->total_bytes;
    struct units_text done, total, rate;
    char left[32];

    (void)fprintf(view->out, "  %-22s ", row->name);
    if (view->style == LOAD_VIEW_BARS) {
        bar_draw(view, share);
    }
    (void)fprintf(view->out, "%3d%%  %s of %s", (int)(share * 100),
                  units_bytes(&done, row->done_bytes), units_bytes(&total, row->total_bytes));
    if (row->bytes_per_s >= 1 && row->done_bytes < row->total_bytes) {
        (void)fprintf(view->out, "  %s/s", units_bytes(&rate, (uint64_t)row->bytes_per_s));
        if (row->remaining_s >= 0) {
            duration_write(left, sizeof(left), row->remaining_s);
            (void)fprintf(view->out, "  %s left", left);
        }
    }
    (void)fputs("\n", view->out);
    view->lines_drawn++;
}

static struct row row_of(struct load_view *view, const struct cluster_worker_status *worker)
{
    const struct load_rate *rate = rate_of(view, worker->id);
    uint64_t left_bytes = worker->load_total_bytes > worker->load_done_bytes
                              ? worker->load_total_bytes - worker->load_done_bytes
                              : 0;
    struct row row = {"", worker->load_done_bytes, worker->load_total_bytes, rate->bytes_per_s,
                      rate->bytes_per_s >= 1 ? (double)left_bytes / rate->bytes_per_s : -1};

    (void)snprintf(row.name, sizeof(row.name), "worker %u layers %u-%u", worker->id,
                   worker->layer_begin, worker->layer_end - 1);
    return row;
}

/* All are loaded when the last one is; one that stands still leaves the end open. */
static void total_add(struct row *total, const struct row *row)
{
    bool is_open = row->done_bytes < row->total_bytes || row->total_bytes == 0;

    total->done_bytes += row->done_bytes;
    total->total_bytes += row->total_bytes;
    total->bytes_per_s += is_open ? row->bytes_per_s : 0;
    if (is_open && (row->remaining_s < 0 || total->remaining_s < 0)) {
        total->remaining_s = -1;
    } else if (is_open && row->remaining_s > total->remaining_s) {
        total->remaining_s = row->remaining_s;
    }
}

static void loading_draw(struct load_view *view, const struct cluster_status *status)
{
    struct row total = {"all workers", 0, 0, 0, 0};
    uint32_t shown = 0, left_out = 0;

    for (uint32_t i = 0; i < status->worker_count; i++) {
        struct row row;

        if (!is_loading(&status->workers[i])) {
            continue;
        }
        row = row_of(view, &status->workers[i]);
        total_add(&total, &row);
        if (shown < ROWS_MAX) {
            row_draw(view, &row);
            shown++;
        } else {
            left_out++;
        }
    }
    if (left_out > 0) {
        (void)fprintf(view->out, "  and %u more\n", left_out);
        view->lines_drawn++;
    }
    if (shown > 1) {
        row_draw(view, &total);
    }
}

static void status_draw(struct load_view *view, const struct cluster_status *status)
{
    bool in_place = view->style == LOAD_VIEW_BARS;

    (void)fprintf(view->out, "%s%s%s%s\n", in_place ? WRAP_OFF : "",
                  cluster_state_name(status->state), status->problem[0] != '\0' ? ": " : "",
                  status->problem);
    view->lines_drawn = 1;
    if (status->state == CLUSTER_LOADING) {
        loading_draw(view, status);
    }
    (void)fputs(in_place ? WRAP_ON : "", view->out);
    view->lines_drawn = in_place ? view->lines_drawn : 0;
    (void)fflush(view->out);
}

void load_view_update(struct load_view *view, const struct cluster_status *status, int64_t now_ns)
{
    if (status->state == CLUSTER_LOADING) {
        rates_update(view, status, now_ns);
    }
    if (view->style == LOAD_VIEW_LINES && now_ns - view->printed_ns < PRINT_INTERVAL_NS) {
        return;
    }
    lines_erase(view);
    if (status->state == CLUSTER_SERVING || status->state == CLUSTER_FAILED) {
        return;
    }
    view->printed_ns = now_ns;
    status_draw(view, status);
}
