/* sequences.c - between the scheduler's sequences and those who wait for their tokens.
 *
 * The scheduler knows numbers only; here each number has a sink. Results of workers are split into
 * what belongs to sequences (logits, hidden states, routing: handed on before the scheduler may
 * forget the step) and what the scheduler needs. Sinks queue and return.
 */
#include "coordinator/cluster/cluster_internal.h"

#include "common/base/log.h"
#include "common/base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

static struct sequence **sequence_find(struct cluster *cluster, seq_id id)
{
    struct sequence **at = &cluster->sequences[id % SEQUENCE_BUCKETS];

    while (*at != NULL && (*at)->id != id) {
        at = &(*at)->next;
    }
    return at;
}

/* --- submit --- */

/* Between two epochs requests wait for the next one. */
static bool serving_check(const struct cluster *cluster, struct error *err)
{
    if (cluster->draining) {
        return error_set(err, ERROR_PEER, "the cluster is draining: no new sequences");
    }
    if (cluster->scheduler == NULL) {
        return error_set(err, ERROR_PEER, "the cluster is not serving: %s%s%s",
                         cluster_state_name(cluster->state),
                         cluster->problem[0] != '\0' ? ": " : "", cluster->problem);
    }
    for (uint32_t i = 0; i < cluster->member_count; i++) {
        const struct member *member = &cluster->members[i];

        if (member->seated && member->leaving && member->needed) {
            return error_set(err, ERROR_PEER,
                             "worker %u (%s) is leaving the cluster, and the others cannot hold "
                             "the model without it",
                             member->id, member->host);
        }
    }
    return true;
}

bool sequences_submit(struct cluster *cluster, const struct cluster_request *request, seq_id *out,
                      int64_t now_ns, struct error *err)
{
    struct scheduler_request asked = {.sequence = cluster->next_sequence,
                                      .prompt = request->prompt,
                                      .prompt_count = request->prompt_count,
                                      .tokens_max = request->tokens_max,
                                      .ignore_eos = request->ignore_eos,
                                      .wants = request->wants,
                                      .sampling = request->sampling,
                                      .request_class = request->request_class};
    struct sequence *sequence;

    if (!serving_check(cluster, err)) {
        return false;
    }
    if ((request->wants & WANT_DRAFT_LOGITS) != 0 && cluster->placement != NULL &&
        cluster->placement->draft_layer_count == 0) {
        return error_set(err, ERROR_USAGE, "no worker holds a draft layer");
    }
    for (uint32_t i = 0; i < request->prompt_count; i++) {
        if (request->prompt[i] >= cluster->config.catalog->arch.vocab) {
            return error_set(err, ERROR_USAGE, "prompt token %u is %u, the vocabulary has %u", i,
                             request->prompt[i], cluster->config.catalog->arch.vocab);
        }
    }
    if (request->sampling.bias_count > 0) {
        const struct token_bias *last =
            &request->sampling.biases[request->sampling.bias_count - 1]; /* tokens rise */

        if (last->token >= cluster->config.catalog->arch.vocab) {
            return error_set(err, ERROR_USAGE, "a bias is for token %u, the vocabulary has %u",
                             last->token, cluster->config.catalog->arch.vocab);
        }
    }
    if (!scheduler_submit(cluster->scheduler, &asked, now_ns, err)) {
        return false;
    }
    sequence = mem_new(struct sequence);
    *sequence = (struct sequence){
        .id = cluster->next_sequence++, .sink = request->sink, .context = request->context};
    *sequence_find(cluster, sequence->id) = sequence;
    token_rate_open(&cluster->rate, now_ns);
    *out = sequence->id;
    return true;
}

/* --- outcomes --- */

