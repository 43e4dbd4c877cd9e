/* fetch_server.c - the side that has the files.
 *
 * One thread: a request comes, its range is read, the reply goes. Clients ask for FETCH_WINDOW
 * chunks at a time, so a queue that is full belongs to one that does not follow the protocol, and
 * is dropped. Files are opened when they are first asked for and stay open.
 */
#include "common/net/fetch_wire.h"

#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/ring.h"
#include "common/net/endpoint.h"
#include "common/net/router.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PEERS_MAX          4096
#define QUEUE_MESSAGES_MAX (32 * FETCH_WINDOW)
#define MESSAGE_BYTES_MAX  4096 /* the handshake is longer than a request */

struct fetch_server {
    struct fetch_server_config config;
    struct waker waker;
    pthread_t thread;
    atomic_bool stop;
    _Atomic uint64_t sent_bytes;
    uint16_t port;

    /* The thread's own, made by it. */
    struct poller *poller;
    struct router *router;
    int *descriptors; /* [file_count]; -1: not yet */

    /* How the start went: guarded by mutex until started. */
    pthread_mutex_t mutex;
    pthread_cond_t started_changed;
    bool started;
    struct error err; /* of the start */
};

/* The reply's second part, and what its header says of it. */
struct answer {
    struct fetch_reply reply;
    zmq_msg_t payload;
};

static void answer_bytes(struct answer *answer, const void *bytes, size_t length)
{
    (void)zmq_msg_init_size(&answer->payload, length);
    if (length > 0) {
        memcpy(zmq_msg_data(&answer->payload), bytes, length);
    }
}

static void refuse(struct answer *answer, const struct error *err)
{
    answer->reply.status = FETCH_REFUSED;
    answer_bytes(answer, err->message, strlen(err->message));
}

static bool request_check(const struct fetch_server *server, const struct fetch_request *request,
                          struct error *err)
{
    const struct fetch_server_config *config = &server->config;

    if (strcmp(request->model_hash, config->model_hash) != 0) {
        return error_set(err, ERROR_INPUT, "model %s is served here, not %s", config->model_hash,
                         request->model_hash);
    }
    if (request->kind == FETCH_LIST) {
        return true;
    }
    if (request->file >= config->file_count) {
        return error_set(err, ERROR_INPUT, "file %u of %u", request->file, config->file_count);
    }
    return (request->offset <= config->files[request->file].bytes &&
            request->bytes <= config->files[request->file].bytes - request->offset) ||
           error_set(err, ERROR_INPUT, "%s: bytes %" PRIu64 " to %" PRIu64 " of %" PRIu64,
                     config->files[request->file].name, request->offset,
                     request->offset + request->bytes, config->files[request->file].bytes);
}

static bool file_open(struct fetch_server *server, uint32_t file, struct error *err)
{
    if (server->descriptors[file] < 0) {
        server->descriptors[file] = open(server->config.paths[file], O_RDONLY | O_CLOEXEC);
    }
    return server->descriptors[file] >= 0 ||
           error_set_errno(err, "%s", server->config.files[file].name);
}

static bool read_range(struct fetch_server *server, const struct fetch_request *request,
                       struct answer *answer, struct error *err)
{
    const char *name = server->config.files[request->file].name;

    if (!file_open(server, request->file, err)) {
        return false;
    }
    if (zmq_msg_init_size(&answer->payload, request->bytes) != 0) {
        return error_set(err, ERROR_SYSTEM, "no memory for a chunk");
    }
    if (!file_pread(server->descriptors[request->file], zmq_msg_data(&answer->payload),
                    request->bytes, request->offset, name, err)) {
        (void)zmq_msg_close(&answer->payload);
        return false;
    }
    answer->reply.offset = request->offset;
    return true;
}

static void listing_make(const struct fetch_server *server, struct answer *answer)
{
    struct buffer listing = {0};

    fetch_listing_encode(server->config.files, server->config.file_count, &listing);
    answer_bytes(answer, listing.data, listing.length);
    buffer_deinit(&listing);
}

/* Always makes an answer. */
static void answer_make(struct fetch_server *server, const struct fetch_request *request,
                        struct answer *answer)
{
    struct error err;

    *answer = (struct answer){.reply = {.status = FETCH_HERE, .tag = request->tag}};
    if (!request_check(server, request, &err)) {
        refuse(answer, &err);
    } else if (request->kind == FETCH_LIST) {
        listing_make(server, answer);
    } else if (!read_range(server, request, answer, &err)) {
        log_warn("a worker asked for what cannot be read: %s", err.message);
        refuse(answer, &err);
    }
    answer->reply.bytes = (uint32_t)zmq_msg_size(&answer->payload);
    answer->reply.crc32c =
        hash_crc32c(0, zmq_msg_data(&answer->payload), zmq_msg_size(&answer->payload));
}

