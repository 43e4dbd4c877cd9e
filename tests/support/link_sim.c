/* link_sim.c - a wire between two ends in one thread, with faults from a seed.
 *
 * What is sent becomes bytes and what is received is decoded from them, so that damage meets the
 * same checks as on a real link. A damaged frame is counted and loses the link; a lost or swapped
 * one shows as a gap in the sequence (link.c).
 */
#include "tests/support/link_sim.h"

#include "common/base/mem.h"
#include "tests/support/sim_random.h"

#include <string.h>

#define UNDER_WAY_MAX 1024u

struct packet {
    uint8_t *bytes;
    size_t length;
    uint64_t due_poll; /* of the receiving end */
};

struct sim_end {
    struct link link;
    struct sim_pair *pair;
    struct sim_end *other;
    struct packet packets[UNDER_WAY_MAX]; /* coming here, in order */
    uint32_t packet_count;
    uint64_t polls;
    bool closed;
};

struct sim_pair {
    struct sim_faults faults;
    struct sim_random random;
    struct sim_end ends[2];
    uint64_t sent;
    bool broken;
    uint32_t users;
};

static void inbound_release(struct frame *frame)
{
    mem_free(frame->wire);
    mem_free(frame);
}

static enum link_result lost(const struct sim_end *end, struct error *err)
{
    error_set(err, ERROR_PEER, "sim link to worker %u: %s", end->link.peer,
              end->closed ? "closed" : "broken");
    return LINK_LOST;
}

static bool is_gone(const struct sim_end *end)
{
    return end->closed || end->pair->broken;
}

static void packet_add(struct sim_end *to, const struct frame *frame)
{
    struct sim_pair *pair = to->pair;
    size_t length = FRAME_HEADER_BYTES + (size_t)frame->header.payload_bytes;
    struct packet *packet = &to->packets[to->packet_count++];

    packet->bytes = mem_alloc_zeroed(length, 1);
    packet->length = length;
    packet->due_poll = to->polls + sim_random_range(&pair->random, 0, pair->faults.delay_polls_max);
    memcpy(packet->bytes, frame->wire, length);
    if (sim_random_chance(&pair->random, pair->faults.damage_percent)) {
        uint64_t bit = sim_random_range(&pair->random, 0, length * 8 - 1);

        packet->bytes[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    if (to->packet_count > 1 && sim_random_chance(&pair->random, pair->faults.swap_percent)) {
        struct packet last = *packet;

        *packet = packet[-1];
        packet[-1] = last;
    }
}

static enum link_result sim_send(struct link *link, struct frame *frame, struct error *err)
{
    struct sim_end *end = (struct sim_end *)link;
    struct sim_pair *pair = end->pair;

    if (is_gone(end) || end->other->closed) {
        return lost(end, err);
    }
    if (end->other->packet_count == UNDER_WAY_MAX ||
        sim_random_chance(&pair->random, pair->faults.busy_percent)) {
        return LINK_AGAIN;
    }
    pair->sent++;
    if (pair->faults.break_after != 0 && pair->sent > pair->faults.break_after) {
        pair->broken = true;
        return lost(end, err);
    }
    if (!sim_random_chance(&pair->random, pair->faults.lose_percent)) {
        packet_add(end->other, frame);
    }
    frame_release(frame);
    return LINK_DONE;
}

static struct frame *packet_take(struct sim_end *end)
{
    struct frame *frame = mem_new(struct frame);

    frame->wire = end->packets[0].bytes;
    frame->payload = frame->wire + FRAME_HEADER_BYTES;
    frame->capacity = end->packets[0].length - FRAME_HEADER_BYTES;
    frame->release = inbound_release;
    atomic_init(&frame->references, 1);
    end->packet_count--;
    memmove(end->packets, end->packets + 1, end->packet_count * sizeof(end->packets[0]));
    return frame;
}

static enum link_result sim_receive(struct link *link, struct frame **out, struct error *err)
{
    struct sim_end *end = (struct sim_end *)link;
    struct frame *frame;

    end->polls++;
    if (end->closed) {
        return lost(end, err);
    }
    if (end->packet_count == 0 || end->pair->broken) {
        return is_gone(end) || end->other->closed ? lost(end, err) : LINK_AGAIN;
    }
    if (end->packets[0].due_poll > end->polls ||
        sim_random_chance(&end->pair->random, end->pair->faults.busy_percent)) {
        return LINK_AGAIN;
    }
    frame = packet_take(end);
    if (!frame_decode(frame->wire, FRAME_HEADER_BYTES + frame->capacity, &frame->header, err)) {
        frame_release(frame);
        link->counters.crc_errors++;
        end->closed = true;
        return LINK_LOST;
    }
    *out = frame;
    return LINK_DONE;
}

static void sim_close(struct link *link)
{
    ((struct sim_end *)link)->closed = true;
}

static void sim_destroy(struct link *link)
{
    struct sim_end *end = (struct sim_end *)link;
    struct sim_pair *pair = end->pair;

    end->closed = true;
    for (uint32_t i = 0; i < end->packet_count; i++) {
        mem_free(end->packets[i].bytes);
    }
    end->packet_count = 0;
    if (--pair->users == 0) {
        mem_free(pair);
    }
}

static const struct link_ops sim_ops = {"sim", sim_send, sim_receive, sim_close, sim_destroy};

struct sim_pair *sim_pair_create(const struct sim_faults *faults, struct link *ends[2])
{
    struct sim_pair *pair = mem_new(struct sim_pair);

    sim_pair_set_faults(pair, faults);
    pair->users = 2;
    for (uint32_t i = 0; i < 2; i++) {
        pair->ends[i].link.ops = &sim_ops;
        pair->ends[i].link.peer = 1 - i;
        pair->ends[i].pair = pair;
        pair->ends[i].other = &pair->ends[1 - i];
        ends[i] = &pair->ends[i].link;
    }
    return pair;
}

void sim_pair_set_faults(struct sim_pair *pair, const struct sim_faults *faults)
{
    pair->faults = *faults;
    pair->random = sim_random_from(faults->seed);
}
