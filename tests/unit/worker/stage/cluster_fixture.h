#ifndef SHOAL_TESTS_CLUSTER_FIXTURE_H
#define SHOAL_TESTS_CLUSTER_FIXTURE_H

/* The stages of a whole cluster in one process: every member with its own share of the weights, its
 * own cache and team, frames handed over through mailboxes in memory. Each member runs on a thread
 * of its own, as in the program. */
#include "common/model/catalog.h"
#include "common/plan/placement.h"
#include "worker/stage/stage.h"

struct fixture_layout {
    uint32_t stage_count, group_size;
    uint32_t lane_count;    /* 0: group_size; lanes go round the members */
    uint32_t expert_stride; /* 0: whole router groups; else expert e belongs to member e % group */
    uint32_t replicas;      /* members that own each expert; 0: 1 */
    enum cpu_level level;
    uint32_t thread_count; /* of each member */
    uint32_t step_rows_max;
    uint32_t steps_in_flight_max;
    uint32_t draft_layer_count;
    enum kv_type kv_type;
};

struct fixture;
struct fixture *fixture_create(const struct fixture_layout *layout, const struct catalog *catalog);
void fixture_destroy(struct fixture *fixture);
uint32_t fixture_worker_count(const struct fixture *fixture);
const struct placement *fixture_placement(const struct fixture *fixture);

/* Runs the steps on all members, each in its order and pace. The results of worker w for step i are
 * fixture_job(fixture, w, i), until the next call. Asserts that all succeed. */
void fixture_run(struct fixture *fixture, const struct step *steps, uint32_t step_count);
const struct stage_job *fixture_job(const struct fixture *fixture, uint32_t worker, uint32_t step);

#endif
