/* prompt_batch.c - keeps a cluster busy with prompts from a file.
 *
 * Events are copied on the cluster's thread, queued and handled on the main thread, so that files
 * are written where waiting hurts nobody. How many prompts are under way is bounded by their
 * tokens: what waits in memory is bounded with it.
 */
#include "coordinator/cli/prompt_batch.h"

#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/base/ring.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cli/jsonl.h"

#include <poll.h>
#include <string.h>

#define RUNNING_MAX        64
#define RUNNING_TOKENS_MAX 65536

/* --- the file --- */

/* {"tokens":[…]}, or {"ids":[…]} as `shoal tokenize` writes it. */
static bool prompt_read(const json_t *object, uint32_t vocab, struct prompt *out, struct error *err)
{
    const json_t *tokenized = json_object_get(object, "ids");
    const char *field = tokenized && !json_object_get(object, "tokens") ? "ids" : "tokens";
    uint32_t *tokens;
    size_t count;

    if (!json_get_i64_or(object, "id", out->id, &out->id, err) ||
        !jsonl_ids(json_object_get(object, field), field, &tokens, &count, err)) {
        return false;
    }
    out->tokens = tokens;
    out->count = (uint32_t)count;
    if (count == 0 || count > UINT32_MAX / 2) {
        return error_set(err, ERROR_INPUT, "a prompt of %zu tokens", count);
    }
    for (size_t i = 0; i < count; i++) {
        if (tokens[i] >= vocab) {
            return error_set(err, ERROR_INPUT, "%s[%zu] is %u, the vocabulary has %u", field, i,
                             tokens[i], vocab);
        }
    }
    return true;
}

static bool prompts_read(struct jsonl_reader *reader, uint32_t vocab, struct prompt_list *out,
                         struct error *err)
{
    for (;;) {
        json_t *object;
        struct prompt *prompt;
        bool good;

        switch (jsonl_next(reader, &object, err)) {
        case JSONL_END:
            return out->count > 0 || error_set(err, ERROR_INPUT, "%s has no prompts", reader->name);
        case JSONL_BAD:
            return false;
        case JSONL_OBJECT:
            break;
        }
        out->prompts = mem_resize(out->prompts, out->count + 1, sizeof(*out->prompts));
        prompt = &out->prompts[out->count];
        *prompt = (struct prompt){.line = reader->line, .id = (int64_t)out->count};
        out->count++;
        good = prompt_read(object, vocab, prompt, err);
        json_decref(object);
        if (!good) {
            return jsonl_wrap(reader, err);
        }
    }
}

bool prompt_list_read(const char *path, uint32_t vocab, struct prompt_list *out, struct error *err)
{
    struct jsonl_reader reader;
    bool good;

    *out = (struct prompt_list){0};
    if (!jsonl_open(&reader, path, err)) {
        return false;
    }
    good = prompts_read(&reader, vocab, out, err);
    jsonl_close(&reader);
    if (!good) {
        prompt_list_deinit(out);
    }
    return good;
}

void prompt_list_deinit(struct prompt_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        mem_free(list->prompts[i].tokens);
    }
    mem_free(list->prompts);
    *list = (struct prompt_list){0};
}

/* --- the cluster's side --- */

struct inbox {
    struct mpsc_list list;
    struct waker waker;
};
/* One prompt under way; the sink's context. */
struct running {
    struct inbox *inbox;
    size_t index;
    seq_id sequence;
    bool active;
};
struct arrival {
    struct mpsc_node node;
    struct running *running;
    struct cluster_event event; /* its pointers are copies behind this struct */
    char problem[480];
};

/* The next `bytes` of a block that was sized for all copies. */
static const void *copy_to(char **at, const void *bytes, size_t length)
{
    void *copy = *at;

    memcpy(copy, bytes, length);
    *at += length;
    return copy;
}

/* On the cluster's thread. */
static void sink(void *context, const struct cluster_event *event)
{
    struct running *running = context;
    size_t value_bytes =
        event->values == NULL ? 0 : sizeof(float) * event->row_count * event->columns;
    size_t chosen = event->experts == NULL ? 0 : (size_t)event->row_count * event->chosen_count;
    struct arrival *arrival = mem_alloc_zeroed(1, sizeof(*arrival) + value_bytes +
                                                      chosen * (sizeof(uint32_t) + sizeof(float)));
    char *at = (char *)(arrival + 1);

    arrival->running = running;
    arrival->event = *event;
    if (event->problem != NULL) {
        (void)snprintf(arrival->problem, sizeof(arrival->problem), "%s", event->problem);
    }
    if (value_bytes > 0) {
        arrival->event.values = copy_to(&at, event->values, value_bytes);
    }
    if (chosen > 0) {
        arrival->event.experts = copy_to(&at, event->experts, chosen * sizeof(uint32_t));
        arrival->event.expert_weights = copy_to(&at, event->expert_weights, chosen * sizeof(float));
    }
    if (mpsc_push(&running->inbox->list, &arrival->node)) {
        waker_wake(&running->inbox->waker);
    }
}

/* --- the main thread's side --- */

