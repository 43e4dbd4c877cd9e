/* What is shown while a cluster loads: bars in place, lines elsewhere, rates, what is left. */
#include "coordinator/cli/load_view.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GB          UINT64_C(1000000000)
#define WORKERS_MAX 40

struct shown {
    struct load_view *view;
    FILE *out;
    char *text;
    size_t length;
    struct cluster_worker_status workers[WORKERS_MAX];
    struct cluster_status status;
};

static void shown_begin(struct shown *shown, enum load_view_style style, uint32_t worker_count)
{
    *shown = (struct shown){0};
    shown->out = open_memstream(&shown->text, &shown->length);
    assert_non_null(shown->out);
    shown->view = load_view_create(shown->out, style, 0);
    shown->status.state = CLUSTER_LOADING;
    shown->status.epoch = 1;
    shown->status.worker_count = worker_count;
    shown->status.workers = shown->workers;
    for (uint32_t i = 0; i < worker_count; i++) {
        shown->workers[i] = (struct cluster_worker_status){.id = i,
                                                           .stage = i,
                                                           .layer_begin = 2 * i,
                                                           .layer_end = 2 * i + 2,
                                                           .load_total_bytes = 10 * GB};
    }
}

/* What an update writes; lent until the next one. */
static const char *shown_update(struct shown *shown, int64_t now_ns)
{
    (void)fseek(shown->out, 0, SEEK_SET);
    load_view_update(shown->view, &shown->status, now_ns);
    (void)fputc('\0', shown->out);
    (void)fflush(shown->out);
    return shown->text;
}

static void shown_end(struct shown *shown)
{
    load_view_destroy(shown->view);
    (void)fclose(shown->out);
    free(shown->text);
}

static uint32_t count_lines(const char *text)
{
    uint32_t count = 0;

    for (; *text != '\0'; text++) {
        count += *text == '\n';
    }
    return count;
}

static void bars_show_bytes_rate_and_time_left_per_worker_and_in_total(void **state)
{
    struct shown shown;
    const char *text;

    (void)state;
    shown_begin(&shown, LOAD_VIEW_BARS, 2);
    (void)shown_update(&shown, NS_PER_S);
    shown.workers[0].load_done_bytes = 5 * GB;
    shown.workers[1].load_done_bytes = 1 * GB;
    text = shown_update(&shown, 2 * NS_PER_S);
    assert_non_null(strstr(text,
                           "worker 0 layers 0-1    [########........]  50%  5.00 GB of 10.0 GB  "
                           "5.00 GB/s  0:01 left\n"));
    assert_non_null(strstr(text,
                           "worker 1 layers 2-3    [#...............]  10%  1.00 GB of 10.0 GB  "
                           "1.00 GB/s  0:09 left\n"));
    assert_non_null(strstr(text,
                           "all workers            [####............]  30%  6.00 GB of 20.0 GB  "
                           "6.00 GB/s  0:09 left\n"));
    shown_end(&shown);
}

static void bars_are_drawn_over_those_before_and_removed_in_the_end(void **state)
{
    struct shown shown;

    (void)state;
    shown_begin(&shown, LOAD_VIEW_BARS, 2);
    assert_int_equal(count_lines(shown_update(&shown, 1)), 4); /* state, two workers, all */
    assert_int_equal(strncmp(shown_update(&shown, 2), "\033[4A\033[J", 7), 0);
    shown.status.state = CLUSTER_CONNECTING;
    assert_int_equal(count_lines(shown_update(&shown, 3)), 1);
    shown.status.state = CLUSTER_SERVING;
    assert_string_equal(shown_update(&shown, 4), "\033[1A\033[J");
    shown_end(&shown);
}

static void a_rate_forgets_within_seconds(void **state)
{
    struct shown shown;
    int64_t now_ns = NS_PER_S;

    (void)state;
    shown_begin(&shown, LOAD_VIEW_BARS, 1);
    (void)shown_update(&shown, now_ns);
    shown.workers[0].load_done_bytes = 4 * GB; /* from the page cache; the rest comes slowly */
    (void)shown_update(&shown, now_ns += NS_PER_S);
    for (int i = 0; i < 80; i++) {
        shown.workers[0].load_done_bytes += GB / 40;
        now_ns += NS_PER_S / 4;
        (void)shown_update(&shown, now_ns);
    }
    /* 100 MB/s for 20 s: what is left of 4 GB/s is 5 MB/s */
    assert_non_null(strstr(shown.text, "6.00 GB of 10.0 GB  105 MB/s  0:38 left"));
    shown_end(&shown);
}

