/* zap.c - lets in those who hold the cluster key.
 *
 * libzmq asks by a message of eight parts: version, request id, domain, address, routing id,
 * mechanism, and for CURVE the client's public key in 32 bytes. The answer is the request with a
 * status. Anything else that arrives is a foreign or newer dialect and is refused.
 */
#include "common/net/zap.h"

#include "common/base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <zmq.h>

enum { ZAP_VERSION, ZAP_REQUEST, ZAP_DOMAIN, ZAP_ADDRESS, ZAP_ROUTING_ID, ZAP_MECHANISM, ZAP_KEY };
#define ZAP_PARTS       7
#define PART_BYTES_MAX  255
#define KEY_BYTES       32
#define KEY_TEXT_LENGTH 40

struct zap {
    pthread_t thread;
    void *socket;
};

struct zap_request {
    size_t count; /* parts that came, those beyond ZAP_PARTS included */
    size_t lengths[ZAP_PARTS];
    char parts[ZAP_PARTS][PART_BYTES_MAX + 1];
};

/* False when the context ends. Parts that are too long count as empty. */
static bool request_receive(void *socket, struct zap_request *request)
{
    int more = 1;
    size_t more_bytes = sizeof(more);

    memset(request, 0, sizeof(*request));
    while (more != 0) {
        char part[PART_BYTES_MAX + 1];
        int length;

        do {
            length = zmq_recv(socket, part, PART_BYTES_MAX, 0);
        } while (length < 0 && zmq_errno() == EINTR);
        if (length < 0) {
            return false;
        }
        if (request->count < ZAP_PARTS && length <= PART_BYTES_MAX) {
            memcpy(request->parts[request->count], part, (size_t)length);
            request->lengths[request->count] = (size_t)length;
        }
        request->count++;
        if (zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &more_bytes) != 0) {
            return false;
        }
    }
    return true;
}

static bool request_is_allowed(const struct zap_request *request)
{
    char key_text[KEY_TEXT_LENGTH + 1];

    return request->count == ZAP_PARTS && strcmp(request->parts[ZAP_VERSION], "1.0") == 0 &&
           strcmp(request->parts[ZAP_MECHANISM], "CURVE") == 0 &&
           request->lengths[ZAP_KEY] == KEY_BYTES &&
           zmq_z85_encode(key_text, (const uint8_t *)request->parts[ZAP_KEY], KEY_BYTES) != NULL &&
           strcmp(key_text, request->parts[ZAP_DOMAIN]) == 0;
}

static bool answer_send(void *socket, const struct zap_request *request)
{
    bool allowed = request_is_allowed(request);
    const char *const texts[] = {allowed ? "200" : "400", allowed ? "OK" : "not the cluster key",
                                 allowed ? "cluster" : "", ""};

    if (zmq_send(socket, "1.0", 3, ZMQ_SNDMORE) < 0 ||
        zmq_send(socket, request->parts[ZAP_REQUEST], request->lengths[ZAP_REQUEST], ZMQ_SNDMORE) <
            0) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(texts); i++) {
        int flags = i + 1 < ARRAY_LENGTH(texts) ? ZMQ_SNDMORE : 0;

        if (zmq_send(socket, texts[i], strlen(texts[i]), flags) < 0) {
            return false;
        }
    }
    return true;
}

static void *zap_run(void *argument)
{
    struct zap *zap = argument;
    struct zap_request request;

    while (request_receive(zap->socket, &request) && answer_send(zap->socket, &request)) {
    }
    (void)zmq_close(zap->socket);
    return NULL;
}

struct zap *zap_start(void *zmq_context, struct error *err)
{
    struct zap *zap = mem_new(struct zap);
    sigset_t all;
    sigset_t before;
    int failed;

    zap->socket = zmq_socket(zmq_context, ZMQ_REP);
    if (zap->socket == NULL || zmq_bind(zap->socket, "inproc://zeromq.zap.01") != 0) {
        error_set(err, ERROR_SYSTEM, "key handler: %s", zmq_strerror(zmq_errno()));
        if (zap->socket != NULL) {
            (void)zmq_close(zap->socket);
        }
        mem_free(zap);
        return NULL;
    }
    (void)sigfillset(&all); /* signals belong to the main thread */
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&zap->thread, NULL, zap_run, zap);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed != 0) {
        error_set(err, ERROR_SYSTEM, "key handler: %s", strerror(failed));
        (void)zmq_close(zap->socket);
        mem_free(zap);
        return NULL;
    }
    return zap;
}

void zap_join(struct zap *zap)
{
    if (zap == NULL) {
        return;
    }
    (void)pthread_join(zap->thread, NULL);
    mem_free(zap);
}
