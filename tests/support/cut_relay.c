/* cut_relay.c - see cut_relay.h. */
#include "tests/support/cut_relay.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define POLL_MS 20

struct cut_relay {
    int listener;
    uint16_t port, server_port;
    uint64_t cuts[CUT_RELAY_MAX];
    uint32_t cut_count;
    _Atomic uint32_t connections;
    atomic_bool stop;
    pthread_t thread;
};

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static bool send_all(int to, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t sent = send(to, bytes, length, MSG_NOSIGNAL);

        if (sent <= 0) {
            return false;
        }
        bytes += sent;
        length -= (size_t)sent;
    }
    return true;
}

/* Returns bytes moved, 0 at the end of the connection; at most `most`. */
static size_t move_some(int from, int to, uint64_t most)
{
    char bytes[16384];
    size_t want = most < sizeof(bytes) ? (size_t)most : sizeof(bytes);
    ssize_t got = recv(from, bytes, want, 0);

    return got > 0 && send_all(to, bytes, (size_t)got) ? (size_t)got : 0;
}

static void relay_connection(struct cut_relay *relay, int client, int server, uint64_t left)
{
    struct pollfd both[2] = {{.fd = client, .events = POLLIN}, {.fd = server, .events = POLLIN}};

    while (!atomic_load(&relay->stop) && left > 0) {
        (void)poll(both, 2, POLL_MS);
        if (both[0].revents != 0 && move_some(client, server, UINT64_MAX) == 0) {
            return;
        }
        if (both[1].revents != 0) {
            size_t moved = move_some(server, client, left);

            if (moved == 0) {
                return;
            }
            left -= moved;
        }
    }
}

static void *relay_main(void *context)
{
    struct cut_relay *relay = context;

    while (!atomic_load(&relay->stop)) {
        struct pollfd waiting = {.fd = relay->listener, .events = POLLIN};
        struct sockaddr_in address = loopback(relay->server_port);
        struct linger reset = {1, 0};
        uint32_t number;
        int client, server;

        if (poll(&waiting, 1, POLL_MS) <= 0) {
            continue;
        }
        client = accept(relay->listener, NULL, NULL);
        server = socket(AF_INET, SOCK_STREAM, 0);
        number = atomic_fetch_add(&relay->connections, 1);
        if (connect(server, (struct sockaddr *)&address, sizeof(address)) == 0) {
            relay_connection(relay, client, server,
                             number < relay->cut_count ? relay->cuts[number] : UINT64_MAX);
        }
        (void)setsockopt(client, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        (void)close(client);
        (void)close(server);
    }
    return NULL;
}

struct cut_relay *cut_relay_start(uint16_t server_port, const uint64_t *cuts, uint32_t cut_count)
{
    struct cut_relay *relay = mem_new(struct cut_relay);
    struct sockaddr_in address = loopback(0);
    socklen_t address_bytes = sizeof(address);

    ASSERT(cut_count <= CUT_RELAY_MAX);
    relay->server_port = server_port;
    relay->cut_count = cut_count;
    memcpy(relay->cuts, cuts, cut_count * sizeof(*cuts));
    relay->listener = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT(bind(relay->listener, (struct sockaddr *)&address, sizeof(address)) == 0);
    ASSERT(listen(relay->listener, 8) == 0);
    ASSERT(getsockname(relay->listener, (struct sockaddr *)&address, &address_bytes) == 0);
    relay->port = ntohs(address.sin_port);
    ASSERT(pthread_create(&relay->thread, NULL, relay_main, relay) == 0);
    return relay;
}

uint16_t cut_relay_port(const struct cut_relay *relay)
{
    return relay->port;
}

uint32_t cut_relay_connections(const struct cut_relay *relay)
{
    return atomic_load(&relay->connections);
}

void cut_relay_stop(struct cut_relay *relay)
{
    atomic_store(&relay->stop, true);
    (void)pthread_join(relay->thread, NULL);
    (void)close(relay->listener);
    mem_free(relay);
}
