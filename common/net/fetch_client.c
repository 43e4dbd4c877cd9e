/* fetch_client.c - the side that wants bytes.
 *
 * A call works through its range chunk by chunk: up to FETCH_WINDOW requests are under way, their
 * replies come in the order in which they were sent. Whatever goes wrong with a connection (it
 * breaks, is silent, or says what nobody asked for), it is thrown away, and the next one is asked
 * for what was under way and has not arrived. Only patience ends that.
 */
#include "common/net/fetch_wire.h"

#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/net/dealer.h"

#include <inttypes.h>
#include <string.h>

#define PATIENCE_NS   (30 * NS_PER_S)
#define SILENCE_NS    (5 * NS_PER_S) /* then another connection is tried */
#define POLL_NS       (50 * NS_PER_MS)
#define RECONNECT_NS  (50 * NS_PER_MS)
#define RECONNECT_MAX (1 * NS_PER_S)

struct fetch_client {
    struct fetch_client_config config;
    struct poller *poller;
    struct dealer dealer;
    bool is_open;          /* the dealer */
    int64_t heard_ns;      /* when the last useful bytes came */
    int64_t connection_ns; /* the same of this connection */
    int64_t reconnect_at_ns;
    int64_t reconnect_ns;
    uint64_t next_tag;
    struct fetch_counters counters;
    struct error last; /* why the last connection ended */
};

/* What a call wants: a listing, or a range in chunks. */
struct job {
    enum fetch_kind kind;
    uint32_t file;
    uint64_t asked; /* up to here requests are under way */
    uint64_t asked_most;
    uint64_t taken; /* up to here all has arrived */
    uint64_t end;
    uint64_t tags[FETCH_WINDOW]; /* of what is under way, oldest first */
    uint32_t tag_count;
    fetch_sink_fn sink;
    void *context;
};

static uint32_t chunk_bytes(const struct job *job, uint64_t offset)
{
    uint64_t left = job->end - offset;

    return left < FETCH_CHUNK_BYTES ? (uint32_t)left : FETCH_CHUNK_BYTES;
}

/* --- connections --- */

static void disconnect(struct fetch_client *client, struct job *job)
{
    if (client->is_open) {
        dealer_close(&client->dealer);
        client->is_open = false;
        client->counters.reconnects++;
    }
    job->asked = job->taken;
    job->tag_count = 0;
    client->reconnect_at_ns = clock_monotonic_ns() + client->reconnect_ns;
    client->reconnect_ns *= 2;
    if (client->reconnect_ns > RECONNECT_MAX) {
        client->reconnect_ns = RECONNECT_MAX;
    }
}

static bool connect_again(struct fetch_client *client, struct error *err)
{
    struct dealer_options options = {
        .endpoint = client->config.endpoint,
        .key = client->config.key,
        .queue_messages_max = 4 * FETCH_WINDOW,
        .message_bytes_max = FETCH_LISTING_BYTES_MAX,
        .reconnect_ms = -1,
    };

    if (!dealer_open(&client->dealer, &options, client->poller, err)) {
        return false;
    }
    client->is_open = true;
    client->connection_ns = clock_monotonic_ns();
    return true;
}

/* --- requests --- */

static bool request_send(struct fetch_client *client, struct job *job)
{
    uint32_t bytes = job->kind == FETCH_READ ? chunk_bytes(job, job->asked) : 0;
    struct fetch_request request = {
        .kind = job->kind,
        .tag = client->next_tag,
        .file = job->file,
        .bytes = bytes,
        .offset = job->kind == FETCH_READ ? job->asked : 0,
    };
    uint8_t packed[FETCH_REQUEST_BYTES];

    memcpy(request.model_hash, client->config.model_hash, FETCH_MODEL_HASH_BYTES);
    fetch_request_encode(&request, packed);
    if (zmq_send(client->dealer.socket.zmq, packed, sizeof(packed), ZMQ_DONTWAIT) < 0) {
        return false;
    }
    job->tags[job->tag_count++] = client->next_tag++;
    if (job->kind == FETCH_READ) {
        if (job->asked < job->asked_most) {
            client->counters.resent_bytes += bytes;
        }
        job->asked += bytes;
        job->asked_most = job->asked > job->asked_most ? job->asked : job->asked_most;
    }
    return true;
}

static void requests_send(struct fetch_client *client, struct job *job)
{
    uint32_t window = job->kind == FETCH_READ ? FETCH_WINDOW : 1;
    const uint64_t *next = job->kind == FETCH_READ ? &job->asked : &job->taken;

    while (job->tag_count < window && *next < job->end) {
        if (!request_send(client, job)) {
            return;
        }
    }
}

