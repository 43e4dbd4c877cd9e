/* generation.c - tokens of one sequence on their way to becoming text.
 *
 * The cluster's thread writes tokens into segments and publishes their number; the owner's thread
 * reads up to it. Nothing is locked for a token; the mutex guards only the wake callback, which
 * must not outlive the owner. Decoding, stop strings and the split into thinking and answer run on
 * the owner's thread.
 */
#include "coordinator/api/generation.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "common/text/reasoning.h"
#include "common/text/stop.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/random.h>

#define SEGMENT_TOKENS 256

struct segment {
    uint32_t tokens[SEGMENT_TOKENS];
    int64_t received_ns[SEGMENT_TOKENS];
    struct token_logprobs **logprobs; /* [SEGMENT_TOKENS], owned; NULL: not asked for */
    struct segment *next;
};

struct generation {
    /* Set before the cluster knows it, constant afterwards. */
    struct cluster *cluster;
    const struct tokenizer *tokenizer;
    enum reasoning_mode mode;
    enum special_output special;
    uint32_t prompt_tokens;
    uint64_t seed;
    bool wants_logprobs;
    int64_t start_ns;
    seq_id sequence;

    /* Two owners: whoever started it and the cluster, until FINISHED. */
    atomic_int references;
    pthread_mutex_t wake_lock; /* guards wake, wake_context */
    void (*wake)(void *context);
    void *wake_context;

    /* Written by the cluster's thread, published by the atomics. */
    struct segment *write_segment;
    struct logprob_inbox *inbox; /* NULL: no log-probabilities were asked for */
    bool logprobs_missing;
    atomic_uint published; /* tokens */
    atomic_bool finished;
    enum finish_reason reason;
    char *problem;
    uint32_t cached_tokens;
    int64_t finish_ns;
    _Atomic int64_t first_token_ns;

    /* The owner's thread. */
    struct segment *first_segment;
    struct segment *read_segment;
    uint32_t read_count;
    struct token_list tokens;
    const struct token_logprobs **logprobs; /* [tokens.count], lent by the segments */
    size_t logprobs_capacity;
    uint32_t reasoning_tokens;
    int64_t polled_since_ns;
    struct detokenizer detokenizer;
    struct stop_filter stop;
    struct reasoning reasoning;
    struct buffer text;      /* scratch: decoded */
    struct buffer unstopped; /* scratch: behind the stop filter */
    enum generation_state state;
    bool stopped_by_string;
    bool cancelled;
};

uint64_t generation_random_seed(void)
{
    uint64_t seed = 0;

    if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed)) {
        seed = (uint64_t)clock_monotonic_ns();
    }
    return seed & ((UINT64_C(1) << 53) - 1); /* exact in every JSON reader */
}

static struct segment *make_segment(const struct generation *generation)
{
    struct segment *segment = mem_new(struct segment);

    if (generation->wants_logprobs) {
        segment->logprobs = mem_new_array(struct token_logprobs *, SEGMENT_TOKENS);
    }
    return segment;
}

static void free_segments(struct segment *segment)
{
    while (segment) {
        struct segment *next = segment->next;

        for (size_t i = 0; segment->logprobs && i < SEGMENT_TOKENS; i++) {
            mem_free(segment->logprobs[i]);
        }
        mem_free(segment->logprobs);
        mem_free(segment);
        segment = next;
    }
}

static void release(struct generation *generation)
{
    if (atomic_fetch_sub(&generation->references, 1) != 1) {
        return;
    }
    free_segments(generation->first_segment);
    logprob_inbox_destroy(generation->inbox);
    token_list_deinit(&generation->tokens);
    mem_free(generation->logprobs);
    stop_filter_deinit(&generation->stop);
    reasoning_deinit(&generation->reasoning);
    buffer_deinit(&generation->text);
    buffer_deinit(&generation->unstopped);
    pthread_mutex_destroy(&generation->wake_lock);
    mem_free(generation->problem);
    mem_free(generation);
}

/* --- the cluster's thread --- */

static void wake_owner(struct generation *generation)
{
    pthread_mutex_lock(&generation->wake_lock);
    if (generation->wake) {
        generation->wake(generation->wake_context);
    }
    pthread_mutex_unlock(&generation->wake_lock);
}

static void publish_token(struct generation *generation, uint32_t token, int64_t received_ns)
{
    unsigned count = atomic_load_explicit(&generation->published, memory_order_relaxed);

    if (count == 0) {
        atomic_store(&generation->first_token_ns, received_ns);
    } else if (count % SEGMENT_TOKENS == 0) {
        generation->write_segment->next = make_segment(generation);
        generation->write_segment = generation->write_segment->next;
    }
    generation->write_segment->tokens[count % SEGMENT_TOKENS] = token;
    generation->write_segment->received_ns[count % SEGMENT_TOKENS] = received_ns;
    if (generation->wants_logprobs) {
        struct token_logprobs *logprobs = logprob_inbox_take(generation->inbox, token);

        generation->write_segment->logprobs[count % SEGMENT_TOKENS] = logprobs;
        generation->logprobs_missing |= logprobs == NULL;
    }
    atomic_store_explicit(&generation->published, count + 1, memory_order_release);
}

