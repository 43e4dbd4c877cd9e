/* cluster_fixture.c - many members, one process. */
#include "cluster_fixture.h"

#include "common/base/mem.h"
#include "worker/stage/inbox.h"
#include "worker/stage/load.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct office {
    pthread_mutex_t mutex;
    pthread_cond_t arrived;
};

struct member {
    struct exchange exchange; /* first */
    struct fixture *fixture;
    uint32_t worker;
    struct seat *seat;
    struct traffic traffic;
    struct weights *weights;
    void *memory;
    struct team *team;
    struct stage *stage;
    struct inbox *inbox; /* guarded by the office's mutex */
    struct frame_pool *pools[FRAME_KIND_COUNT];
    struct stage_job *jobs;
    pthread_t thread;
};

struct fixture {
    struct office office;
    const struct catalog *catalog;
    struct arena arena;
    struct placement *placement;
    uint32_t member_count;
    struct member *members;
    const struct step *steps;
    uint32_t step_count, job_count;
};

static void require(bool ok, const struct error *err)
{
    if (!ok) {
        (void)fprintf(stderr, "fixture: %s\n", err->message);
        abort();
    }
}

/* --- the mailboxes --- */

static void wait_a_little(struct office *office)
{
    struct timespec until;

    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    (void)pthread_cond_timedwait(&office->arrived, &office->mutex, &until);
}

static struct frame *mailbox_take(struct exchange *exchange, enum frame_kind kind)
{
    struct member *member = (struct member *)exchange;
    struct office *office = &member->fixture->office;
    struct frame *frame;

    ASSERT(member->pools[kind] != NULL);
    while ((frame = frame_pool_take(member->pools[kind])) == NULL) {
        pthread_mutex_lock(&office->mutex);
        wait_a_little(office);
        pthread_mutex_unlock(&office->mutex);
    }
    return frame;
}

static void mailbox_send(struct exchange *exchange, uint32_t worker, struct frame *frame)
{
    struct member *member = (struct member *)exchange;
    struct office *office = &member->fixture->office;
    struct error err = {0};
    bool known = false;

    for (uint32_t i = 0; i < member->traffic.peer_count; i++) {
        known = known || member->traffic.peers[i] == worker;
    }
    ASSERT(known && frame->header.source == member->worker);
    pthread_mutex_lock(&office->mutex);
    require(inbox_put(member->fixture->members[worker].inbox, frame, &err), &err);
    (void)pthread_cond_broadcast(&office->arrived);
    pthread_mutex_unlock(&office->mutex);
}

static struct frame *mailbox_wait(struct exchange *exchange, const struct frame_key *key)
{
    struct member *member = (struct member *)exchange;
    struct office *office = &member->fixture->office;
    struct frame *frame;

    pthread_mutex_lock(&office->mutex);
    while ((frame = inbox_take(member->inbox, key)) == NULL) {
        (void)pthread_cond_wait(&office->arrived, &office->mutex);
    }
    pthread_mutex_unlock(&office->mutex);
    return frame;
}

static bool mailbox_is_abandoned(struct exchange *exchange)
{
    (void)exchange;
    return false;
}

static const struct exchange_ops mailbox_ops = {
    .take = mailbox_take,
    .send = mailbox_send,
    .wait = mailbox_wait,
    .is_abandoned = mailbox_is_abandoned,
};

/* --- the placement --- */

static uint32_t expert_owner(const struct fixture_layout *layout, const struct arch *arch,
                             uint32_t expert)
{
    if (layout->expert_stride > 0) {
        return expert % layout->group_size;
    }
    return arch_combine_group(arch, expert) * layout->group_size / arch_combine_group_count(arch);
}

static void place_experts(struct fixture *fixture, const struct fixture_layout *layout)
{
    struct placement *placement = fixture->placement;
    const struct arch *arch = &fixture->catalog->arch;
    uint32_t replicas = layout->replicas > 0 ? layout->replicas : 1;
    size_t pairs = (size_t)placement_layers(placement) * placement->expert_count;
    uint32_t used = 0;

    placement->replica_offset = arena_new_array(&fixture->arena, uint32_t, pairs + 1);
    placement->replica_member = arena_new_array(&fixture->arena, uint32_t, pairs * replicas);
    for (size_t i = 0; i < pairs; i++) {
        uint32_t first = expert_owner(layout, arch, (uint32_t)(i % placement->expert_count));

        placement->replica_offset[i] = used;
        if (i / placement->expert_count < placement->dense_layer_count) {
            continue;
        }
        for (uint32_t member = 0; member < layout->group_size; member++) {
            uint32_t distance = (member + layout->group_size - first) % layout->group_size;

            if (distance < replicas) {
                placement->replica_member[used++] = member;
            }
        }
    }
    placement->replica_offset[pairs] = used;
}

