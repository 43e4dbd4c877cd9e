/* The team: every tile once, whatever threads, tiles and waiting. */
#include "common/base/mem.h"
#include "worker/team/cores.h"
#include "worker/team/team.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define TILES_MAX 1000

struct board {
    uint32_t thread_count;
    uint32_t *visits;         /* [tile], plain: a data race here is the team's fault */
    atomic_uint out_of_range; /* threads beyond the count */
    uint64_t *per_thread;     /* [thread], plain as well */
};

static void visit(void *context, size_t tile, uint32_t thread)
{
    struct board *board = context;

    if (thread >= board->thread_count) {
        atomic_fetch_add(&board->out_of_range, 1);
        return;
    }
    board->visits[tile]++;
    board->per_thread[thread]++;
}

static void check_jobs(uint32_t thread_count, int64_t spin_ns, int job_count)
{
    static const size_t tiles[] = {0, 1, 2, 3, 7, 64, 1000};
    struct error err;
    struct team_config config = {.thread_count = thread_count, .spin_ns = spin_ns};
    struct team *team = team_create(&config, &err);
    struct board board = {.thread_count = thread_count};

    assert_non_null(team);
    assert_int_equal(team_thread_count(team), thread_count);
    board.visits = mem_new_array(uint32_t, TILES_MAX);
    board.per_thread = mem_new_array(uint64_t, thread_count);
    for (int job = 0; job < job_count; job++) {
        const size_t tile_count = tiles[(size_t)job % ARRAY_LENGTH(tiles)];
        uint64_t sum = 0;

        memset(board.visits, 0, TILES_MAX * sizeof(uint32_t));
        memset(board.per_thread, 0, thread_count * sizeof(uint64_t));
        team_run(team, visit, &board, tile_count);
        for (size_t tile = 0; tile < TILES_MAX; tile++) {
            assert_int_equal(board.visits[tile], tile < tile_count ? 1 : 0);
        }
        for (uint32_t thread = 0; thread < thread_count; thread++) {
            sum += board.per_thread[thread];
        }
        assert_int_equal(sum, tile_count);
    }
    assert_int_equal(atomic_load(&board.out_of_range), 0);
    mem_free(board.visits);
    mem_free(board.per_thread);
    team_destroy(team);
}

static void every_tile_runs_once(void **state)
{
    (void)state;
    check_jobs(1, -1, 50);
    check_jobs(2, -1, 2000);
    check_jobs(2, 0, 2000);
    check_jobs(7, 0, 500); /* more threads than most test machines have cores */
    check_jobs(3, 1000, 1000);
}

static void threads_come_and_go_without_a_job(void **state)
{
    struct error err;

    (void)state;
    for (int i = 0; i < 50; i++) {
        struct team_config config = {.thread_count = 4, .spin_ns = i % 2 == 0 ? 0 : -1};
        struct team *team = team_create(&config, &err);

        assert_non_null(team);
        team_destroy(team);
    }
    team_destroy(NULL);
}

static void no_count_means_the_available_cores(void **state)
{
    struct error err;
    struct team_config config = {.thread_count = 0, .spin_ns = -1};
    struct team *team = team_create(&config, &err);

    (void)state;
    assert_non_null(team);
    assert_true(team_thread_count(team) >= 1);
    assert_int_equal(team_thread_count(team), cores_available());
    team_destroy(team);
}

static void absurd_counts_are_refused(void **state)
{
    struct error err;
    struct team_config config = {.thread_count = 1000000, .spin_ns = -1};

    (void)state;
    assert_null(team_create(&config, &err));
    assert_int_equal(err.code, ERROR_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_tile_runs_once),
        cmocka_unit_test(threads_come_and_go_without_a_job),
        cmocka_unit_test(no_count_means_the_available_cores),
        cmocka_unit_test(absurd_counts_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
