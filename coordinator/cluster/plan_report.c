/* plan_report.c - who holds what, and what is missing. */
#include "coordinator/cluster/plan_report.h"

#include "common/base/units.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define AMOUNT_COLUMNS 7

static const char *const amount_titles[AMOUNT_COLUMNS] = {"weights", "KV",    "buffers", "frames",
                                                          "fixed",   "total", "limit"};

static void amounts_of(const struct planner_ledger *ledger, uint64_t amounts[AMOUNT_COLUMNS])
{
    amounts[0] = ledger->weight_bytes;
    amounts[1] = ledger->kv_bytes;
    amounts[2] = ledger->buffer_bytes;
    amounts[3] = ledger->frame_bytes;
    amounts[4] = ledger->fixed_bytes;
    amounts[5] = ledger->total_bytes;
    amounts[6] = ledger->limit_bytes;
}

static void amounts_write(const uint64_t amounts[AMOUNT_COLUMNS], struct buffer *out)
{
    struct units_text text;

    for (int i = 0; i < AMOUNT_COLUMNS; i++) {
        buffer_printf(out, " %8s", units_bytes(&text, amounts[i]));
    }
}

uint32_t plan_report_moe_layer(const struct placement *placement, uint32_t stage)
{
    uint32_t layer = placement->stages[stage].layer_begin;
    uint32_t end = placement->stages[stage].layer_end;

    if (placement->expert_count == 0) {
        return end;
    }
    if (layer < placement->dense_layer_count) {
        layer = placement->dense_layer_count;
    }
    return layer < end ? layer : end;
}

bool plan_report_range(const struct placement *placement, uint32_t layer, uint32_t member,
                       uint32_t from, uint32_t *begin, uint32_t *end)
{
    uint32_t count = placement->expert_count;

    while (from < count && !placement_owns(placement, layer, from, member)) {
        from++;
    }
    *begin = from;
    while (from < count && placement_owns(placement, layer, from, member)) {
        from++;
    }
    *end = from;
    return *begin < *end;
}

const char *plan_report_experts(const struct placement *placement, struct placement_seat seat,
                                char *text, size_t text_bytes)
{
    uint32_t layer = plan_report_moe_layer(placement, seat.stage);
    uint32_t begin, end = 0;
    size_t used = 0;

    (void)snprintf(text, text_bytes, "-");
    if (layer == placement->stages[seat.stage].layer_end) {
        return text;
    }
    while (used < text_bytes &&
           plan_report_range(placement, layer, seat.member, end, &begin, &end)) {
        used += (size_t)snprintf(text + used, text_bytes - used, "%s%" PRIu32 "-%" PRIu32,
                                 used > 0 ? " " : "", begin, end - 1);
    }
    return text;
}

static int host_width(const struct planner_request *request)
{
    int width = 4;

    for (uint32_t i = 0; i < request->worker_count; i++) {
        int length = (int)strnlen(request->workers[i].host, sizeof(request->workers[i].host));

        width = length > width ? length : width;
    }
    return width;
}

static const struct planner_worker *worker_find(const struct planner_request *request, uint32_t id)
{
    for (uint32_t i = 0; i < request->worker_count; i++) {
        if (request->workers[i].id == id) {
            return &request->workers[i];
        }
    }
    return &request->workers[0];
}

/* What is left, or, with a minus, lacks. */
static void rest_write(uint64_t total, uint64_t limit, struct buffer *out)
{
    struct units_text text;
    char rest[sizeof(text.text) + 1];

    (void)snprintf(rest, sizeof(rest), "%s%s", total > limit ? "-" : "",
                   units_bytes(&text, total > limit ? total - limit : limit - total));
    buffer_printf(out, " %9s\n", rest);
}

static void worker_write(const struct planner_request *request, const struct placement *placement,
                         struct placement_seat seat, uint64_t sums[AMOUNT_COLUMNS],
                         struct buffer *out)
{
    const struct placement_stage *stage = &placement->stages[seat.stage];
    uint32_t id = stage->workers[seat.member];
    struct planner_ledger ledger = planner_ledger_of(request, placement, id);
    uint64_t amounts[AMOUNT_COLUMNS];
    char layers[32], experts[64];

