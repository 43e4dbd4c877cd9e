/* codec_step.c - steps and their results: what travels while tokens flow.
 *
 * Tokens, blocks and routed experts are packed arrays that the decoded message points at where
 * protobuf-c put them; nothing is copied twice. Rows of floats are announced here and travel behind
 * the message (control_wire.c).
 */
#include "common/net/codec.h"

#include <math.h>

#define WANTS_ALL ((uint32_t)(WANT_SAMPLE | WANT_LOGITS | WANT_ROUTING | WANT_HIDDEN))

/* protobuf-c's arrays are not const; packing only reads them. */
static uint32_t *array(const uint32_t *values)
{
    return (uint32_t *)(uintptr_t)values;
}

static void entry_encode(const struct step_entry *in, struct arena *arena, Shoal__StepEntry *out)
{
    shoal__step_entry__init(out);
    out->sequence = in->sequence;
    out->lane = in->lane;
    out->slot = in->slot;
    out->position = in->position;
    out->n_tokens = in->token_count;
    out->tokens = array(in->tokens);
    out->generated_begin = in->generated_begin;
    out->block_begin = in->block_begin;
    out->n_blocks = in->block_count;
    out->blocks = array(in->blocks);
    out->wants = in->wants;
    out->sampling = arena_new(arena, Shoal__Sampling);
    shoal__sampling__init(out->sampling);
    out->sampling->temperature = in->sampling.temperature;
    out->sampling->top_p = in->sampling.top_p;
    out->sampling->min_p = in->sampling.min_p;
    out->sampling->top_k = in->sampling.top_k;
    out->sampling->choice = in->sampling.choice;
    out->sampling->seed = in->sampling.seed;
}

void codec_step_encode(const struct step *in, struct arena *arena, Shoal__Step *out)
{
    shoal__step__init(out);
    out->epoch = in->epoch;
    out->number = in->number;
    out->attempt = in->attempt;
    out->n_entries = in->entry_count;
    out->entries =
        (Shoal__StepEntry **)codec_list(arena, in->entry_count, sizeof(Shoal__StepEntry));
    for (uint32_t i = 0; i < in->entry_count; i++) {
        entry_encode(&in->entries[i], arena, out->entries[i]);
    }
}

static bool sampling_decode(const Shoal__Sampling *in, struct sampling_params *out,
                            struct error *err)
{
    if (in == NULL) {
        return error_set(err, ERROR_INPUT, "sampling: missing");
    }
    if (!codec_check_amount("sampling.temperature", (double)in->temperature, err) ||
        !codec_check_amount("sampling.top_p", (double)in->top_p, err) ||
        !codec_check_amount("sampling.min_p", (double)in->min_p, err)) {
        return false;
    }
    *out = (struct sampling_params){.temperature = in->temperature,
                                    .top_p = in->top_p,
                                    .min_p = in->min_p,
                                    .top_k = in->top_k,
                                    .choice = in->choice,
                                    .seed = in->seed};
    return true;
}

static bool entry_decode(const Shoal__StepEntry *in, struct step_entry *out, struct error *err)
{
    if (!codec_check_count("tokens", in->n_tokens, CODEC_ROWS_MAX, err) ||
        !codec_check_count("position + tokens", (uint64_t)in->position + in->n_tokens, UINT32_MAX,
                           err) ||
        !codec_check_count("blocks", in->n_blocks, CODEC_ROWS_MAX, err) ||
        !codec_check_count("block_begin + blocks", (uint64_t)in->block_begin + in->n_blocks,
                           UINT32_MAX, err)) {
        return false;
    }
    if ((in->wants & ~WANTS_ALL) != 0) {
        return error_set(err, ERROR_INPUT, "wants: unknown bits in %u", in->wants);
    }
    *out = (struct step_entry){.sequence = in->sequence,
                               .lane = in->lane,
                               .slot = in->slot,
                               .position = in->position,
                               .token_count = (uint32_t)in->n_tokens,
                               .tokens = in->tokens,
                               .generated_begin = in->generated_begin,
                               .block_begin = in->block_begin,
                               .block_count = (uint32_t)in->n_blocks,
                               .blocks = in->blocks,
                               .wants = in->wants};
    return sampling_decode(in->sampling, &out->sampling, err);
}

