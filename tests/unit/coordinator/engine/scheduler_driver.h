#ifndef SHOAL_TESTS_ENGINE_SCHEDULER_DRIVER_H
#define SHOAL_TESTS_ENGINE_SCHEDULER_DRIVER_H

/* A scheduler driven by hand, step by step: one worker unless a test says otherwise. */
#include "coordinator/engine/scheduler.h"

#define MS 1000000ll

/* One lane of 4 slots and 8 blocks, one stage, steps of 16 rows, end tokens 2 and 5. */
struct scheduler_config driver_config_small(void);
/* A prompt of id × 1000, id × 1000 + 1, … */
bool driver_submit(struct scheduler *scheduler, seq_id id, uint32_t prompt_count,
                   uint32_t tokens_max, struct error *err);
/* Submits what must be accepted. */
void driver_add(struct scheduler *scheduler, seq_id id, uint32_t prompt_count, uint32_t tokens_max);
void driver_add_request(struct scheduler *scheduler, const struct scheduler_request *request,
                        int64_t now_ns);
/* The only worker answers: every entry that wants a sample gets `token`, its drafts too. */
void driver_answer(struct scheduler *scheduler, const struct step *step, uint32_t token,
                   int64_t now_ns);
struct scheduler_stats driver_stats_of(const struct scheduler *scheduler);

void assert_token(struct scheduler *scheduler, seq_id id, uint32_t token);
void assert_finished(struct scheduler *scheduler, seq_id id, enum finish_reason reason);
void assert_silent(struct scheduler *scheduler);

#endif