struct batch_state {
    const struct prompt_batch *batch;
    struct inbox inbox;
    struct running running[RUNNING_MAX];
    uint32_t running_count;
    uint64_t running_tokens;
    size_t next; /* prompt to be submitted */
    bool failed;
    struct error *err;
};

static void fail_all(struct batch_state *state)
{
    state->failed = true;
    for (size_t i = 0; i < RUNNING_MAX; i++) {
        if (state->running[i].active) {
            cluster_cancel(state->batch->cluster, state->running[i].sequence);
        }
    }
}

static struct running *slot_find(struct batch_state *state)
{
    for (size_t i = 0; i < RUNNING_MAX; i++) {
        if (!state->running[i].active) {
            return &state->running[i];
        }
    }
    return NULL;
}

/* False: not now, or it failed. */
static bool submit_next(struct batch_state *state)
{
    const struct prompt_batch *batch = state->batch;
    struct running *running = slot_find(state);
    const struct prompt *prompt;
    struct cluster_request request;

    if (state->failed || state->next == batch->list->count || running == NULL) {
        return false;
    }
    prompt = &batch->list->prompts[state->next];
    if (state->running_count > 0 && state->running_tokens + prompt->count > RUNNING_TOKENS_MAX) {
        return false;
    }
    *running = (struct running){.inbox = &state->inbox, .index = state->next};
    request =
        (struct cluster_request){.prompt = prompt->tokens,
                                 .prompt_count = prompt->count,
                                 .tokens_max = (batch->wants & WANT_DRAFT_LOGITS) != 0 ? 1 : 0,
                                 .wants = batch->wants,
                                 .sampling = {.temperature = 0, .top_p = 1},
                                 .sink = sink,
                                 .context = running};
    if (!cluster_submit(batch->cluster, &request, &running->sequence, state->err)) {
        error_wrap(state->err, "%s:%llu", batch->path, (unsigned long long)prompt->line);
        fail_all(state);
        return false;
    }
    running->active = true;
    state->running_count++;
    state->running_tokens += prompt->count;
    state->next++;
    return true;
}

static void finished_handle(struct batch_state *state, const struct arrival *arrival)
{
    const struct prompt_batch *batch = state->batch;
    const struct prompt *prompt = &batch->list->prompts[arrival->running->index];

    arrival->running->active = false;
    state->running_count--;
    state->running_tokens -= prompt->count;
    if (state->failed) {
        return;
    }
    if (arrival->event.reason == FINISH_FAILED || arrival->event.reason == FINISH_CANCELLED) {
        error_set(state->err, ERROR_PEER, "%s:%llu: %s", batch->path,
                  (unsigned long long)prompt->line,
                  arrival->event.reason == FINISH_FAILED ? arrival->problem : "cancelled");
        fail_all(state);
    } else if (batch->finished != NULL &&
               !batch->finished(batch->context, arrival->running->index, state->err)) {
        fail_all(state);
    }
}

static void arrival_handle(struct batch_state *state, const struct arrival *arrival)
{
    const struct prompt_batch *batch = state->batch;
    const struct prompt *prompt = &batch->list->prompts[arrival->running->index];
    const struct cluster_event *event = &arrival->event;

    if (event->kind == CLUSTER_FINISHED) {
        finished_handle(state, arrival);
        return;
    }
    if (state->failed || event->kind == CLUSTER_TOKEN || event->kind == CLUSTER_LOGPROBS) {
        return;
    }
    if ((uint64_t)event->position + event->row_count > prompt->count) {
        error_set(state->err, ERROR_PEER, "a worker answered rows %u to %u of %u", event->position,
                  event->position + event->row_count, prompt->count);
        fail_all(state);
    } else if (!batch->rows(batch->context, arrival->running->index, event, state->err)) {
        fail_all(state);
    }
}

static void arrivals_take(struct batch_state *state)
{
    struct mpsc_node *node;

    waker_clear(&state->inbox.waker);
    node = mpsc_take_all(&state->inbox.list);
    while (node != NULL) {
        struct arrival *arrival = (struct arrival *)((char *)node - offsetof(struct arrival, node));

        node = node->next;
        arrival_handle(state, arrival);
        mem_free(arrival);
    }
}

static void wait_for_arrivals(struct batch_state *state)
{
    struct pollfd fds[2] = {{.fd = state->inbox.waker.fd, .events = POLLIN},
                            {.fd = cli_stop_fd(), .events = POLLIN}};

    /* After an interruption the stop descriptor stays readable: only the queue counts then. */
    (void)poll(fds, state->failed ? 1 : 2, -1);
    if (!state->failed && *cli_stop_count() > 0) {
        error_set(state->err, ERROR_PEER, "interrupted");
        fail_all(state);
    }
}

bool prompt_batch_run(const struct prompt_batch *batch, struct error *err)
{
    struct batch_state *state = mem_new(struct batch_state);
    bool good;

    state->batch = batch;
    state->err = err;
    if (!waker_open(&state->inbox.waker)) {
        mem_free(state);
        return error_set_errno(err, "eventfd");
    }
    for (;;) {
        while (submit_next(state)) {
        }
        if (state->running_count == 0) {
            break;
        }
        wait_for_arrivals(state);
        arrivals_take(state);
    }
    waker_close(&state->inbox.waker);
    good = !state->failed;
    mem_free(state);
    return good;
}