    (void)snprintf(layers, sizeof(layers), "%" PRIu32 "-%" PRIu32, stage->layer_begin,
                   stage->layer_end - 1);
    buffer_printf(out, "%6" PRIu32 "  %-*.*s %5" PRIu32 " %6" PRIu32 " %7s %9s", id,
                  host_width(request), (int)sizeof(worker_find(request, id)->host),
                  worker_find(request, id)->host, seat.stage, seat.member, layers,
                  plan_report_experts(placement, seat, experts, sizeof(experts)));
    amounts_of(&ledger, amounts);
    amounts_write(amounts, out);
    rest_write(ledger.total_bytes, ledger.limit_bytes, out);
    for (int i = 0; i < AMOUNT_COLUMNS; i++) {
        sums[i] += amounts[i];
    }
}

void plan_report_ledgers(const struct planner_request *request, const struct placement *placement,
                         struct buffer *out)
{
    uint64_t sums[AMOUNT_COLUMNS] = {0};

    buffer_printf(out, "worker  %-*s stage member  layers   experts", host_width(request), "host");
    for (int i = 0; i < AMOUNT_COLUMNS; i++) {
        buffer_printf(out, " %8s", amount_titles[i]);
    }
    buffer_printf(out, " %9s\n", "left");
    for (uint32_t i = 0; i < placement->stage_count; i++) {
        for (uint32_t m = 0; m < placement->stages[i].member_count; m++) {
            worker_write(request, placement, (struct placement_seat){i, m}, sums, out);
        }
    }
    buffer_printf(out, "%6s  %*s", "sum", host_width(request) + 31, "");
    amounts_write(sums, out);
    rest_write(sums[5], sums[6], out);
}

static const char *lead(bool *is_first)
{
    const char *text = *is_first ? "would fit       " : "                ";

    *is_first = false;
    return text;
}

static void remedies_write(const struct planner_refusal *refusal, struct buffer *out)
{
    uint32_t count = refusal->request.worker_count;
    bool is_first = true;
    struct units_text text;

    if (refusal->kv_tokens > 0) {
        buffer_printf(out, "%sa context of %" PRIu64 " tokens\n", lead(&is_first),
                      refusal->kv_tokens);
    }
    if (refusal->workers_more > 0) {
        buffer_printf(out, "%s%" PRIu32 " more worker%s like worker %" PRIu32 "\n", lead(&is_first),
                      refusal->workers_more, refusal->workers_more == 1 ? "" : "s",
                      refusal->workers_like);
    }
    /* Three digits are shown; rounded up, so that what they say does fit. */
    buffer_printf(out, "%s%" PRIu32 " worker%s with %s each\n", lead(&is_first), count,
                  count == 1 ? "" : "s",
                  units_bytes(&text, refusal->memory_bytes + refusal->memory_bytes / 200));
}

void plan_report_refusal(const struct planner_refusal *refusal, struct buffer *out)
{
    const struct planner_request *request = &refusal->request;
    struct planner_ledger worst = planner_ledger_of(request, refusal->nearest, refusal->tightest);
    struct units_text need, has, lacks, missing, memory;
    uint64_t memory_bytes = 0;

    for (uint32_t i = 0; i < request->worker_count; i++) {
        memory_bytes += request->workers[i].memory_bytes;
    }
    plan_report_ledgers(request, refusal->nearest, out);
    buffer_printf(
        out, "\ndoes not fit    worker %" PRIu32 " (%.63s) needs %s and has %s: %s too little\n",
        refusal->tightest, worker_find(request, refusal->tightest)->host,
        units_bytes(&need, worst.total_bytes), units_bytes(&has, worst.limit_bytes),
        units_bytes(&lacks, worst.total_bytes - worst.limit_bytes));
    buffer_printf(out, "                %s are missing in all; the workers have %s\n",
                  units_bytes(&missing, refusal->missing_bytes),
                  units_bytes(&memory, memory_bytes));
    remedies_write(refusal, out);
}