bool codec_step_decode(const Shoal__Step *in, struct arena *arena, struct step *out,
                       struct error *err)
{
    uint64_t rows = 0;

    if (!codec_check_count("entries", in->n_entries, CODEC_ENTRIES_MAX, err)) {
        return false;
    }
    *out = (struct step){.epoch = in->epoch,
                         .number = in->number,
                         .attempt = in->attempt,
                         .entry_count = (uint32_t)in->n_entries};
    out->entries = arena_new_array(arena, struct step_entry, in->n_entries);
    for (size_t i = 0; i < in->n_entries; i++) {
        if (!entry_decode(in->entries[i], &out->entries[i], err)) {
            return error_wrap(err, "entries[%zu]", i);
        }
        rows += in->entries[i]->n_tokens;
    }
    return codec_check_count("tokens of all entries", rows, CODEC_ROWS_MAX, err);
}

static Shoal__Rows **rows_encode(const struct step_rows *in, uint32_t count, struct arena *arena)
{
    Shoal__Rows **out = (Shoal__Rows **)codec_list(arena, count, sizeof(Shoal__Rows));

    for (uint32_t i = 0; i < count; i++) {
        shoal__rows__init(out[i]);
        out[i]->entry = in[i].entry;
        out[i]->row_begin = in[i].row_begin;
        out[i]->row_count = in[i].row_count;
        out[i]->columns = in[i].columns;
    }
    return out;
}

static void routing_encode(const struct step_result *in, struct arena *arena,
                           Shoal__StepResult *out)
{
    uint32_t count = in->routing_count;

    out->n_routing_entry = count;
    out->n_routing_row = count;
    out->n_routing_layer = count;
    out->n_routing_expert_begin = count;
    out->routing_entry = arena_new_array(arena, uint32_t, count);
    out->routing_row = arena_new_array(arena, uint32_t, count);
    out->routing_layer = arena_new_array(arena, uint32_t, count);
    out->routing_expert_begin = arena_new_array(arena, uint32_t, count);
    for (uint32_t i = 0; i < count; i++) {
        out->routing_entry[i] = in->routing[i].entry;
        out->routing_row[i] = in->routing[i].row;
        out->routing_layer[i] = in->routing[i].layer;
        out->routing_expert_begin[i] = in->routing[i].expert_begin;
    }
    out->chosen_count = in->chosen_count;
    out->n_experts = (size_t)count * in->chosen_count;
    out->experts = array(in->experts);
    out->n_expert_weights = out->n_experts;
    out->expert_weights = (float *)(uintptr_t)in->expert_weights;
}

void codec_result_encode(const struct step_result *in, struct arena *arena, Shoal__StepResult *out)
{
    shoal__step_result__init(out);
    out->epoch = in->epoch;
    out->step = in->step;
    out->attempt = in->attempt;
    out->worker = in->worker;
    out->begin_ns = in->begin_ns;
    out->end_ns = in->end_ns;
    out->wait_ns = in->wait_ns;
    out->row_count = in->row_count;
    out->n_samples = in->sample_count;
    out->samples = (Shoal__Sample **)codec_list(arena, in->sample_count, sizeof(Shoal__Sample));
    for (uint32_t i = 0; i < in->sample_count; i++) {
        shoal__sample__init(out->samples[i]);
        out->samples[i]->entry = in->samples[i].entry;
        out->samples[i]->token = in->samples[i].token;
    }
    out->n_logits = in->logits_count;
    out->logits = rows_encode(in->logits, in->logits_count, arena);
    out->n_hidden = in->hidden_count;
    out->hidden = rows_encode(in->hidden, in->hidden_count, arena);
    routing_encode(in, arena, out);
}

