/* experts.c - the routed experts of a batch, each expert's weights read once.
 *
 * Jobs are sorted by expert; all experts' gate and up products form one pass of the team, all down
 * products a second one, without a barrier between experts, so that a few rows on many experts
 * still fill every thread. Tiles are (expert, panels, rows), rows innermost: the panels stay in a
 * cache from one row block to the next. Where products read int8, inputs become codes side by side;
 * floats that lie at equal distances are read in place, others are first gathered.
 */
#include "worker/layers/forward_state.h"

#include <string.h>

#define TILES_PER_THREAD 8

struct experts_work {
    struct forward *forward;
    const struct layer_weights *weights;
    const struct expert_job *jobs;
    uint32_t job_count;
    uint32_t span_count;
    uint32_t up_panels;   /* of one tile */
    uint32_t down_panels; /* of one tile */
    bool up_is_coded;     /* all experts alike */
    bool down_is_coded;
};

static uint32_t blocks_of(uint32_t count, uint32_t block)
{
    return (count + block - 1) / block;
}

/* Stable counting sort of the jobs by expert into `order`, and one span for each expert. */
static void spans_make(struct experts_work *work)
{
    struct expert_buffers *buffers = &work->forward->experts;
    uint32_t expert_count = work->forward->config.arch->router.expert_count;

    memset(buffers->counts, 0, ((size_t)expert_count + 1) * sizeof(uint32_t));
    for (uint32_t i = 0; i < work->job_count; i++) {
        ASSERT(work->jobs[i].expert < expert_count);
        ASSERT(work->weights->experts[work->jobs[i].expert].gate.data != NULL);
        buffers->counts[work->jobs[i].expert + 1]++;
    }
    work->span_count = 0;
    for (uint32_t e = 0; e < expert_count; e++) {
        uint32_t count = buffers->counts[e + 1];

        if (count > 0) {
            buffers->spans[work->span_count++] =
                (struct expert_span){.expert = e, .begin = buffers->counts[e], .count = count};
        }
        buffers->counts[e + 1] += buffers->counts[e];
    }
    for (uint32_t i = 0; i < work->job_count; i++) {
        buffers->order[buffers->counts[work->jobs[i].expert]++] = i;
    }
}

/* Whether a pass over all spans can read codes of one kind. */
static void kinds_find(struct experts_work *work)
{
    const struct expert_span *spans = work->forward->experts.spans;
    const struct mlp_weights *first = &work->weights->experts[spans[0].expert];

    work->up_is_coded = true;
    work->down_is_coded = true;
    for (uint32_t i = 0; i < work->span_count; i++) {
        const struct mlp_weights *expert = &work->weights->experts[spans[i].expert];

        work->up_is_coded &= product_is_coded(work->forward, &expert->gate, &expert->up) &&
                             expert->gate.type == first->gate.type;
        work->down_is_coded &= product_is_coded(work->forward, &expert->down, NULL) &&
                               expert->down.type == first->down.type;
    }
}

/* The distance in values between the inputs of a span; 0: not all the same, or not rising. */
static size_t span_stride(const struct experts_work *work, const struct expert_span *span)
{
    const uint32_t *order = work->forward->experts.order + span->begin;
    uintptr_t stride = work->forward->config.arch->hidden * sizeof(float);

    for (uint32_t i = 1; i < span->count; i++) {
        uintptr_t last = (uintptr_t)work->jobs[order[i - 1]].input;
        uintptr_t here = (uintptr_t)work->jobs[order[i]].input;

        if (here <= last || (i > 1 && here - last != stride)) {
            return 0;
        }
        stride = here - last;
    }
    return stride % sizeof(float) == 0 ? stride / sizeof(float) : 0;
}

static void gather_row(void *context, size_t place, uint32_t thread)
{
    const struct experts_work *work = context;
    const struct expert_buffers *buffers = &work->forward->experts;
    size_t hidden = work->forward->config.arch->hidden;

    (void)thread;
    memcpy(buffers->gathered + place * hidden, work->jobs[buffers->order[place]].input,
           hidden * sizeof(float));
}

