#ifndef SHOAL_CLI_JSONL_H
#define SHOAL_CLI_JSONL_H

/* JSON lines: one object a line; blank lines are skipped. Errors name file and line. */
#include "common/base/error.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

struct jsonl_reader {
    FILE *file;
    const char *name; /* for messages: the path, or "standard input" */
    uint64_t line;    /* of the last object */
    char *text;       /* getline's */
    size_t text_bytes;
};

bool jsonl_open(struct jsonl_reader *reader, const char *path, struct error *err) MUST_CHECK;
void jsonl_open_stdin(struct jsonl_reader *reader);
void jsonl_close(struct jsonl_reader *reader);

enum jsonl_result { JSONL_OBJECT, JSONL_END, JSONL_BAD };
/* JSONL_OBJECT: the caller drops *out with json_decref. JSONL_BAD: err says what and where. */
enum jsonl_result jsonl_next(struct jsonl_reader *reader, json_t **out, struct error *err);
/* Puts "file:line: " in front; returns false. For what is wrong inside the object. */
bool jsonl_wrap(const struct jsonl_reader *reader, struct error *err);

/* Writes one compact line and flushes when the reader waits for it (a pipe to a program). Takes the
 * value. */
bool jsonl_write(FILE *out, json_t *value, struct error *err) MUST_CHECK;

/* Ids from an array of whole numbers below 2^32; the caller frees *out with mem_free. `what` names
 * the field. */
bool jsonl_ids(const json_t *array, const char *what, uint32_t **out, size_t *count,
               struct error *err) MUST_CHECK;

#endif