static void finish_deliver(struct cluster *cluster, const struct outcome *outcome,
                           const char *problem, int64_t now_ns)
{
    struct sequence **at = sequence_find(cluster, outcome->sequence);
    struct sequence *sequence = *at;
    struct cluster_event event = {.kind = CLUSTER_FINISHED,
                                  .reason = outcome->reason,
                                  .cached_tokens = outcome->cached_tokens};

    if (sequence == NULL) {
        return;
    }
    if (outcome->reason == FINISH_FAILED) {
        event.problem = problem != NULL ? problem : "the cluster could not finish it";
    }
    *at = sequence->next;
    token_rate_close(&cluster->rate, now_ns);
    sequence->sink(sequence->context, &event); /* its context may be gone from here on */
    mem_free(sequence->marks);
    mem_free(sequence);
}

void sequences_deliver(struct cluster *cluster, const char *problem, int64_t now_ns)
{
    struct outcome outcome;

    while (scheduler_outcome(cluster->scheduler, &outcome)) {
        cluster->status_stale = true;
        if (outcome.kind == OUTCOME_FINISHED) {
            finish_deliver(cluster, &outcome, problem, now_ns);
        } else {
            struct sequence *sequence = *sequence_find(cluster, outcome.sequence);
            struct cluster_event event = {
                .kind = CLUSTER_TOKEN, .token = outcome.token, .received_ns = now_ns};

            token_rate_count(&cluster->rate, now_ns);
            if (sequence != NULL) {
                sequence->sink(sequence->context, &event);
            }
        }
    }
}

/* --- results --- */

/* The sink of an entry of a step in flight, or NULL: nobody waits for it any more. */
static struct sequence *entry_sequence(struct cluster *cluster, uint64_t step, uint32_t entry,
                                       uint32_t *position)
{
    seq_id id;

    if (!scheduler_step_entry(cluster->scheduler, step, entry, &id, position)) {
        return NULL;
    }
    return *sequence_find(cluster, id);
}

static struct row_mark *mark_of(struct sequence *sequence, enum cluster_event_kind kind,
                                uint32_t place)
{
    for (uint32_t i = 0; i < sequence->mark_count; i++) {
        if (sequence->marks[i].kind == kind && sequence->marks[i].place == place) {
            return &sequence->marks[i];
        }
    }
    sequence->marks =
        mem_resize(sequence->marks, sequence->mark_count + 1, sizeof(*sequence->marks));
    sequence->marks[sequence->mark_count] = (struct row_mark){.kind = kind, .place = place};
    return &sequence->marks[sequence->mark_count++];
}

/* Hands on those of the event's rows that the sequence has not had: a step that some workers had
 * answered when another was lost is computed again. */
static void fresh_rows_deliver(struct sequence *sequence, struct cluster_event event)
{
    uint32_t place = event.kind == CLUSTER_ROUTING ? event.layer : event.boundary;
    struct row_mark *mark = mark_of(sequence, event.kind, place);
    uint32_t end = event.position + event.row_count;
    uint32_t had = mark->next > event.position ? mark->next - event.position : 0;

    if (end <= mark->next) {
        return;
    }
    mark->next = end;
    event.position += had;
    event.row_count -= had;
    if (event.kind == CLUSTER_ROUTING) {
        event.experts += (size_t)had * event.chosen_count;
        event.expert_weights += (size_t)had * event.chosen_count;
    } else {
        event.values += (size_t)had * event.columns;
    }
    sequence->sink(sequence->context, &event);
}

static void rows_deliver(struct cluster *cluster, uint64_t step, const struct step_rows *rows,
                         struct cluster_event event)
{
    uint32_t position;
    struct sequence *sequence = entry_sequence(cluster, step, rows->entry, &position);

    if (sequence != NULL) {
        event.position = position + rows->row_begin;
        event.row_count = rows->row_count;
        event.columns = rows->columns;
        event.values = rows->values;
        fresh_rows_deliver(sequence, event);
    }
}

/* Whether rows of the same entry came before at this index: stage 0 answers the embeddings first,
 * then its output. */
static bool rows_are_second(const struct step_result *result, uint32_t index)
{
    const struct step_rows *rows = &result->hidden[index];

    for (uint32_t i = 0; i < index; i++) {
        if (result->hidden[i].entry == rows->entry &&
            result->hidden[i].row_begin == rows->row_begin) {
            return true;
        }
    }
    return false;
}