/* Takes the answer. */
static void answer_send(struct fetch_server *server, uint64_t peer, struct answer *answer)
{
    void *socket = router_socket(server->router);
    uint8_t header[FETCH_REPLY_BYTES];
    enum router_sent begun = router_begin(server->router, peer);

    fetch_reply_encode(&answer->reply, header);
    if (answer->reply.status == FETCH_HERE) { /* before anybody can have it */
        atomic_fetch_add_explicit(&server->sent_bytes, answer->reply.bytes, memory_order_relaxed);
    }
    if (begun == ROUTER_SENT && zmq_send(socket, header, sizeof(header), ZMQ_SNDMORE) >= 0 &&
        zmq_msg_send(&answer->payload, socket, 0) >= 0) {
        return;
    }
    (void)zmq_msg_close(&answer->payload);
    if (begun == ROUTER_FULL) {
        log_warn("a worker that asks for more than %d chunks at a time is dropped", FETCH_WINDOW);
        router_drop(server->router, peer);
    }
}

/* False: nothing came. */
static bool serve_one(struct fetch_server *server)
{
    struct fetch_request request;
    struct answer answer;
    struct error err;
    zmq_msg_t message;
    uint64_t peer;
    enum router_event event;

    (void)zmq_msg_init(&message);
    event = router_receive(server->router, &peer, &message);
    if (event == ROUTER_MESSAGE) {
        bool sound =
            !zmq_msg_more(&message) &&
            fetch_request_decode(zmq_msg_data(&message), zmq_msg_size(&message), &request, &err);

        if (sound) {
            answer_make(server, &request, &answer);
            answer_send(server, peer, &answer);
        } else {
            router_drop(server->router, peer);
        }
    }
    (void)zmq_msg_close(&message);
    return event != ROUTER_NOTHING;
}

/* --- life --- */

static bool listen_on(struct fetch_server *server, struct error *err)
{
    struct router_options options = {.endpoint = server->config.endpoint,
                                     .key = server->config.key,
                                     .queue_messages_max = QUEUE_MESSAGES_MAX,
                                     .message_bytes_max = MESSAGE_BYTES_MAX,
                                     .peers_max = PEERS_MAX};
    struct endpoint endpoint;

    server->poller = poller_create();
    poller_add_fd(server->poller, server->waker.fd);
    server->router = router_create(&options, server->poller, err);
    if (server->router == NULL ||
        !endpoint_parse(router_endpoint(server->router), &endpoint, err)) {
        return false;
    }
    server->port = endpoint.port;
    return true;
}

static void tell_start(struct fetch_server *server)
{
    pthread_mutex_lock(&server->mutex);
    server->started = true;
    pthread_cond_signal(&server->started_changed);
    pthread_mutex_unlock(&server->mutex);
}

static void *serve(void *context)
{
    struct fetch_server *server = context;
    bool listening = listen_on(server, &server->err);

    (void)pthread_setname_np(pthread_self(), "fetch");
    tell_start(server);
    while (listening && !atomic_load(&server->stop)) {
        waker_clear(&server->waker);
        while (!atomic_load(&server->stop) && serve_one(server)) {
        }
        if (!atomic_load(&server->stop)) {
            poller_wait(server->poller, -1);
        }
    }
    router_destroy(server->router);
    poller_destroy(server->poller);
    return NULL;
}

static void server_destroy(struct fetch_server *server)
{
    for (uint32_t i = 0; i < server->config.file_count; i++) {
        if (server->descriptors[i] >= 0) {
            (void)close(server->descriptors[i]);
        }
    }
    waker_close(&server->waker);
    (void)pthread_cond_destroy(&server->started_changed);
    (void)pthread_mutex_destroy(&server->mutex);
    mem_free(server->descriptors);
    mem_free(server);
}

static struct fetch_server *server_make(const struct fetch_server_config *config)
{
    struct fetch_server *server = mem_new(struct fetch_server);

    server->config = *config;
    server->descriptors = mem_new_array(int, config->file_count);
    for (uint32_t i = 0; i < config->file_count; i++) {
        server->descriptors[i] = -1;
    }
    (void)pthread_mutex_init(&server->mutex, NULL);
    (void)pthread_cond_init(&server->started_changed, NULL);
    return server;
}

struct fetch_server *fetch_server_start(const struct fetch_server_config *config, struct error *err)
{
    struct fetch_server *server = server_make(config);
    int problem;

    if (!waker_open(&server->waker)) {
        error_set_errno(err, "waker");
        server_destroy(server);
        return NULL;
    }
    problem = pthread_create(&server->thread, NULL, serve, server);
    if (problem != 0) {
        errno = problem;
        error_set_errno(err, "thread that serves files");
        server_destroy(server);
        return NULL;
    }
    pthread_mutex_lock(&server->mutex);
    while (!server->started) {
        pthread_cond_wait(&server->started_changed, &server->mutex);
    }
    pthread_mutex_unlock(&server->mutex);
    if (server->port == 0) {
        *err = server->err;
        fetch_server_stop(server);
        return NULL;
    }
    return server;
}

void fetch_server_stop(struct fetch_server *server)
{
    if (server == NULL) {
        return;
    }
    atomic_store(&server->stop, true);
    waker_wake(&server->waker);
    (void)pthread_join(server->thread, NULL);
    server_destroy(server);
}

uint16_t fetch_server_port(const struct fetch_server *server)
{
    return server->port;
}

uint64_t fetch_server_sent_bytes(const struct fetch_server *server)
{
    return atomic_load_explicit(&server->sent_bytes, memory_order_relaxed);
}