static void code_input(void *context, size_t place, uint32_t thread)
{
    const struct experts_work *work = context;
    const struct expert_buffers *buffers = &work->forward->experts;
    const struct expert_job *job = &work->jobs[buffers->order[place]];
    const struct packed_matrix *gate = &work->weights->experts[job->expert].gate;
    struct int8_rows out = buffers->input;

    (void)thread;
    out.row = place;
    work->forward->config.kernels->code_rows(gate->type, gate->columns,
                                             (struct rows_view){job->input, gate->columns}, 1, out);
}

/* Sets each span's input; gathers all rows if any span needs it. */
static void inputs_find(struct experts_work *work)
{
    struct expert_buffers *buffers = &work->forward->experts;
    size_t hidden = work->forward->config.arch->hidden;
    bool gather = false;

    if (work->up_is_coded) {
        buffers->input.stride = work->job_count;
        rows_run(work->forward, code_input, work, work->job_count);
        return;
    }

    for (uint32_t i = 0; i < work->span_count; i++) {
        struct expert_span *span = &buffers->spans[i];
        size_t stride = span_stride(work, span);

        if (stride > 0) {
            span->input = (struct rows_view){work->jobs[buffers->order[span->begin]].input, stride};
        } else {
            span->input = (struct rows_view){buffers->gathered + span->begin * hidden, hidden};
            gather = true;
        }
    }
    if (gather) {
        rows_run(work->forward, gather_row, work, work->job_count);
    }
}

static uint32_t panels_per_tile(const struct experts_work *work, uint32_t panel_count,
                                size_t row_blocks)
{
    size_t tiles = (size_t)work->forward->thread_count * TILES_PER_THREAD;
    size_t panels = panel_count * row_blocks / tiles;

    return panels_rounded(panels, EXPERT_PANELS);
}

/* Numbers the tiles of both passes over all spans; returns how many each has. */
static void tiles_number(struct experts_work *work, size_t *up_tiles, size_t *down_tiles)
{
    const struct arch *arch = work->forward->config.arch;
    struct expert_span *spans = work->forward->experts.spans;
    uint32_t up_panels = packed_panel_count(arch->expert_width);
    uint32_t down_panels = packed_panel_count(arch->hidden);
    size_t row_blocks = 0;

    for (uint32_t i = 0; i < work->span_count; i++) {
        row_blocks += blocks_of(spans[i].count, EXPERT_ROWS);
    }
    work->up_panels = panels_per_tile(work, up_panels, row_blocks);
    work->down_panels = panels_per_tile(work, down_panels, row_blocks);
    *up_tiles = 0;
    *down_tiles = 0;
    for (uint32_t i = 0; i < work->span_count; i++) {
        size_t rows = blocks_of(spans[i].count, EXPERT_ROWS);

        spans[i].up_tile_begin = *up_tiles;
        spans[i].down_tile_begin = *down_tiles;
        *up_tiles += rows * blocks_of(up_panels, work->up_panels);
        *down_tiles += rows * blocks_of(down_panels, work->down_panels);
    }
}

/* Part of one expert's work. */
struct expert_tile {
    const struct expert_span *span;
    uint32_t panel_begin, panel_end;
    uint32_t row; /* in the span */
    uint32_t row_count;
};

enum pass { PASS_UP, PASS_DOWN };

static size_t span_tile_begin(const struct expert_span *span, enum pass pass)
{
    return pass == PASS_UP ? span->up_tile_begin : span->down_tile_begin;
}

static struct expert_tile tile_find(const struct experts_work *work, enum pass pass, size_t tile)
{
    const struct arch *arch = work->forward->config.arch;
    const struct expert_span *spans = work->forward->experts.spans;
    uint32_t low = 0, high = work->span_count;
    uint32_t panel_count = packed_panel_count(pass == PASS_UP ? arch->expert_width : arch->hidden);
    uint32_t panels = pass == PASS_UP ? work->up_panels : work->down_panels;
    struct expert_tile out;
    uint32_t row_blocks;

    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;

        if (span_tile_begin(&spans[middle], pass) <= tile) {
            low = middle;
        } else {
            high = middle;
        }
    }
    out.span = &spans[low];
    tile -= span_tile_begin(out.span, pass);
    row_blocks = blocks_of(out.span->count, EXPERT_ROWS);
    out.panel_begin = (uint32_t)(tile / row_blocks) * panels;
    out.panel_end = out.panel_begin + panels < panel_count ? out.panel_begin + panels : panel_count;
    out.row = (uint32_t)(tile % row_blocks) * EXPERT_ROWS;
    out.row_count =
        out.span->count - out.row < EXPERT_ROWS ? out.span->count - out.row : EXPERT_ROWS;
    return out;
}

