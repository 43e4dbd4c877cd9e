/* jsonl.c - reads test vectors. */
#include "tests/unit/common/text/jsonl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

size_t jsonl_each(const char *name, jsonl_row_fn *row_fn, void *context)
{
    char path[512];
    char *line = NULL;
    size_t capacity = 0;
    size_t count = 0;
    ssize_t length;

    snprintf(path, sizeof path, "%s/%s", SHOAL_TEST_DATA, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while ((length = getline(&line, &capacity, file)) > 0) {
        json_error_t failure;
        json_t *row = json_loadb(line, (size_t)length, 0, &failure);

        assert_true(json_is_object(row));
        row_fn(context, row);
        json_decref(row);
        count++;
    }
    fclose(file);
    free(line); /* getline's */
    return count;
}