static void publish_finish(struct generation *generation, const struct cluster_event *event)
{
    bool good = event->reason == FINISH_STOP || event->reason == FINISH_LENGTH;
    bool missing = generation->inbox && (generation->logprobs_missing ||
                                         !logprob_inbox_prompt_complete(generation->inbox));
    const char *problem = event->problem;

    generation->reason = event->reason;
    generation->cached_tokens = event->cached_tokens;
    if (good && missing) {
        generation->reason = FINISH_FAILED;
        problem = "a worker left out log-probabilities that were asked for";
    }
    generation->problem = problem ? mem_strdup(problem) : NULL;
    generation->finish_ns = clock_monotonic_ns();
    atomic_store_explicit(&generation->finished, true, memory_order_release);
}

static void on_event(void *context, const struct cluster_event *event)
{
    struct generation *generation = context;

    if (event->kind == CLUSTER_LOGPROBS) {
        if (generation->inbox) {
            logprob_inbox_put(generation->inbox, event->position, event->logprobs);
        }
    } else if (event->kind == CLUSTER_TOKEN) {
        publish_token(generation, event->token, event->received_ns);
        wake_owner(generation);
    } else if (event->kind == CLUSTER_FINISHED) {
        publish_finish(generation, event);
        wake_owner(generation);
        release(generation);
    }
}

/* --- the owner's thread --- */

static enum reasoning_state reasoning_begin(enum reasoning_mode mode)
{
    switch (mode) {
    case REASONING_SPLIT:
        return REASONING_START;
    case REASONING_SPLIT_OPEN:
        return REASONING_INSIDE;
    case REASONING_WHOLE:
        break;
    }
    return REASONING_ANSWER;
}

static struct generation *make(const struct generation_config *config)
{
    struct generation *generation = mem_new(struct generation);

    generation->cluster = config->cluster;
    generation->tokenizer = config->tokenizer;
    generation->mode = config->reasoning;
    generation->special = config->special;
    generation->prompt_tokens = config->prompt_count;
    generation->seed = config->sampling.seed;
    generation->start_ns = clock_monotonic_ns();
    generation->wake = config->wake;
    generation->wake_context = config->wake_context;
    generation->state = GENERATION_RUNNING;
    generation->wants_logprobs = config->sampling.logprobs > 0;
    if (generation->wants_logprobs || config->sampling.prompt_logprobs > 0) {
        generation->inbox = logprob_inbox_create(
            config->prompt_count,
            config->sampling.prompt_logprobs > 0 ? LOGPROB_PROMPT_KEEP : LOGPROB_PROMPT_DROP);
    }
    generation->first_segment = make_segment(generation);
    generation->write_segment = generation->first_segment;
    generation->read_segment = generation->first_segment;
    atomic_init(&generation->references, 2);
    pthread_mutex_init(&generation->wake_lock, NULL);
    stop_filter_init(&generation->stop, config->stop, config->stop_count);
    reasoning_init(&generation->reasoning, reasoning_begin(config->reasoning));
    return generation;
}

struct generation *generation_start(const struct generation_config *config, struct error *err)
{
    struct generation *generation = make(config);
    const struct cluster_request request = {
        .prompt = config->prompt,
        .prompt_count = config->prompt_count,
        .tokens_max = config->tokens_max, /* the scheduler cuts it to what the context holds */
        .ignore_eos = config->ignore_eos,
        .sampling = config->sampling,
        .request_class = config->request_class,
        .sink = on_event,
        .context = generation,
    };

    if (!cluster_submit(config->cluster, &request, &generation->sequence, err)) {
        release(generation);
        release(generation);
        return NULL;
    }
    return generation;
}

void generation_destroy(struct generation *generation)
{
    if (!generation) {
        return;
    }
    pthread_mutex_lock(&generation->wake_lock);
    generation->wake = NULL;
    pthread_mutex_unlock(&generation->wake_lock);
    if (!atomic_load(&generation->finished)) {
        cluster_cancel(generation->cluster, generation->sequence);
    }
    release(generation);
}

/* Decoded text → stop filter → thinking and answer. */
static void push_text(struct generation *generation, struct buffer *thinking, struct buffer *answer)
{
    buffer_clear(&generation->unstopped);
    if (generation->text.length &&
        stop_filter_push(&generation->stop, generation->text.data, generation->text.length,
                         &generation->unstopped)) {
        generation->stopped_by_string = true;
    }
    if (generation->unstopped.length) {
        reasoning_push(&generation->reasoning, generation->unstopped.data,
                       generation->unstopped.length, thinking, answer);
    }
    buffer_clear(&generation->text);
}

