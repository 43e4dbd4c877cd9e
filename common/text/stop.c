/* stop.c - stop strings in streamed text.
 *
 * The text is looked at byte by byte: a stop string counts where it is complete first, so the
 * result does not depend on how the text was cut into chunks. Of two that end at one place the
 * longer one wins. What is held back is the longest end of the text that begins a stop string.
 */
#include "common/text/stop.h"

#include "common/base/mem.h"

#include <string.h>

void stop_filter_init(struct stop_filter *filter, const char *const *strings, size_t count)
{
    *filter = (struct stop_filter){.strings = mem_new_array(char *, count)};
    for (size_t i = 0; i < count; i++) {
        if (strings[i][0] != '\0') {
            filter->strings[filter->string_count++] = mem_strdup(strings[i]);
        }
    }
}

void stop_filter_deinit(struct stop_filter *filter)
{
    for (size_t i = 0; i < filter->string_count; i++) {
        mem_free(filter->strings[i]);
    }
    mem_free(filter->strings);
    buffer_deinit(&filter->held);
    *filter = (struct stop_filter){0};
}

/* The length of the longest stop string that ends at `end`, 0 if none does. */
static size_t match_ending_at(const struct stop_filter *filter, const char *text, size_t end)
{
    size_t longest = 0;

    for (size_t i = 0; i < filter->string_count; i++) {
        size_t length = strlen(filter->strings[i]);

        if (length > longest && length <= end &&
            memcmp(text + end - length, filter->strings[i], length) == 0) {
            longest = length;
        }
    }
    return longest;
}

/* How many bytes of the text's end begin a stop string. */
static size_t undecided_length(const struct stop_filter *filter, const char *text, size_t length)
{
    size_t longest = 0;

    for (size_t i = 0; i < filter->string_count; i++) {
        size_t overlap = strlen(filter->strings[i]) - 1;

        overlap = overlap < length ? overlap : length;
        while (overlap > longest &&
               memcmp(text + length - overlap, filter->strings[i], overlap) != 0) {
            overlap--;
        }
        longest = overlap > longest ? overlap : longest;
    }
    return longest;
}

bool stop_filter_push(struct stop_filter *filter, const char *text, size_t length,
                      struct buffer *out)
{
    struct buffer *held = &filter->held;
    size_t end = held->length;

    if (filter->found) {
        return true;
    }
    buffer_append(held, text, length);
    while (end < held->length) {
        size_t match = match_ending_at(filter, held->data, ++end);

        if (match > 0) {
            filter->found = true;
            buffer_append(out, held->data, end - match);
            buffer_clear(held);
            return true;
        }
    }
    size_t certain = held->length - undecided_length(filter, buffer_text(held), held->length);
    buffer_append(out, buffer_text(held), certain);
    buffer_consume(held, certain);
    return false;
}

void stop_filter_finish(struct stop_filter *filter, struct buffer *out)
{
    buffer_append(out, buffer_text(&filter->held), filter->held.length);
    buffer_clear(&filter->held);
}