static void up_tile(void *context, size_t tile, uint32_t thread)
{
    const struct experts_work *work = context;
    const struct forward *forward = work->forward;
    size_t width = forward->config.arch->expert_width;
    struct expert_tile at = tile_find(work, PASS_UP, tile);
    const struct mlp_weights *expert = &work->weights->experts[at.span->expert];
    struct rows_view x = {at.span->input.values, at.span->input.stride};
    struct int8_rows codes = forward->experts.input;
    struct rows_out out = {forward->experts.act + (at.span->begin + at.row) * width, width};

    (void)thread;
    if (work->up_is_coded) {
        codes.row = at.span->begin + at.row;
        forward->config.kernels->matmul_codes(&expert->gate, &expert->up, at.panel_begin,
                                              at.panel_end, codes, at.row_count, out);
        return;
    }
    x.values += at.row * x.stride;
    forward->config.kernels->matmul_gate_up(&expert->gate, &expert->up, at.panel_begin,
                                            at.panel_end, x, at.row_count, out);
}

/* The activations between the passes, where the second one reads codes. */
static void act_code(struct experts_work *work)
{
    struct expert_buffers *buffers = &work->forward->experts;
    const struct mlp_weights *first = &work->weights->experts[buffers->spans[0].expert];

    if (work->down_is_coded) {
        buffers->act_codes.stride = work->job_count;
        codes_run(work->forward, first->down.type, first->down.columns,
                  (struct rows_view){buffers->act, first->down.columns}, work->job_count,
                  buffers->act_codes);
    }
}

/* The kernel writes outputs at their row's index, so the tile's window of `rows` is addressed from
 * panel 0 of a matrix that begins at the tile's first panel. */
static void down_tile(void *context, size_t tile, uint32_t thread)
{
    const struct experts_work *work = context;
    const struct forward *forward = work->forward;
    const struct expert_buffers *buffers = &forward->experts;
    const struct kernels *kernels = forward->config.kernels;
    size_t width = forward->config.arch->expert_width;
    size_t stride = EXPERT_PANELS * PANEL_ROWS;
    struct expert_tile at = tile_find(work, PASS_DOWN, tile);
    struct packed_matrix down =
        packed_panels(&work->weights->experts[at.span->expert].down, at.panel_begin, at.panel_end);
    uint32_t first = at.span->begin + at.row;
    uint32_t panels = at.panel_end - at.panel_begin;
    struct rows_out out = {buffers->rows + thread * EXPERT_ROWS * stride, stride};
    struct int8_rows codes = buffers->act_codes;

    if (work->down_is_coded) {
        codes.row = first;
        kernels->matmul_codes(&down, NULL, 0, panels, codes, at.row_count, out);
    } else {
        kernels->matmul(&down, 0, panels, (struct rows_view){buffers->act + first * width, width},
                        at.row_count, out);
    }
    for (uint32_t r = 0; r < at.row_count; r++) {
        const struct expert_job *job = &work->jobs[buffers->order[first + r]];

        kernels->scale(out.values + r * stride, job->weight, down.rows,
                       job->output + (size_t)at.panel_begin * PANEL_ROWS);
    }
}

void forward_experts(struct forward *forward, uint32_t layer, const struct expert_job *jobs,
                     uint32_t job_count)
{
    struct experts_work work = {
        .forward = forward,
        .weights = forward_layer(forward, layer),
        .jobs = jobs,
        .job_count = job_count,
    };
    size_t up_tiles, down_tiles;

    ASSERT(job_count <= forward->config.expert_rows_max);
    if (job_count == 0) {
        return;
    }
    spans_make(&work);
    kinds_find(&work);
    inputs_find(&work);
    tiles_number(&work, &up_tiles, &down_tiles);
    team_run(forward->config.team, up_tile, &work, up_tiles);
    act_code(&work);
    team_run(forward->config.team, down_tile, &work, down_tiles);
}
