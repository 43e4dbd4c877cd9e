/* slow_wire.c - a network cable with a delay, between two network namespaces.
 *
 *   slow-wire SPACE_A SPACE_B DEVICE DELAY_US [RATE_MBIT]
 *
 * Makes the TUN device DEVICE in both namespaces (as `ip netns` names them) and carries packets
 * from one to the other, each DELAY_US later; with RATE_MBIT also at most so many bits per second
 * in each direction. The kernel of test machines has no netem. Prints "ready" when the devices are
 * there; the caller gives them addresses and sets them up. Ends with SIGTERM, or with its parent.
 *
 * Packets wait in a ring per direction. What finds it full is dropped, as a switch would, and TCP
 * copes.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define RING_PACKETS 16384
#define PACKET_BYTES 9216 /* an MTU of jumbo frames */
#define NS_PER_S     1000000000ll

struct packet {
    int64_t due_ns;
    ssize_t length;
    uint8_t bytes[PACKET_BYTES];
};

struct direction {
    int from, to;
    struct packet *ring;
    uint32_t head, count;
    int64_t free_ns; /* when the last packet is on the wire as a whole */
};

struct wire {
    int64_t delay_ns;
    double ns_per_byte; /* 0: any rate */
    struct direction directions[2];
};

static int64_t now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * NS_PER_S + now.tv_nsec;
}

static void die(const char *what)
{
    (void)fprintf(stderr, "slow-wire: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* The device in another namespace; this thread stays there, which only matters for the next one. */
static int device_open(const char *space, const char *name)
{
    struct ifreq request;
    char path[256];
    int space_fd, fd;

    (void)snprintf(path, sizeof(path), "/run/netns/%s", space);
    space_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (space_fd < 0 || setns(space_fd, CLONE_NEWNET) != 0) {
        die(path);
    }
    (void)close(space_fd);
    fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        die("/dev/net/tun");
    }
    memset(&request, 0, sizeof(request));
    request.ifr_flags = IFF_TUN | IFF_NO_PI;
    (void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%.15s", name);
    if (ioctl(fd, TUNSETIFF, &request) != 0) {
        die("TUNSETIFF");
    }
    return fd;
}

static void packets_take(struct wire *wire, struct direction *direction)
{
    static uint8_t dropped[PACKET_BYTES];

    for (;;) {
        bool full = direction->count == RING_PACKETS;
        struct packet *packet =
            &direction->ring[(direction->head + direction->count) % RING_PACKETS];
        ssize_t length = read(direction->from, full ? dropped : packet->bytes, PACKET_BYTES);
        int64_t now;

        if (length <= 0) {
            return;
        }
        if (full) {
            continue;
        }
        now = now_ns();
        direction->free_ns = direction->free_ns > now ? direction->free_ns : now;
        direction->free_ns += (int64_t)((double)length * wire->ns_per_byte);
        packet->length = length;
        packet->due_ns = direction->free_ns + wire->delay_ns;
        direction->count++;
    }
}

static void packets_give(struct direction *direction)
{
    while (direction->count > 0 && direction->ring[direction->head].due_ns <= now_ns()) {
        struct packet *packet = &direction->ring[direction->head];

        (void)!write(direction->to, packet->bytes, (size_t)packet->length);
        direction->head = (direction->head + 1) % RING_PACKETS;
        direction->count--;
    }
}

static int64_t due_ns(const struct wire *wire)
{
    int64_t due = INT64_MAX;

    for (int i = 0; i < 2; i++) {
        const struct direction *direction = &wire->directions[i];

        if (direction->count > 0 && direction->ring[direction->head].due_ns < due) {
            due = direction->ring[direction->head].due_ns;
        }
    }
    return due;
}

static void run(struct wire *wire)
{
    for (;;) {
        struct pollfd fds[2] = {{.fd = wire->directions[0].from, .events = POLLIN},
                                {.fd = wire->directions[1].from, .events = POLLIN}};
        int64_t due = due_ns(wire);
        int64_t wait = due == INT64_MAX ? NS_PER_S : due - now_ns();
        struct timespec timeout;

        wait = wait < 0 ? 0 : wait;
        timeout = (struct timespec){.tv_sec = wait / NS_PER_S, .tv_nsec = wait % NS_PER_S};
        (void)ppoll(fds, 2, &timeout, NULL);
        for (int i = 0; i < 2; i++) {
            packets_take(wire, &wire->directions[i]);
            packets_give(&wire->directions[i]);
        }
    }
}

int main(int argc, char **argv)
{
    struct wire wire = {0};
    int first, second;

    if (argc < 5 || argc > 6) {
        (void)fputs("usage: slow-wire SPACE_A SPACE_B DEVICE DELAY_US [RATE_MBIT]\n", stderr);
        return 2;
    }
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    wire.delay_ns = (int64_t)(strtod(argv[4], NULL) * 1000);
    wire.ns_per_byte = argc == 6 ? 8e3 / strtod(argv[5], NULL) : 0;
    first = device_open(argv[1], argv[3]);
    second = device_open(argv[2], argv[3]);
    wire.directions[0] = (struct direction){.from = first, .to = second};
    wire.directions[1] = (struct direction){.from = second, .to = first};
    for (int i = 0; i < 2; i++) {
        wire.directions[i].ring = calloc(RING_PACKETS, sizeof(struct packet));
        if (wire.directions[i].ring == NULL) {
            die("memory");
        }
    }
    (void)puts("ready");
    (void)fflush(stdout);
    run(&wire);
    return 0;
}
