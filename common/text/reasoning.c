/* reasoning.c - thinking and answer, told apart while the text streams.
 *
 * All text goes through `held`; each state takes from its front what is certain and says whether
 * the next state should look at the rest. What stays is at most a tag and the newlines before it,
 * so the result does not depend on how the text was cut into chunks.
 */
#include "common/text/reasoning.h"

#include <string.h>

static const char tag_open[] = "<think>";
static const char tag_close[] = "</think>";

#define OPEN_LENGTH  (sizeof tag_open - 1)
#define CLOSE_LENGTH (sizeof tag_close - 1)

void reasoning_init(struct reasoning *reasoning, enum reasoning_state state)
{
    *reasoning = (struct reasoning){.state = state};
}

void reasoning_deinit(struct reasoning *reasoning)
{
    buffer_deinit(&reasoning->held);
}

static bool is_newline(char c)
{
    return c == '\n' || c == '\r';
}

static bool is_blank(char c)
{
    return is_newline(c) || c == ' ' || c == '\t';
}

/* How many bytes the text's end shares with the tag's beginning. */
static size_t tag_overlap(const char *text, size_t length, const char *tag, size_t tag_length)
{
    size_t overlap = length < tag_length - 1 ? length : tag_length - 1;

    while (overlap > 0 && memcmp(text + length - overlap, tag, overlap) != 0) {
        overlap--;
    }
    return overlap;
}

/* Blanks, then the tag: thinking. Anything else: an answer, its blanks included. */
static bool step_start(struct reasoning *reasoning)
{
    struct buffer *held = &reasoning->held;
    size_t blanks = 0;

    while (blanks < held->length && is_blank(held->data[blanks])) {
        blanks++;
    }
    size_t rest = held->length - blanks;
    size_t compared = rest < OPEN_LENGTH ? rest : OPEN_LENGTH;
    if (rest > 0 && memcmp(held->data + blanks, tag_open, compared) != 0) {
        reasoning->state = REASONING_ANSWER;
        return true;
    }
    if (rest < OPEN_LENGTH) {
        return false;
    }
    buffer_consume(held, blanks + OPEN_LENGTH);
    reasoning->state = REASONING_INSIDE;
    return true;
}

/* Gives out `length` bytes of held thinking without the newlines at its end, which stay undecided
 * until something follows them; at the beginning they are dropped. */
static void give_thinking(struct reasoning *reasoning, size_t length, struct buffer *thinking)
{
    struct buffer *held = &reasoning->held;
    size_t begin = 0;

    while (!reasoning->begun && begin < length && is_newline(held->data[begin])) {
        begin++;
    }
    while (length > begin && is_newline(held->data[length - 1])) {
        length--;
    }
    if (length > begin) {
        buffer_append(thinking, held->data + begin, length - begin);
        reasoning->begun = true;
    }
    buffer_consume(held, length);
}

static bool step_inside(struct reasoning *reasoning, struct buffer *thinking)
{
    struct buffer *held = &reasoning->held;
    const char *text = buffer_text(held);
    const char *tag =
        held->length == 0 ? NULL : memmem(text, held->length, tag_close, CLOSE_LENGTH);

    if (tag == NULL) {
        size_t overlap = tag_overlap(text, held->length, tag_close, CLOSE_LENGTH);

        give_thinking(reasoning, held->length - overlap, thinking);
        return false;
    }
    give_thinking(reasoning, (size_t)(tag - text), thinking);
    while (held->data[0] != tag_close[0]) {
        buffer_consume(held, 1); /* newlines before the tag */
    }
    buffer_consume(held, CLOSE_LENGTH);
    reasoning->state = REASONING_AFTER_TAG;
    return true;
}

static bool step_after_tag(struct reasoning *reasoning)
{
    struct buffer *held = &reasoning->held;
    size_t newlines = 0;

    while (newlines < held->length && is_newline(held->data[newlines])) {
        newlines++;
    }
    buffer_consume(held, newlines);
    if (held->length == 0) {
        return false;
    }
    reasoning->state = REASONING_ANSWER;
    return true;
}

/* One state's work; true if the next state may go on with the rest. */
static bool step(struct reasoning *reasoning, struct buffer *thinking, struct buffer *answer)
{
    switch (reasoning->state) {
    case REASONING_START:
        return step_start(reasoning);
    case REASONING_INSIDE:
        return step_inside(reasoning, thinking);
    case REASONING_AFTER_TAG:
        return step_after_tag(reasoning);
    case REASONING_ANSWER:
        break;
    }
    buffer_append(answer, buffer_text(&reasoning->held), reasoning->held.length);
    buffer_clear(&reasoning->held);
    return false;
}

void reasoning_push(struct reasoning *reasoning, const char *text, size_t length,
                    struct buffer *thinking, struct buffer *answer)
{
    buffer_append(&reasoning->held, text, length);
    while (step(reasoning, thinking, answer)) {
    }
}

void reasoning_finish(struct reasoning *reasoning, struct buffer *thinking, struct buffer *answer)
{
    struct buffer *held = &reasoning->held;

    if (reasoning->state == REASONING_START) {
        buffer_append(answer, buffer_text(held), held->length);
    } else if (reasoning->state == REASONING_INSIDE) {
        give_thinking(reasoning, held->length, thinking);
    }
    buffer_clear(held);
}
