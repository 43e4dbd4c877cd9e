/* scheduler_request.c - what clients want: sequences come, and some are cancelled. */
#include "coordinator/engine/scheduler_internal.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <inttypes.h>
#include <string.h>

#define RETRY_NEW_NS 1000000000.0 /* while no request has finished */
#define RETRY_MAX_NS 3600e9

/* What a request takes, cut to the context. */
struct demand {
    uint32_t tokens_max;
    uint32_t block_need;
};

static bool demand_of(const struct scheduler *scheduler, const struct scheduler_request *request,
                      struct demand *out, struct error *err)
{
    const struct scheduler_config *config = &scheduler->config;
    uint32_t context = config->context_tokens_max;
    uint32_t least = request->tokens_max > 0 ? 1 : 0;
    uint32_t tokens_max = request->tokens_max;
    uint64_t tokens, blocks;

    if (request->prompt_count == 0 || (uint64_t)request->prompt_count + least > context) {
        return error_set(err, ERROR_USAGE, "the prompt has %u tokens%s, the context holds %u",
                         request->prompt_count, least > 0 ? " and wants an answer" : "", context);
    }
    if (tokens_max > context - request->prompt_count) {
        tokens_max = context - request->prompt_count;
    }
    tokens = (uint64_t)request->prompt_count + tokens_max;
    blocks = (tokens + PLAN_BLOCK_TOKENS - 1) / PLAN_BLOCK_TOKENS;
    if (blocks > config->kv_block_count) {
        return error_set(err, ERROR_USAGE,
                         "prompt of %u tokens and up to %u new ones need %" PRIu64
                         " KV blocks of %u tokens, there are %u",
                         request->prompt_count, tokens_max, blocks, PLAN_BLOCK_TOKENS,
                         config->kv_block_count);
    }
    *out = (struct demand){.tokens_max = tokens_max, .block_need = (uint32_t)blocks};
    return true;
}

/* What a sequence owns; all of it or nothing. */
static bool memory_take(struct sequence *sequence, const struct scheduler_request *request,
                        uint32_t block_need, struct error *err)
{
    uint32_t bias_count = request->sampling.bias_count;

    sequence->tokens = mem_try_array(uint32_t, request->prompt_count, err);
    if (sequence->tokens != NULL) {
        sequence->blocks = mem_try_array(uint32_t, block_need, err);
    }
    if (sequence->blocks != NULL) {
        sequence->block_hashes =
            mem_try_array(uint64_t, request->prompt_count / PLAN_BLOCK_TOKENS, err);
    }
    if (sequence->block_hashes != NULL) {
        sequence->biases = mem_try_array(struct token_bias, bias_count, err);
    }
    if (sequence->biases == NULL) {
        mem_free(sequence->tokens);
        mem_free(sequence->blocks);
        mem_free(sequence->block_hashes);
        return error_wrap(err, "prompt");
    }
    return true;
}

static void prompt_hash(struct sequence *sequence)
{
    uint64_t hash = 0;

    for (uint32_t i = 0; i < sequence->prompt_count / PLAN_BLOCK_TOKENS; i++) {
        hash = prefix_hash(hash, &sequence->tokens[i * PLAN_BLOCK_TOKENS]);
        sequence->block_hashes[i] = hash;
    }
}

static void request_copy(struct sequence *sequence, const struct scheduler_request *request)
{
    memcpy(sequence->tokens, request->prompt, request->prompt_count * sizeof(*sequence->tokens));
    sequence->token_capacity = request->prompt_count;
    sequence->token_count = request->prompt_count;
    sequence->prompt_count = request->prompt_count;
    sequence->ignore_eos = request->ignore_eos;
    sequence->wants = request->wants & ~(uint32_t)WANT_SAMPLE;
    sequence->request_class = request->request_class;
    sequence->sampling = request->sampling;
    if (request->sampling.bias_count > 0) {
        memcpy(sequence->biases, request->sampling.biases,
               request->sampling.bias_count * sizeof(*sequence->biases));
    }
    sequence->sampling.biases = sequence->biases;
}

bool scheduler_submit(struct scheduler *scheduler, const struct scheduler_request *request,
                      int64_t now_ns, struct error *err)
{
    struct sequence owned = {.id = request->sequence};
    struct demand demand;
    struct sequence *sequence;
    uint32_t index;

    if (!demand_of(scheduler, request, &demand, err)) {
        return false;
    }
    if (sequence_pool_find(&scheduler->pool, request->sequence) != SEQUENCE_NONE) {
        return error_set(err, ERROR_USAGE, "sequence %" PRIu64 " is in use", request->sequence);
    }
    if (scheduler_waiting_count(scheduler) >= scheduler->config.queue_max) {
        return error_set(err, ERROR_LIMIT, "the queue is full: %u requests are waiting",
                         scheduler_waiting_count(scheduler));
    }
    if (!memory_take(&owned, request, demand.block_need, err)) {
        return false;
    }
    scheduler->now_ns = now_ns;
    index = sequence_pool_add(&scheduler->pool, request->sequence);
    sequence = &scheduler->pool.sequences[index];
    *sequence = owned;
    request_copy(sequence, request);
    if (scheduler->config.prefix_cache) {
        prompt_hash(sequence);
    }
    sequence->state = SEQUENCE_WAITING;
    sequence->tokens_max = demand.tokens_max;
    sequence->block_need = demand.block_need;
    sequence->arrival = scheduler->arrival_next++;
    sequence->progress_ns = now_ns;
    sequence_list_insert(&scheduler->pool, &scheduler->waiting[sequence->request_class], index);
    return true;
}

void scheduler_cancel(struct scheduler *scheduler, seq_id id, int64_t now_ns)
{
    uint32_t index = sequence_pool_find(&scheduler->pool, id);
    struct sequence *sequence;
    bool waiting;

    scheduler->now_ns = now_ns;
    if (index == SEQUENCE_NONE) {
        return;
    }
    sequence = &scheduler->pool.sequences[index];
    waiting = sequence->state == SEQUENCE_WAITING;
    scheduler_unlist(scheduler, index);
    scheduler_finish(scheduler, index, FINISH_CANCELLED);
    if (waiting) {
        sequence_pool_remove(&scheduler->pool, index);
    } else if (sequence->steps_in_flight == 0) {
        scheduler_release(scheduler, index);
    } else {
        sequence->state = SEQUENCE_LEAVING;
    }
}

int64_t scheduler_retry_after_ns(const struct scheduler *scheduler, int64_t now_ns)
{
    uint32_t waiting = scheduler_waiting_count(scheduler);
    double gap_ns = scheduler->finish_gap_ns > 0 ? scheduler->finish_gap_ns : RETRY_NEW_NS;
    double since_ns = (double)(now_ns - scheduler->finish_ns);
    double left_ns;

    if (waiting < scheduler->config.queue_max) {
        return 0;
    }
    /* Preempted sequences may have filled the queue beyond its bound. */
    left_ns = gap_ns * (waiting - scheduler->config.queue_max + 1);
    if (scheduler->finish_ns != 0 && since_ns < gap_ns) {
        left_ns -= since_ns;
    }
    if (left_ns > RETRY_MAX_NS) {
        left_ns = RETRY_MAX_NS;
    }
    return left_ns > 1 ? (int64_t)left_ns : 1;
}
