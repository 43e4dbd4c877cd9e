/* plan_text.c - `shoal plan` for people. */
#include "common/base/units.h"
#include "coordinator/cli/plan.h"
#include "coordinator/cluster/plan_report.h"

#include <inttypes.h>
#include <stdio.h>

const char *plan_layout_name(const struct plan_layout *layout, char *text, size_t text_bytes)
{
    if (layout->even) {
        (void)snprintf(text, text_bytes, "%ux%u", layout->stage_count, layout->group_size);
    } else {
        (void)snprintf(text, text_bytes, "%ux%u-%u", layout->stage_count, layout->group_size - 1,
                       layout->group_size);
    }
    return text;
}

/* "1.06 s", "485 ms" */
static void seconds_write(double seconds, struct buffer *out)
{
    bool is_long = seconds >= 0.9995;

    buffer_printf(out, "%.3g %s", is_long ? seconds : seconds * 1e3, is_long ? "s" : "ms");
}

/* " 4x2 485 ms", " 2x4 does not fit" */
static void layout_write(const struct plan_layout *layout, enum plan_objective objective,
                         struct buffer *out)
{
    char name[32];

    buffer_printf(out, " %s ", plan_layout_name(layout, name, sizeof(name)));
    if (layout->placement == NULL) {
        buffer_append_text(out, "does not fit");
    } else if (objective == PLAN_LATENCY) {
        seconds_write(layout->time.token_s, out);
    } else {
        buffer_printf(out, "%.3g", layout->time.full_tokens_per_s);
    }
}

void plan_reason_write(const struct plan_command *own, struct buffer *out)
{
    const struct plan_outcome *outcome = own->outcome;
    char name[32];

    if (outcome->layout_count == 1) {
        buffer_append_text(out, "the only one");
        return;
    }
    buffer_append_text(out, outcome->refusal != NULL         ? "none fits, it comes closest, of"
                            : own->objective == PLAN_LATENCY ? "least time of a token alone:"
                                                             : "most tokens/s at full load:");
    for (uint32_t i = 0; i < outcome->layout_count; i++) {
        const struct plan_layout *layout = &outcome->layouts[i];

        buffer_append_text(out, i > 0 ? "," : "");
        if (outcome->refusal != NULL) {
            buffer_printf(out, " %s", plan_layout_name(layout, name, sizeof(name)));
        } else {
            layout_write(layout, own->objective, out);
        }
    }
}

static void model_write(const struct plan_command *own, struct buffer *out)
{
    const struct arch *arch = &own->catalog->arch;
    struct units_text bytes;

    buffer_printf(out, "model           %s: %s, %u layers", own->model, arch->name,
                  arch->layer_count);
    if (arch->router.expert_count > 0) {
        buffer_printf(out, " of %u experts", arch->router.expert_count);
    }
    buffer_printf(out, ", %s%s\n", units_bytes(&bytes, own->catalog->total_bytes),
                  own->catalog->weights.source == WEIGHTS_DUMMY ? " by its config.json" : "");
    if (arch->draft_layer_count > 0) {
        buffer_printf(out, "draft layer     %s\n",
                      own->draft_layer ? "on the last stage, beside its layers" : "left out");
    }
}

static void cluster_write(const struct plan_command *own, struct buffer *out)
{
    const struct cluster_file *file = own->file;
    struct units_text memory;
    uint64_t memory_bytes = 0;

    for (uint32_t i = 0; i < file->worker_count; i++) {
        memory_bytes += file->workers[i].memory_bytes;
    }
    buffer_printf(out, "cluster         %s: %u worker%s on %u machine%s, %s\n", own->cluster,
                  file->worker_count, file->worker_count == 1 ? "" : "s", file->machine_count,
                  file->machine_count == 1 ? "" : "s", units_bytes(&memory, memory_bytes));
}

static void context_write(const struct plan_command *own, const struct placement *placement,
                          struct buffer *out)
{
    uint32_t context_of_model = own->catalog->arch.context_tokens_max;

    buffer_printf(out, "context         %u tokens", own->outcome->context_tokens);
    if (own->outcome->context_tokens < context_of_model) {
        buffer_printf(out, " of the model's %u", context_of_model);
    }
    if (placement != NULL) {
        buffer_printf(out, "; room for %" PRIu64 " in %s (%s)",
                      (uint64_t)placement->kv_block_count * PLAN_BLOCK_TOKENS,
                      placement->lane_count > 1 ? "each lane" : "the cache",
                      kv_type_name(own->kv_type));
    }
    if (placement != NULL && own->outcome->step_rows_max < own->outcome->step_rows_wanted) {
        buffer_printf(out, "; steps of %u rows, not %u, which prompts feel",
                      own->outcome->step_rows_max, own->outcome->step_rows_wanted);
    }
    buffer_append_text(out, "\n\n");
}

/* What is below half a percent is not worth a word. */
static void parts_write(const struct plan_parts *parts, struct buffer *out)
{
    double seconds[] = {parts->read_s, parts->exchange_s, parts->hop_s};
    double sum = parts->read_s + parts->exchange_s + parts->hop_s;
    const char *between = "";

    for (int i = 0; i < 3; i++) {
        if (seconds[i] > 0.005 * sum) {
            buffer_printf(out, "%s%.0f%% %s", between, 100 * seconds[i] / sum,
                          plan_limit_name((enum plan_limit)i));
            between = ", ";
        }
    }
    buffer_append_text(out, "\n");
}

static void time_write(const struct plan_time *time, const struct placement *placement,
                       struct buffer *out)
{
    uint32_t tokens = placement->context_tokens_max < PLAN_SEQUENCE_TOKENS
                          ? placement->context_tokens_max
                          : PLAN_SEQUENCE_TOKENS;

    buffer_printf(out, "\none sequence    at most %.3g tokens/s, ", time->alone_tokens_per_s);
    seconds_write(time->token_s, out);
    buffer_append_text(out, " a token\n                ");
    parts_write(&time->alone, out);
    buffer_printf(out,
                  "full load       at most %.3g tokens/s: %u sequences of %u tokens, %u in a step\n"
                  "                stage %u is slowest, ",
                  time->full_tokens_per_s, time->sequences, tokens, time->step_rows,
                  time->slowest_stage);
    seconds_write(time->full.read_s + time->full.exchange_s, out);
    buffer_append_text(out, ": ");
    parts_write(&time->full, out);
    buffer_append_text(out, "                (bounds by read bandwidth and messages; arithmetic is "
                            "not counted yet)\n");
}

void plan_print(const struct plan_command *own)
{
    const struct plan_layout *layout = &own->outcome->layouts[own->outcome->chosen];
    char name[32];
    struct buffer text;

    buffer_init(&text);
    model_write(own, &text);
    cluster_write(own, &text);
    buffer_printf(&text, "layout          %s: ", plan_layout_name(layout, name, sizeof(name)));
    plan_reason_write(own, &text);
    buffer_append_text(&text, "\n");
    context_write(own, layout->placement, &text);
    if (own->outcome->refusal != NULL) {
        plan_report_refusal(own->outcome->refusal, &text);
    } else {
        plan_report_ledgers(&layout->request, layout->placement, &text);
        buffer_append_text(&text, "\nfits\n");
        time_write(&layout->time, layout->placement, &text);
    }
    (void)fputs(buffer_text(&text), stdout);
    buffer_deinit(&text);
}
