#ifndef SHOAL_TESTS_GOLDEN_LINES_H
#define SHOAL_TESTS_GOLDEN_LINES_H

/* Lines of golden JSON files, and what steps of a fixture must answer to them. Failures fail the
 * test. */
#include "cluster_fixture.h"

#include <jansson.h>

/* Calls `read` with each line of a file. */
void golden_lines_read(const char *path, void (*read)(const json_t *line));
/* An array of ids into out [count_max]; returns their number. */
uint32_t golden_ids(const json_t *array, uint32_t *out, uint32_t count_max);
/* Whether a line of routing.jsonl is no tie that rounding decides. */
bool golden_route_is_clear(const json_t *line);
/* One row of step 0, on one worker, answers the line's layer and position of the line's prompt,
 * with its experts; prompt_of [entries of the step]. */
void golden_route_check(const struct fixture *fixture, const uint32_t *prompt_of,
                        const json_t *line);

#endif