static void a_worker_that_stands_still_leaves_the_end_open(void **state)
{
    struct shown shown;
    const char *total;

    (void)state;
    shown_begin(&shown, LOAD_VIEW_BARS, 2);
    (void)shown_update(&shown, NS_PER_S);
    shown.workers[0].load_done_bytes = 5 * GB;
    total = strstr(shown_update(&shown, 2 * NS_PER_S), "all workers");
    assert_non_null(total);
    assert_non_null(strstr(total, "5.00 GB/s\n"));
    assert_null(strstr(total, "left"));
    shown_end(&shown);
}

static void what_is_loaded_or_not_yet_known_has_no_rate(void **state)
{
    struct shown shown;
    const char *text;

    (void)state;
    shown_begin(&shown, LOAD_VIEW_BARS, 2);
    shown.workers[1].load_total_bytes = 0; /* it has said nothing */
    (void)shown_update(&shown, NS_PER_S);
    shown.workers[0].load_done_bytes = 10 * GB;
    text = shown_update(&shown, 2 * NS_PER_S);
    assert_non_null(strstr(text, "100%  10.0 GB of 10.0 GB\n"));
    assert_non_null(strstr(text, "  0%  0 B of 0 B\n"));
    shown_end(&shown);
}

static void another_epoch_begins_anew(void **state)
{
    struct shown shown;

    (void)state;
    shown_begin(&shown, LOAD_VIEW_BARS, 1);
    (void)shown_update(&shown, NS_PER_S);
    shown.workers[0].load_done_bytes = 5 * GB;
    (void)shown_update(&shown, 2 * NS_PER_S);
    shown.status.epoch = 2;
    shown.workers[0].load_done_bytes = 6 * GB;
    assert_null(strstr(shown_update(&shown, 3 * NS_PER_S), "/s"));
    shown_end(&shown);
}

static void lines_come_every_five_seconds_without_control_characters(void **state)
{
    struct shown shown;
    const char *text;

    (void)state;
    shown_begin(&shown, LOAD_VIEW_LINES, 1);
    for (int i = 1; i < 20; i++) {
        shown.workers[0].load_done_bytes += GB / 4;
        assert_string_equal(shown_update(&shown, i * NS_PER_S / 4), "");
    }
    shown.workers[0].load_done_bytes += GB / 4;
    text = shown_update(&shown, 5 * NS_PER_S);
    assert_string_equal(
        text, "loading\n  worker 0 layers 0-1     50%  5.00 GB of 10.0 GB  1.00 GB/s  0:05 left\n");
    assert_string_equal(shown_update(&shown, 6 * NS_PER_S), "");
    shown_end(&shown);
}

static void many_workers_do_not_fill_the_screen(void **state)
{
    struct shown shown;
    const char *text;

    (void)state;
    shown_begin(&shown, LOAD_VIEW_BARS, WORKERS_MAX);
    text = shown_update(&shown, NS_PER_S);
    assert_int_equal(count_lines(text), 19);
    assert_non_null(strstr(text, "and 24 more\n"));
    assert_non_null(strstr(text, "0 B of 400 GB\n"));
    shown_end(&shown);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bars_show_bytes_rate_and_time_left_per_worker_and_in_total),
        cmocka_unit_test(bars_are_drawn_over_those_before_and_removed_in_the_end),
        cmocka_unit_test(a_rate_forgets_within_seconds),
        cmocka_unit_test(a_worker_that_stands_still_leaves_the_end_open),
        cmocka_unit_test(what_is_loaded_or_not_yet_known_has_no_rate),
        cmocka_unit_test(another_epoch_begins_anew),
        cmocka_unit_test(lines_come_every_five_seconds_without_control_characters),
        cmocka_unit_test(many_workers_do_not_fill_the_screen),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
