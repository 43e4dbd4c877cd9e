#ifndef SHOAL_TESTS_TEXT_JSONL_H
#define SHOAL_TESTS_TEXT_JSONL_H

/* Test vectors, one JSON object a line. */
#include <jansson.h>
#include <stddef.h>

typedef void jsonl_row_fn(void *context, const json_t *row);

/* Calls row_fn for each line of tests/data/<name>; returns their number. Fails the test if the file
 * is missing or a line is not an object. */
size_t jsonl_each(const char *name, jsonl_row_fn *row_fn, void *context);

#endif