static void make_placement(struct fixture *fixture, const struct fixture_layout *layout)
{
    const struct arch *arch = &fixture->catalog->arch;
    struct placement *placement = arena_new(&fixture->arena, struct placement);
    uint32_t lanes = layout->lane_count > 0 ? layout->lane_count : layout->group_size;

    *placement = (struct placement){
        .epoch = 1,
        .numerics_id = "exact/f32/k1",
        .layer_count = arch->layer_count,
        .expert_count = arch->router.expert_count,
        .dense_layer_count = arch->dense_layer_count,
        .draft_layer_count = layout->draft_layer_count,
        .stage_count = layout->stage_count,
        .lane_count = lanes,
        .kv_type = layout->kv_type,
        .kv_block_count = 64,
        .slot_count = 8,
        .context_tokens_max = 512,
        .step_rows_max = layout->step_rows_max,
        .steps_in_flight_max = layout->steps_in_flight_max,
    };
    fixture->placement = placement;
    placement->stages =
        arena_new_array(&fixture->arena, struct placement_stage, layout->stage_count);
    placement->lane_member =
        arena_new_array(&fixture->arena, uint32_t, (size_t)layout->stage_count * lanes);
    for (uint32_t i = 0; i < layout->stage_count; i++) {
        struct placement_stage *stage = &placement->stages[i];

        stage->layer_begin = i * arch->layer_count / layout->stage_count;
        stage->layer_end = (i + 1) * arch->layer_count / layout->stage_count;
        stage->member_count = layout->group_size;
        stage->workers = arena_new_array(&fixture->arena, uint32_t, layout->group_size);
        for (uint32_t member = 0; member < layout->group_size; member++) {
            stage->workers[member] = i * layout->group_size + member;
        }
        for (uint32_t lane = 0; lane < lanes; lane++) {
            /* each stage turns the lanes on, so that rows of one frame come from several lanes */
            placement->lane_member[(size_t)i * lanes + lane] =
                (lane / (i + 1) + i) % layout->group_size;
        }
    }
    place_experts(fixture, layout);
}

/* --- members --- */

static void member_open(struct fixture *fixture, const struct fixture_layout *layout,
                        uint32_t worker)
{
    struct member *member = &fixture->members[worker];
    struct load_progress progress = {0};
    struct load_plan *plan;
    struct error err = {0};

    member->exchange.ops = &mailbox_ops;
    member->fixture = fixture;
    member->worker = worker;
    member->seat = seat_create(fixture->placement, worker, &fixture->arena);
    traffic_plan(member->seat, &fixture->catalog->arch, &fixture->arena, &member->traffic);
    member->weights = weights_plan(fixture->catalog, &member->seat->share, &err);
    require(member->weights != NULL, &err);
    member->memory = mem_map_pages(member->weights->memory_bytes, &err);
    require(member->memory != NULL, &err);
    weights_bind(member->weights, member->memory);
    plan = load_plan_create(member->weights);
    require(load_weights(&(struct load_config){.catalog = fixture->catalog,
                                               .weights = member->weights,
                                               .plan = plan,
                                               .thread_count = 2,
                                               .progress = &progress},
                         &err),
            &err);
    load_plan_destroy(plan);
    ASSERT(progress.done_bytes == member->weights->file_bytes);
    member->team = team_create(
        &(struct team_config){.thread_count = layout->thread_count, .spin_ns = 0}, &err);
    require(member->team != NULL, &err);
    member->stage = stage_create(&(struct stage_config){.seat = member->seat,
                                                        .weights = member->weights,
                                                        .kernels = kernels_for(layout->level, NUMERICS_EXACT),
                                                        .team = member->team},
                                 &err);
    require(member->stage != NULL, &err);
    member->inbox = inbox_create(member->traffic.frames_early_max + 1);
    for (uint32_t kind = 0; kind < FRAME_KIND_COUNT; kind++) {
        if (member->traffic.sends[kind].count > 0) {
            member->pools[kind] = frame_pool_create(
                member->traffic.sends[kind].count, member->traffic.sends[kind].payload_bytes, &err);
            require(member->pools[kind] != NULL, &err);
        }
    }
}