/* --- replies --- */

enum took { TOOK_NOTHING, TOOK_REPLY, TOOK_GARBAGE, TOOK_ERROR };

/* The two parts of a reply; `payload` is initialised by the caller. */
static enum took reply_receive(struct fetch_client *client, struct fetch_reply *reply,
                               zmq_msg_t *payload, struct error *err)
{
    void *socket = client->dealer.socket.zmq;
    uint8_t header[FETCH_REPLY_BYTES + 1];
    int length = zmq_recv(socket, header, sizeof(header), ZMQ_DONTWAIT);
    int more = 0;
    size_t more_bytes = sizeof(more);

    if (length < 0) {
        return TOOK_NOTHING;
    }
    if (!fetch_reply_decode(header, (size_t)length, reply, err) ||
        zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &more_bytes) != 0 || more == 0 ||
        zmq_msg_recv(payload, socket, ZMQ_DONTWAIT) < 0 || zmq_msg_more(payload)) {
        error_set(err, ERROR_PEER, "a reply that is none");
        return TOOK_GARBAGE;
    }
    return TOOK_REPLY;
}

static bool checksum_is_right(const struct fetch_reply *reply, zmq_msg_t *payload)
{
    return zmq_msg_size(payload) == reply->bytes &&
           hash_crc32c(0, zmq_msg_data(payload), reply->bytes) == reply->crc32c;
}

static void tag_shift(struct job *job)
{
    job->tag_count--;
    memmove(job->tags, job->tags + 1, job->tag_count * sizeof(job->tags[0]));
}

static enum took refused(const struct fetch_client *client, zmq_msg_t *payload, struct error *err)
{
    size_t length = zmq_msg_size(payload);

    error_set(err, ERROR_PEER, "%s refuses: %.*s", client->config.endpoint,
              (int)(length < 160 ? length : 160), (const char *)zmq_msg_data(payload));
    return TOOK_ERROR;
}

/* Hands a reply over that is the one waited for. */
static enum took reply_take(struct fetch_client *client, struct job *job,
                            const struct fetch_reply *reply, zmq_msg_t *payload, struct error *err)
{
    bool is_wanted = job->kind == FETCH_LIST ||
                     (reply->offset == job->taken && reply->bytes == chunk_bytes(job, job->taken));

    if (job->tag_count == 0 || reply->tag != job->tags[0]) {
        error_set(err, ERROR_PEER, "a reply that nobody asked for");
        return TOOK_GARBAGE;
    }
    if (!checksum_is_right(reply, payload)) {
        client->counters.crc_errors++;
        error_set(err, ERROR_PEER, "a chunk with a wrong checksum");
        return TOOK_GARBAGE;
    }
    if (reply->status == FETCH_REFUSED) {
        return refused(client, payload, err);
    }
    if (!is_wanted) {
        error_set(err, ERROR_PEER, "%u bytes at %" PRIu64 ", %u at %" PRIu64 " were asked for",
                  reply->bytes, reply->offset, chunk_bytes(job, job->taken), job->taken);
        return TOOK_GARBAGE;
    }
    if (!job->sink(job->context, job->taken, zmq_msg_data(payload), reply->bytes, err)) {
        return TOOK_ERROR;
    }
    tag_shift(job);
    job->taken = job->kind == FETCH_LIST ? job->end : job->taken + reply->bytes;
    client->counters.received_bytes += job->kind == FETCH_READ ? reply->bytes : 0;
    client->heard_ns = client->connection_ns = clock_monotonic_ns();
    client->reconnect_ns = RECONNECT_NS;
    return TOOK_REPLY;
}

static enum took reply_next(struct fetch_client *client, struct job *job, struct error *err)
{
    struct fetch_reply reply;
    enum took took;
    zmq_msg_t payload;

    (void)zmq_msg_init(&payload);
    took = reply_receive(client, &reply, &payload, err);
    if (took == TOOK_REPLY) {
        took = reply_take(client, job, &reply, &payload, err);
    }
    (void)zmq_msg_close(&payload);
    return took;
}

/* --- the loop --- */

/* Why the connection is of no more use; false: it is. */
static bool is_lost(struct fetch_client *client, struct error *err)
{
    switch (dealer_update(&client->dealer)) {
    case DEALER_BROKEN:
        error_set(err, ERROR_PEER, "the connection broke");
        return true;
    case DEALER_FAILED:
        error_set(err, ERROR_PEER,
                  client->dealer.refused ? "the handshake failed (another key?)"
                                         : "nobody answers");
        return true;
    case DEALER_CONNECTING:
    case DEALER_OPEN:
        break;
    }
    if (clock_monotonic_ns() - client->connection_ns > SILENCE_NS) {
        error_set(err, ERROR_PEER, "silence for %d s", (int)(SILENCE_NS / NS_PER_S));
        return true;
    }
    return false;
}