static bool rows_decode(Shoal__Rows **in, size_t count, struct arena *arena, struct step_rows **out,
                        struct error *err)
{
    *out = arena_new_array(arena, struct step_rows, count);
    for (size_t i = 0; i < count; i++) {
        if (!codec_check_count("row_count", in[i]->row_count, CODEC_ROWS_MAX, err) ||
            !codec_check_count("columns", in[i]->columns, CODEC_ROWS_MAX, err)) {
            return false;
        }
        (*out)[i] = (struct step_rows){.entry = in[i]->entry,
                                       .row_begin = in[i]->row_begin,
                                       .row_count = in[i]->row_count,
                                       .columns = in[i]->columns};
    }
    return true;
}

static bool routing_decode(const Shoal__StepResult *in, struct arena *arena,
                           struct step_result *out, struct error *err)
{
    size_t count = in->n_routing_entry;

    if (in->n_routing_row != count || in->n_routing_layer != count ||
        in->n_routing_expert_begin != count) {
        return error_set(err, ERROR_INPUT, "routing: columns of %zu, %zu, %zu and %zu values",
                         count, in->n_routing_row, in->n_routing_layer, in->n_routing_expert_begin);
    }
    if (in->n_expert_weights != in->n_experts) {
        return error_set(err, ERROR_INPUT, "expert_weights: %zu values for %zu experts",
                         in->n_expert_weights, in->n_experts);
    }
    out->routing_count = (uint32_t)count;
    out->routing = arena_new_array(arena, struct step_routing, count);
    for (size_t i = 0; i < count; i++) {
        if ((uint64_t)in->routing_expert_begin[i] + in->chosen_count > in->n_experts) {
            return error_set(err, ERROR_INPUT, "routing_expert_begin[%zu]: %u + %u of %zu experts",
                             i, in->routing_expert_begin[i], in->chosen_count, in->n_experts);
        }
        out->routing[i] = (struct step_routing){.entry = in->routing_entry[i],
                                                .row = in->routing_row[i],
                                                .layer = in->routing_layer[i],
                                                .expert_begin = in->routing_expert_begin[i]};
    }
    out->chosen_count = in->chosen_count;
    out->experts = in->experts;
    out->expert_weights = in->expert_weights;
    return true;
}

bool codec_result_decode(const Shoal__StepResult *in, struct arena *arena, struct step_result *out,
                         struct error *err)
{
    if (!codec_check_count("samples", in->n_samples, CODEC_ENTRIES_MAX, err) ||
        !codec_check_count("logits", in->n_logits, CODEC_ENTRIES_MAX, err) ||
        !codec_check_count("hidden", in->n_hidden, CODEC_ENTRIES_MAX, err)) {
        return false;
    }
    *out = (struct step_result){.epoch = in->epoch,
                                .step = in->step,
                                .attempt = in->attempt,
                                .worker = in->worker,
                                .begin_ns = in->begin_ns,
                                .end_ns = in->end_ns,
                                .wait_ns = in->wait_ns,
                                .row_count = in->row_count,
                                .sample_count = (uint32_t)in->n_samples,
                                .logits_count = (uint32_t)in->n_logits,
                                .hidden_count = (uint32_t)in->n_hidden};
    out->samples = arena_new_array(arena, struct step_sample, in->n_samples);
    for (size_t i = 0; i < in->n_samples; i++) {
        out->samples[i].entry = in->samples[i]->entry;
        out->samples[i].token = in->samples[i]->token;
    }
    return rows_decode(in->logits, in->n_logits, arena, &out->logits, err) &&
           rows_decode(in->hidden, in->n_hidden, arena, &out->hidden, err) &&
           routing_decode(in, arena, out, err);
}
