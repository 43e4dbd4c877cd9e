/* jsonl.c - lines of JSON in and out. */
#include "coordinator/cli/jsonl.h"

#include "common/base/json.h"
#include "common/base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

bool jsonl_open(struct jsonl_reader *reader, const char *path, struct error *err)
{
    *reader = (struct jsonl_reader){.file = fopen(path, "re"), .name = path};
    return reader->file != NULL || error_set_errno(err, "%s", path);
}

void jsonl_open_stdin(struct jsonl_reader *reader)
{
    *reader = (struct jsonl_reader){.file = stdin, .name = "standard input"};
}

void jsonl_close(struct jsonl_reader *reader)
{
    if (reader->file != NULL && reader->file != stdin) {
        (void)fclose(reader->file);
    }
    free(reader->text); /* libc's */
    *reader = (struct jsonl_reader){0};
}

bool jsonl_wrap(const struct jsonl_reader *reader, struct error *err)
{
    return error_wrap(err, "%s:%" PRIu64, reader->name, reader->line);
}

enum jsonl_result jsonl_next(struct jsonl_reader *reader, json_t **out, struct error *err)
{
    ssize_t length;

    do {
        errno = 0;
        length = getline(&reader->text, &reader->text_bytes, reader->file);
        if (length < 0) {
            if (ferror(reader->file) || errno == ENOMEM) {
                (void)error_set_errno(err, "%s", reader->name);
                return JSONL_BAD;
            }
            return JSONL_END;
        }
        reader->line++;
    } while (strspn(reader->text, " \t\r\n") == (size_t)length);
    *out = json_parse(reader->text, (size_t)length, "JSON", err);
    if (*out != NULL && !json_is_object(*out)) {
        error_set(err, ERROR_INPUT, "must be an object, got %s", json_type_word(*out));
        json_decref(*out);
        *out = NULL;
    }
    if (*out == NULL) {
        (void)jsonl_wrap(reader, err);
        return JSONL_BAD;
    }
    return JSONL_OBJECT;
}

bool jsonl_write(FILE *out, json_t *value, struct error *err)
{
    char *text = json_dumps(value, JSON_COMPACT);
    bool good;

    json_decref(value);
    ASSERT(text != NULL);
    good = fputs(text, out) >= 0 && fputc('\n', out) >= 0 && fflush(out) == 0;
    free(text); /* jansson's */
    return good || error_set_errno(err, "cannot write");
}

bool jsonl_ids(const json_t *array, const char *what, uint32_t **out, size_t *count,
               struct error *err)
{
    size_t length = json_array_size(array);
    uint32_t *ids;

    if (!json_is_array(array)) {
        return error_set(err, ERROR_INPUT, "field \"%s\" must be an array of token ids, got %s",
                         what, json_type_word(array));
    }
    ids = mem_new_array(uint32_t, length);
    for (size_t i = 0; i < length; i++) {
        const json_t *value = json_array_get(array, i);

        if (!json_is_integer(value) || json_integer_value(value) < 0 ||
            json_integer_value(value) > UINT32_MAX) {
            mem_free(ids);
            return error_set(err, ERROR_INPUT, "field \"%s\"[%zu] must be a token id, got %s", what,
                             i, json_type_word(value));
        }
        ids[i] = (uint32_t)json_integer_value(value);
    }
    *out = ids;
    *count = length;
    return true;
}