static void jobs_free(struct fixture *fixture, struct member *member)
{
    for (uint32_t i = 0; i < fixture->job_count && member->jobs != NULL; i++) {
        stage_job_deinit(&member->jobs[i]);
    }
    mem_free(member->jobs);
    member->jobs = NULL;
}

static void member_close(struct fixture *fixture, struct member *member)
{
    jobs_free(fixture, member);
    inbox_destroy(member->inbox);
    for (uint32_t kind = 0; kind < FRAME_KIND_COUNT; kind++) {
        if (member->pools[kind] != NULL) {
            frame_pool_destroy(member->pools[kind]);
        }
    }
    stage_destroy(member->stage);
    team_destroy(member->team);
    mem_unmap_pages(member->memory, member->weights->memory_bytes);
    weights_destroy(member->weights);
}

struct fixture *fixture_create(const struct fixture_layout *layout, const struct catalog *catalog)
{
    struct fixture *fixture = mem_new(struct fixture);
    struct error err = {0};

    fixture->catalog = catalog;
    (void)pthread_mutex_init(&fixture->office.mutex, NULL);
    (void)pthread_cond_init(&fixture->office.arrived, NULL);
    arena_init(&fixture->arena, 1 << 16);
    make_placement(fixture, layout);
    require(placement_check(fixture->placement, &err), &err);
    fixture->member_count = placement_worker_count(fixture->placement);
    fixture->members = mem_new_array(struct member, fixture->member_count);
    for (uint32_t i = 0; i < fixture->member_count; i++) {
        member_open(fixture, layout, i);
    }
    return fixture;
}

void fixture_destroy(struct fixture *fixture)
{
    for (uint32_t i = 0; i < fixture->member_count; i++) {
        member_close(fixture, &fixture->members[i]);
    }
    mem_free(fixture->members);
    arena_deinit(&fixture->arena);
    (void)pthread_mutex_destroy(&fixture->office.mutex);
    (void)pthread_cond_destroy(&fixture->office.arrived);
    mem_free(fixture);
}

uint32_t fixture_worker_count(const struct fixture *fixture)
{
    return fixture->member_count;
}

const struct placement *fixture_placement(const struct fixture *fixture)
{
    return fixture->placement;
}

static void *member_main(void *context)
{
    struct member *member = context;
    struct fixture *fixture = member->fixture;

    for (uint32_t i = 0; i < fixture->step_count; i++) {
        struct stage_job *job = &member->jobs[i];
        struct error err = {0};

        job->step = fixture->steps[i];
        require(stage_run(member->stage, &member->exchange, job, &err) == STAGE_DONE, &err);
        pthread_mutex_lock(&fixture->office.mutex);
        inbox_step_over(member->inbox, job->step.number, job->step.attempt);
        pthread_mutex_unlock(&fixture->office.mutex);
    }
    return NULL;
}

void fixture_run(struct fixture *fixture, const struct step *steps, uint32_t step_count)
{
    for (uint32_t i = 0; i < fixture->member_count; i++) {
        jobs_free(fixture, &fixture->members[i]);
    }
    fixture->steps = steps;
    fixture->step_count = step_count;
    fixture->job_count = step_count;
    for (uint32_t i = 0; i < fixture->member_count; i++) {
        struct member *member = &fixture->members[i];

        member->jobs = mem_new_array(struct stage_job, step_count);
        for (uint32_t j = 0; j < step_count; j++) {
            stage_job_init(&member->jobs[j]);
        }
        ASSERT(pthread_create(&member->thread, NULL, member_main, member) == 0);
    }
    for (uint32_t i = 0; i < fixture->member_count; i++) {
        ASSERT(pthread_join(fixture->members[i].thread, NULL) == 0);
    }
}

const struct stage_job *fixture_job(const struct fixture *fixture, uint32_t worker, uint32_t step)
{
    ASSERT(worker < fixture->member_count && step < fixture->job_count);
    return &fixture->members[worker].jobs[step];
}