static void hidden_deliver(struct cluster *cluster, const struct member *member,
                           const struct step_result *result)
{
    const struct placement_stage *stage = &cluster->placement->stages[member->seat.stage];

    for (uint32_t i = 0; i < result->hidden_count; i++) {
        bool embeddings = member->seat.stage == 0 && !rows_are_second(result, i);

        rows_deliver(cluster, result->step, &result->hidden[i],
                     (struct cluster_event){.kind = CLUSTER_HIDDEN,
                                            .boundary = embeddings ? 0 : stage->layer_end});
    }
}

/* Rows of one entry and layer that lie side by side become one event. */
static uint32_t routing_run_length(const struct step_result *result, uint32_t begin)
{
    const struct step_routing *first = &result->routing[begin];
    uint32_t length = 1;

    while (begin + length < result->routing_count) {
        const struct step_routing *next = &result->routing[begin + length];

        if (next->entry != first->entry || next->layer != first->layer ||
            next->row != first->row + length ||
            next->expert_begin != first->expert_begin + length * result->chosen_count) {
            break;
        }
        length++;
    }
    return length;
}

static void routing_deliver(struct cluster *cluster, const struct step_result *result)
{
    uint32_t length;

    for (uint32_t i = 0; i < result->routing_count; i += length) {
        const struct step_routing *first = &result->routing[i];
        uint32_t position;
        struct sequence *sequence = entry_sequence(cluster, result->step, first->entry, &position);

        length = routing_run_length(result, i);
        if (sequence != NULL) {
            fresh_rows_deliver(sequence,
                               (struct cluster_event){
                                   .kind = CLUSTER_ROUTING,
                                   .position = position + first->row,
                                   .row_count = length,
                                   .layer = first->layer,
                                   .chosen_count = result->chosen_count,
                                   .experts = result->experts + first->expert_begin,
                                   .expert_weights = result->expert_weights + first->expert_begin});
        }
    }
}

static void logprobs_deliver(struct cluster *cluster, const struct step_result *result)
{
    for (uint32_t i = 0; i < result->logprobs_count; i++) {
        const struct step_logprobs *logprobs = &result->logprobs[i];
        uint32_t position;
        struct sequence *sequence =
            entry_sequence(cluster, result->step, logprobs->entry, &position);

        if (sequence != NULL) {
            struct cluster_event event = {.kind = CLUSTER_LOGPROBS,
                                          .position = position + logprobs->row + 1,
                                          .logprobs = logprobs};

            sequence->sink(sequence->context, &event);
        }
    }
}

static bool logprobs_check(const struct cluster *cluster, const struct step_result *result,
                           struct error *err)
{
    uint32_t vocab = cluster->config.catalog->arch.vocab;

    for (uint32_t i = 0; i < result->logprobs_count; i++) {
        const struct step_logprobs *logprobs = &result->logprobs[i];
        uint32_t token = logprobs->token;
        bool numbers = !isnan(logprobs->logprob);

        for (uint32_t t = 0; t < logprobs->top_count; t++) {
            token = logprobs->top_tokens[t] >= vocab ? logprobs->top_tokens[t] : token;
            numbers &= !isnan(logprobs->top_logprobs[t]);
        }
        if (token >= vocab || !numbers) {
            return error_set(err, ERROR_PEER, "log-probabilities of token %u of %u%s", token, vocab,
                             numbers ? "" : ", one is no number");
        }
    }
    return true;
}

static bool logits_check(const struct step_rows *rows, uint32_t count, uint32_t vocab,
                         struct error *err)
{
    for (uint32_t i = 0; i < count; i++) {
        if (rows[i].columns != vocab) {
            return error_set(err, ERROR_PEER, "logits of %u columns, the vocabulary has %u",
                             rows[i].columns, vocab);
        }
    }
    return true;
}

static bool columns_check(const struct cluster *cluster, const struct step_result *result,
                          struct error *err)
{
    const struct arch *arch = &cluster->config.catalog->arch;

