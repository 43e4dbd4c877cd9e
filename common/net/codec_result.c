/* codec_result.c - what workers answer to steps.
 *
 * Routed experts and likely tokens are packed arrays that the decoded message points at where
 * protobuf-c put them. Rows of floats are announced here and travel behind the message
 * (control_wire.c).
 */
#include "common/net/codec.h"

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

static void proposals_encode(const struct step_result *in, struct arena *arena,
                             Shoal__StepResult *out)
{
    out->n_proposals = in->proposal_count;
    out->proposals =
        (Shoal__Proposal **)codec_list(arena, in->proposal_count, sizeof(Shoal__Proposal));
    for (uint32_t i = 0; i < in->proposal_count; i++) {
        shoal__proposal__init(out->proposals[i]);
        out->proposals[i]->entry = in->proposals[i].entry;
        out->proposals[i]->n_tokens = in->proposals[i].count;
        out->proposals[i]->tokens = codec_array(in->proposals[i].tokens);
    }
}

static void logprobs_encode(const struct step_result *in, struct arena *arena,
                            Shoal__StepResult *out)
{
    out->n_logprobs = in->logprobs_count;
    out->logprobs =
        (Shoal__Logprobs **)codec_list(arena, in->logprobs_count, sizeof(Shoal__Logprobs));
    for (uint32_t i = 0; i < in->logprobs_count; i++) {
        const struct step_logprobs *from = &in->logprobs[i];
        Shoal__Logprobs *to = out->logprobs[i];

        shoal__logprobs__init(to);
        to->entry = from->entry;
        to->row = from->row;
        to->token = from->token;
        to->logprob = from->logprob;
        to->rank = from->rank;
        to->n_top_tokens = from->top_count;
        to->top_tokens = codec_array(from->top_tokens);
        to->n_top_logprobs = from->top_count;
        to->top_logprobs = codec_floats(from->top_logprobs);
    }
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
    out->experts = codec_array(in->experts);
    out->n_expert_weights = out->n_experts;
    out->expert_weights = codec_floats(in->expert_weights);
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
    out->read_bytes = in->read_bytes;
    out->int8_operations = in->int8_operations;
    out->f32_operations = in->f32_operations;
    out->n_samples = in->sample_count;
    out->samples = (Shoal__Sample **)codec_list(arena, in->sample_count, sizeof(Shoal__Sample));
    for (uint32_t i = 0; i < in->sample_count; i++) {
        shoal__sample__init(out->samples[i]);
        out->samples[i]->entry = in->samples[i].entry;
        out->samples[i]->token = in->samples[i].token;
        out->samples[i]->index = in->samples[i].index;
    }
    proposals_encode(in, arena, out);
    logprobs_encode(in, arena, out);
    out->n_logits = in->logits_count;
    out->logits = rows_encode(in->logits, in->logits_count, arena);
    out->n_hidden = in->hidden_count;
    out->hidden = rows_encode(in->hidden, in->hidden_count, arena);
    out->n_draft_logits = in->draft_logits_count;
    out->draft_logits = rows_encode(in->draft_logits, in->draft_logits_count, arena);
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

static bool proposals_decode(const Shoal__StepResult *in, struct arena *arena,
                             struct step_result *out, struct error *err)
{
    if (!codec_check_count("proposals", in->n_proposals, CODEC_ENTRIES_MAX, err)) {
        return false;
    }
    out->proposal_count = (uint32_t)in->n_proposals;
    out->proposals = arena_new_array(arena, struct step_proposal, in->n_proposals);
    for (size_t i = 0; i < in->n_proposals; i++) {
        const Shoal__Proposal *from = in->proposals[i];

        if (!codec_check_count("proposals.tokens", from->n_tokens, CODEC_ENTRIES_MAX, err)) {
            return false;
        }
        out->proposals[i] = (struct step_proposal){
            .entry = from->entry, .count = (uint32_t)from->n_tokens, .tokens = from->tokens};
    }
    return true;
}

static bool logprobs_decode(const Shoal__StepResult *in, struct arena *arena,
                            struct step_result *out, struct error *err)
{
    if (!codec_check_count("logprobs", in->n_logprobs, CODEC_ROWS_MAX, err)) {
        return false;
    }
    out->logprobs_count = (uint32_t)in->n_logprobs;
    out->logprobs = arena_new_array(arena, struct step_logprobs, in->n_logprobs);
    for (size_t i = 0; i < in->n_logprobs; i++) {
        const Shoal__Logprobs *from = in->logprobs[i];

        if (from->n_top_tokens != from->n_top_logprobs || from->n_top_tokens > STEP_LOGPROBS_MAX) {
            return error_set(err, ERROR_INPUT, "logprobs[%zu]: %zu values for %zu tokens", i,
                             from->n_top_logprobs, from->n_top_tokens);
        }
        out->logprobs[i] = (struct step_logprobs){.entry = from->entry,
                                                  .row = from->row,
                                                  .token = from->token,
                                                  .logprob = from->logprob,
                                                  .rank = from->rank,
                                                  .top_count = (uint32_t)from->n_top_tokens,
                                                  .top_tokens = from->top_tokens,
                                                  .top_logprobs = from->top_logprobs};
    }
    return true;
}

bool codec_result_decode(const Shoal__StepResult *in, struct arena *arena, struct step_result *out,
                         struct error *err)
{
    if (!codec_check_count("samples", in->n_samples, CODEC_ROWS_MAX, err) ||
        !codec_check_count("logits", in->n_logits, CODEC_ENTRIES_MAX, err) ||
        !codec_check_count("hidden", in->n_hidden, CODEC_ENTRIES_MAX, err) ||
        !codec_check_count("draft_logits", in->n_draft_logits, CODEC_ENTRIES_MAX, err)) {
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
                                .read_bytes = in->read_bytes,
                                .int8_operations = in->int8_operations,
                                .f32_operations = in->f32_operations,
                                .sample_count = (uint32_t)in->n_samples,
                                .logits_count = (uint32_t)in->n_logits,
                                .hidden_count = (uint32_t)in->n_hidden,
                                .draft_logits_count = (uint32_t)in->n_draft_logits};
    out->samples = arena_new_array(arena, struct step_sample, in->n_samples);
    for (size_t i = 0; i < in->n_samples; i++) {
        out->samples[i].entry = in->samples[i]->entry;
        out->samples[i].index = in->samples[i]->index;
        out->samples[i].token = in->samples[i]->token;
    }
    return rows_decode(in->logits, in->n_logits, arena, &out->logits, err) &&
           rows_decode(in->hidden, in->n_hidden, arena, &out->hidden, err) &&
           rows_decode(in->draft_logits, in->n_draft_logits, arena, &out->draft_logits, err) &&
           proposals_decode(in, arena, out, err) && logprobs_decode(in, arena, out, err) &&
           routing_decode(in, arena, out, err);
}