static bool is_finished(const struct job *job)
{
    return job->taken >= job->end && job->tag_count == 0;
}

/* A turn without a connection, or with one. False: the call fails. */
static bool turn(struct fetch_client *client, struct job *job, struct error *err)
{
    enum took took = TOOK_NOTHING;

    if (!client->is_open) {
        int64_t wait_ns = client->reconnect_at_ns - clock_monotonic_ns();

        if (wait_ns > 0) {
            poller_wait(client->poller, wait_ns < POLL_NS ? wait_ns : POLL_NS);
            return true;
        }
        return connect_again(client, err);
    }
    requests_send(client, job);
    do {
        took = reply_next(client, job, &client->last);
        if (took == TOOK_REPLY) {
            requests_send(client, job);
        }
    } while (took == TOOK_REPLY && !is_finished(job));
    if (took == TOOK_ERROR) {
        *err = client->last;
        return false;
    }
    if (is_finished(job)) {
        return true;
    }
    if (took == TOOK_GARBAGE || is_lost(client, &client->last)) {
        disconnect(client, job);
        return true;
    }
    poller_wait(client->poller, POLL_NS);
    return true;
}

static bool job_run(struct fetch_client *client, struct job *job, struct error *err)
{
    int64_t patience_ns = client->config.patience_ns > 0 ? client->config.patience_ns : PATIENCE_NS;

    client->heard_ns = client->connection_ns = clock_monotonic_ns();
    while (!is_finished(job)) {
        if (client->config.cancel != NULL && atomic_load(client->config.cancel)) {
            return error_set(err, ERROR_PEER, "fetching was cancelled");
        }
        if (clock_monotonic_ns() - client->heard_ns > patience_ns) {
            return error_set(err, ERROR_PEER, "%s: no bytes for %.0f s: %s",
                             client->config.endpoint, (double)patience_ns * 1e-9,
                             client->last.message);
        }
        if (!turn(client, job, err)) {
            return false;
        }
    }
    return true;
}

/* --- the calls --- */

struct fetch_client *fetch_client_open(const struct fetch_client_config *config, struct error *err)
{
    struct fetch_client *client = mem_new(struct fetch_client);

    client->config = *config;
    client->poller = poller_create();
    client->reconnect_ns = RECONNECT_NS;
    error_set(&client->last, ERROR_PEER, "no answer yet");
    if (strlen(config->model_hash) != FETCH_MODEL_HASH_BYTES) {
        error_set(err, ERROR_USAGE, "\"%s\" is no model hash", config->model_hash);
        fetch_client_close(client);
        return NULL;
    }
    return client;
}

void fetch_client_close(struct fetch_client *client)
{
    if (client == NULL) {
        return;
    }
    if (client->is_open) {
        dealer_close(&client->dealer);
    }
    poller_destroy(client->poller);
    mem_free(client);
}

static bool listing_take(void *context, uint64_t offset, const void *bytes, size_t length,
                         struct error *err)
{
    (void)offset;
    return fetch_listing_decode(bytes, length, context, err);
}

/* After a call that failed half-way, replies may still come that nobody waits for. */
static bool run_cleanly(struct fetch_client *client, struct job *job, struct error *err)
{
    bool done = job_run(client, job, err);

    if (!done && client->is_open) {
        dealer_close(&client->dealer);
        client->is_open = false;
    }
    return done;
}

bool fetch_client_list(struct fetch_client *client, struct fetch_listing *out, struct error *err)
{
    struct job job = {.kind = FETCH_LIST, .end = 1, .sink = listing_take, .context = out};

    memset(out, 0, sizeof(*out));
    return run_cleanly(client, &job, err);
}

bool fetch_client_read(struct fetch_client *client, const struct fetch_range *range,
                       fetch_sink_fn sink, void *context, struct error *err)
{
    struct job job = {
        .kind = FETCH_READ,
        .file = range->file,
        .asked = range->offset,
        .asked_most = range->offset,
        .taken = range->offset,
        .end = range->offset + range->bytes,
        .sink = sink,
        .context = context,
    };

    ASSERT(range->bytes <= UINT64_MAX - range->offset);
    return run_cleanly(client, &job, err);
}

struct fetch_counters fetch_client_counters(const struct fetch_client *client)
{
    return client->counters;
}
