/* inbox.c - early frames wait here.
 *
 * A few dozen entries at most, so a search from the front beats any index. Order of arrival does
 * not matter: a key names one frame. Attempts need the memory of what is over: when step 7 is
 * issued again, its second frames may come before we hear of it, while late ones of the first
 * attempt still arrive, and only the record tells them apart.
 */
#include "worker/stage/inbox.h"

#include "common/base/mem.h"

/* More than steps can be in flight between a sender and us. */
#define STEPS_REMEMBERED 2048

struct step_record {
    uint64_t step;
    uint32_t attempts_over; /* attempts below this number are over; 0: no record */
};

struct inbox {
    uint32_t capacity;
    uint32_t count;
    struct frame **frames;
    uint64_t dropped;
    uint32_t attempt; /* of the epoch: frames of earlier ones are of no use */
    uint64_t newest;  /* highest step that is over */
    struct step_record records[STEPS_REMEMBERED];
};

struct inbox *inbox_create(uint32_t capacity)
{
    struct inbox *inbox = mem_new(struct inbox);

    inbox->capacity = capacity;
    inbox->frames = mem_new_array(struct frame *, capacity);
    return inbox;
}

void inbox_destroy(struct inbox *inbox)
{
    if (inbox == NULL) {
        return;
    }
    for (uint32_t i = 0; i < inbox->count; i++) {
        frame_release(inbox->frames[i]);
    }
    mem_free(inbox->frames);
    mem_free(inbox);
}

static bool is_over(const struct inbox *inbox, uint64_t step, uint32_t attempt)
{
    const struct step_record *record = &inbox->records[step % STEPS_REMEMBERED];

    if (attempt < inbox->attempt) {
        return true;
    }
    if (record->step == step && record->attempts_over > 0) {
        return attempt < record->attempts_over;
    }
    return step + STEPS_REMEMBERED <= inbox->newest;
}

bool inbox_put(struct inbox *inbox, struct frame *frame, struct error *err)
{
    if (is_over(inbox, frame->header.step, frame->header.attempt)) {
        inbox->dropped++;
        frame_release(frame);
        return true;
    }
    if (inbox->count == inbox->capacity) {
        error_set(err, ERROR_PEER, "worker %u sent more than %u frames ahead", frame->header.source,
                  inbox->capacity);
        frame_release(frame);
        return false;
    }
    inbox->frames[inbox->count++] = frame;
    return true;
}

static bool matches(const struct frame_header *header, const struct frame_key *key)
{
    return header->step == key->step && header->attempt == key->attempt &&
           header->layer == key->layer && header->source == key->source &&
           header->kind == (uint8_t)key->kind;
}

struct frame *inbox_take(struct inbox *inbox, const struct frame_key *key)
{
    for (uint32_t i = 0; i < inbox->count; i++) {
        struct frame *frame = inbox->frames[i];

        if (matches(&frame->header, key)) {
            inbox->frames[i] = inbox->frames[--inbox->count];
            return frame;
        }
    }
    return NULL;
}

static void drop_what_is_over(struct inbox *inbox)
{
    for (uint32_t i = 0; i < inbox->count;) {
        const struct frame_header *header = &inbox->frames[i]->header;

        if (is_over(inbox, header->step, header->attempt)) {
            frame_release(inbox->frames[i]);
            inbox->frames[i] = inbox->frames[--inbox->count];
            inbox->dropped++;
        } else {
            i++;
        }
    }
}

void inbox_attempt(struct inbox *inbox, uint32_t attempt)
{
    if (attempt > inbox->attempt) {
        inbox->attempt = attempt;
        drop_what_is_over(inbox);
    }
}

void inbox_step_over(struct inbox *inbox, uint64_t step, uint32_t attempt)
{
    struct step_record *record = &inbox->records[step % STEPS_REMEMBERED];

    if (record->step != step || record->attempts_over <= attempt) {
        record->step = step;
        record->attempts_over = attempt + 1;
    }
    inbox->newest = step > inbox->newest ? step : inbox->newest;
    drop_what_is_over(inbox);
}

uint64_t inbox_dropped(const struct inbox *inbox)
{
    return inbox->dropped;
}
