#ifndef SHOAL_STAGE_INBOX_H
#define SHOAL_STAGE_INBOX_H

/* Frames that arrived before their step needed them: a bounded table, searched by key.
 *
 * It remembers which attempts of the latest steps are over, and drops what belongs to them; frames
 * of steps not yet announced wait. One owner thread.
 */
#include "worker/stage/exchange.h"

struct inbox;
struct inbox *inbox_create(uint32_t capacity);
void inbox_destroy(struct inbox *inbox); /* releases what waits; NULL is legal */
/* Takes the frame. ERROR_PEER when the table is full: a peer sends what nobody asked for. */
bool inbox_put(struct inbox *inbox, struct frame *frame, struct error *err) MUST_CHECK;
struct frame *inbox_take(struct inbox *inbox, const struct frame_key *key); /* NULL: not there */
/* An attempt of the epoch begins: frames of earlier ones are dropped, those that wait and those
 * that come. */
void inbox_attempt(struct inbox *inbox, uint32_t attempt);
/* That attempt of the step is over, finished or abandoned: its frames are dropped. */
void inbox_step_over(struct inbox *inbox, uint64_t step, uint32_t attempt);
uint64_t inbox_dropped(const struct inbox *inbox);

#endif