    if (!logits_check(result->logits, result->logits_count, arch->vocab, err) ||
        !logits_check(result->draft_logits, result->draft_logits_count, arch->vocab, err)) {
        return false;
    }
    for (uint32_t i = 0; i < result->hidden_count; i++) {
        if (result->hidden[i].columns != arch->hidden) {
            return error_set(err, ERROR_PEER, "hidden states of %u columns, the model has %u",
                             result->hidden[i].columns, arch->hidden);
        }
    }
    return true;
}

static void span_deliver(const struct cluster *cluster, const struct member *member,
                         const struct step_result *result)
{
    struct cluster_step_span span = {.worker = member->id,
                                     .stage = member->seat.stage,
                                     .member = member->seat.member,
                                     .step = result->step,
                                     .rows = result->row_count,
                                     .begin_ns = result->begin_ns + member->clock_lag_ns,
                                     .end_ns = result->end_ns + member->clock_lag_ns,
                                     .wait_ns = result->wait_ns};

    if (cluster->config.step_sink != NULL) {
        cluster->config.step_sink(cluster->config.step_context, &span);
    }
}

static void result_count(struct cluster *cluster, struct member *member,
                         const struct step_result *result, int64_t compute_ns)
{
    if (member->next_step <= result->step) {
        member->next_step = result->step + 1;
    }
    member->steps++;
    member->rows += result->row_count;
    member->busy_ns += compute_ns;
    if (cluster->step_log != NULL) {
        (void)fprintf(cluster->step_log, "%u,%u,%" PRIu64 ",%u,%" PRId64 ",%" PRId64 "\n",
                      member->id, member->seat.stage, result->step, result->row_count,
                      result->begin_ns, result->end_ns);
    }
}

void sequences_handle_result(struct cluster *cluster, struct member *member,
                             const struct step_result *result, int64_t now_ns)
{
    int64_t compute_ns = result->end_ns - result->begin_ns - result->wait_ns;
    struct step_report report = {.step = result->step,
                                 .attempt = result->attempt,
                                 .stage = member->seat.stage,
                                 .member = member->seat.member,
                                 .compute_ns = compute_ns > 0 ? compute_ns : 0,
                                 .sample_count = result->sample_count,
                                 .samples = result->samples,
                                 .proposal_count = result->proposal_count,
                                 .proposals = result->proposals};
    struct error err;

    if (cluster->scheduler == NULL || result->epoch != cluster->epoch || !member->seated) {
        return; /* of an epoch that is over */
    }
    membership_clock(member, result->end_ns, now_ns);
    if (!scheduler_awaits(cluster->scheduler, &report) &&
        scheduler_report(cluster->scheduler, &report, now_ns, &err)) {
        return; /* late: it is only counted */
    }
    result_count(cluster, member, result, report.compute_ns);
    span_deliver(cluster, member, result);
    if (columns_check(cluster, result, &err) && logprobs_check(cluster, result, &err)) {
        for (uint32_t i = 0; i < result->logits_count; i++) {
            rows_deliver(cluster, result->step, &result->logits[i],
                         (struct cluster_event){.kind = CLUSTER_LOGITS});
        }
        for (uint32_t i = 0; i < result->draft_logits_count; i++) {
            rows_deliver(cluster, result->step, &result->draft_logits[i],
                         (struct cluster_event){.kind = CLUSTER_DRAFT_LOGITS});
        }
        logprobs_deliver(cluster, result);
        hidden_deliver(cluster, member, result);
        routing_deliver(cluster, result);
        if (scheduler_report(cluster->scheduler, &report, now_ns, &err)) {
            if (report.stage + 1 == cluster->placement->stage_count) {
                cluster->epoch_failures = 0;
            }
            sequences_deliver(cluster, NULL, now_ns);
            return;
        }
    }
    {
        char name[128], why[620];

        (void)snprintf(why, sizeof(why), "%s answered step %" PRIu64 " wrongly: %s",
                       membership_name(member, name, sizeof(name)), result->step, err.message);
        cluster->epoch_failures++;
        epoch_abandon(cluster, why, now_ns);
    }
}
