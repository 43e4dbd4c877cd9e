/* detokenizer.c - token bytes back to text, while they stream.
 *
 * A token may end inside a character, so bytes that begin one are held until the rest came or
 * cannot come any more. What never becomes a character turns into U+FFFD, one per maximal invalid
 * part, as every other decoder does it.
 */
#include "common/text/tokenizer.h"
#include "common/text/utf8.h"

#include <string.h>

static const char replacement[] = "\xEF\xBF\xBD";

static void drop_held(struct detokenizer *state, size_t length)
{
    state->held_count -= (uint32_t)length;
    memmove(state->held, state->held + length, state->held_count);
}

/* Settles what is held as far as it is decided: afterwards it begins a character or is empty. */
static void settle(struct detokenizer *state, struct buffer *out)
{
    while (state->held_count > 0) {
        size_t taken = 0;
        enum utf8_kind kind = utf8_step((const char *)state->held, state->held_count, &taken);

        if (kind == UTF8_INCOMPLETE) {
            return;
        }
        if (kind == UTF8_CHARACTER) {
            buffer_append(out, state->held, taken);
        } else {
            buffer_append_text(out, replacement);
        }
        drop_held(state, taken);
    }
}

static void push_bytes(struct detokenizer *state, const char *bytes, size_t length,
                       struct buffer *out)
{
    for (size_t i = 0; i < length; i++) {
        if (state->held_count == 0) {
            size_t whole = utf8_valid_length(bytes + i, length - i);

            buffer_append(out, bytes + i, whole);
            i += whole;
            if (i == length) {
                return;
            }
        }
        state->held[state->held_count++] = (unsigned char)bytes[i];
        settle(state, out);
    }
}

void detokenizer_push(struct detokenizer *state, const struct tokenizer *tokenizer, uint32_t id,
                      enum special_output special, struct buffer *out)
{
    size_t length = 0;
    const char *bytes = tokenizer_bytes(tokenizer, id, &length);

    if (special == SPECIAL_SKIP && tokenizer_is_special(tokenizer, id)) {
        return;
    }
    push_bytes(state, bytes, length, out);
}

void detokenizer_finish(struct detokenizer *state, struct buffer *out)
{
    if (state->held_count > 0) {
        buffer_append_text(out, replacement); /* it began a character: one maximal part */
    }
    state->held_count = 0;
}

void utf8_append_lossy(struct buffer *out, const char *bytes, size_t length)
{
    struct detokenizer state = {.held_count = 0};

    push_bytes(&state, bytes, length, out);
    detokenizer_finish(&state, out);
}