static void keep_token(struct generation *generation, uint32_t token, uint32_t index)
{
    size_t count = generation->tokens.count;

    token_list_append(&generation->tokens, token);
    if (!generation->wants_logprobs) {
        return;
    }
    if (count == generation->logprobs_capacity) {
        generation->logprobs_capacity = count > 0 ? 2 * count : 16;
        generation->logprobs = mem_resize(generation->logprobs, generation->logprobs_capacity,
                                          sizeof(*generation->logprobs));
    }
    generation->logprobs[count] = generation->read_segment->logprobs[index];
}

static bool is_thinking(const struct generation *generation)
{
    return generation->mode != REASONING_WHOLE && generation->reasoning.state == REASONING_INSIDE;
}

static void take_token(struct generation *generation, struct buffer *thinking,
                       struct buffer *answer)
{
    uint32_t index = generation->read_count % SEGMENT_TOKENS;

    if (index == 0 && generation->read_count > 0) {
        generation->read_segment = generation->read_segment->next;
    }
    uint32_t token = generation->read_segment->tokens[index];
    bool thinking_before = is_thinking(generation);

    generation->read_count++;
    keep_token(generation, token, index);
    if (generation->polled_since_ns == 0) {
        generation->polled_since_ns = generation->read_segment->received_ns[index];
    }
    if (generation->tokenizer == NULL) {
        return;
    }
    detokenizer_push(&generation->detokenizer, generation->tokenizer, token, generation->special,
                     &generation->text);
    push_text(generation, thinking, answer);
    generation->reasoning_tokens += thinking_before || is_thinking(generation);
}

static void finish_text(struct generation *generation, struct buffer *thinking,
                        struct buffer *answer)
{
    if (!generation->stopped_by_string) {
        detokenizer_finish(&generation->detokenizer, &generation->text);
        push_text(generation, thinking, answer);
    }
    buffer_clear(&generation->unstopped);
    if (!generation->stopped_by_string) {
        stop_filter_finish(&generation->stop, &generation->unstopped);
        reasoning_push(&generation->reasoning, buffer_text(&generation->unstopped),
                       generation->unstopped.length, thinking, answer);
    }
    reasoning_finish(&generation->reasoning, thinking, answer);
    generation->state = GENERATION_DONE;
}

enum generation_state generation_poll(struct generation *generation, struct buffer *thinking,
                                      struct buffer *answer)
{
    if (generation->state == GENERATION_DONE) {
        return GENERATION_DONE;
    }
    /* `finished` first: it is published after the last token. */
    bool finished = atomic_load_explicit(&generation->finished, memory_order_acquire);
    unsigned published = atomic_load_explicit(&generation->published, memory_order_acquire);

    while (generation->read_count < published && !generation->stopped_by_string) {
        take_token(generation, thinking, answer);
    }
    if (generation->stopped_by_string && !finished && !generation->cancelled) {
        cluster_cancel(generation->cluster, generation->sequence);
        generation->cancelled = true;
    }
    if (finished) {
        finish_text(generation, thinking, answer);
    }
    return generation->state;
}

void generation_summary(const struct generation *generation, struct generation_summary *out)
{
    ASSERT(generation->state == GENERATION_DONE);
    bool by_string = generation->stopped_by_string;
    int64_t first_ns = atomic_load(&generation->first_token_ns);

    *out = (struct generation_summary){
        .reason = by_string ? FINISH_STOP : generation->reason,
        .problem = by_string ? NULL : generation->problem,
        .prompt_tokens = generation->prompt_tokens,
        .cached_tokens = generation->cached_tokens,
        .completion_tokens = (uint32_t)generation->tokens.count,
        .reasoning_tokens = generation->reasoning_tokens,
        .seed = generation->seed,
        .first_token_ns = first_ns ? first_ns - generation->start_ns : 0,
        .total_ns = generation->finish_ns - generation->start_ns,
    };
}

int64_t generation_polled_since(struct generation *generation)
{
    int64_t since_ns = generation->polled_since_ns;

    generation->polled_since_ns = 0;
    return since_ns;
}

const uint32_t *generation_tokens(const struct generation *generation, size_t *count)
{
    *count = generation->tokens.count;
    return generation->tokens.ids;
}

const struct token_logprobs *generation_logprobs(const struct generation *generation, size_t index)
{
    ASSERT(index < generation->tokens.count);
    return generation->wants_logprobs ? generation->logprobs[index] : NULL;
}

const struct token_logprobs *const *generation_prompt_logprobs(const struct generation *generation)
{
    return generation->inbox ? logprob_inbox_prompt(generation->inbox) : NULL;
}
