/* pattern.c - Oniguruma's regular expressions in PCRE2's words.
 *
 * The two agree on what tokenizers use but for a few shorthands: Oniguruma's \s is Unicode's
 * White_Space, PCRE2's also has U+180E; \h means a hexadecimal digit there and a blank here; \w has
 * marks and connectors there. They are written out as classes. Intersections and classes inside
 * classes would silently mean something else, so they are refused.
 */
#include "common/text/pattern.h"

struct shorthand {
    char letter; /* \s; its capital is the complement */
    const char *body;
};

static const struct shorthand shorthands[] = {
    {'s', "\\t-\\r\\x{85}\\p{Z}"},
    {'h', "0-9A-Fa-f"},
    {'w', "\\p{L}\\p{M}\\p{N}\\p{Pc}"},
};

struct translation {
    const char *at;
    const char *end;
    bool in_class;
    bool class_begins; /* right after "[" or "[^": a "]" here is itself */
    struct buffer *out;
};

static bool translate_escape(struct translation *state, struct error *err)
{
    char letter = state->at + 1 < state->end ? state->at[1] : '\0';

    state->at += 1;
    for (size_t i = 0; i < ARRAY_LENGTH(shorthands); i++) {
        const struct shorthand *shorthand = &shorthands[i];
        bool complement = letter == shorthand->letter - 'a' + 'A';

        if (letter != shorthand->letter && !complement) {
            continue;
        }
        if (complement && state->in_class) {
            return error_set(err, ERROR_INPUT, "\\%c inside [...] is not supported", letter);
        }
        buffer_append_text(state->out, state->in_class ? "" : complement ? "[^" : "[");
        buffer_append_text(state->out, shorthand->body);
        buffer_append_text(state->out, state->in_class ? "" : "]");
        state->at += 1;
        return true;
    }
    buffer_append_char(state->out, '\\');
    if (state->at < state->end) {
        buffer_append_char(state->out, *state->at++);
    }
    return true;
}

static bool translate_in_class(struct translation *state, struct error *err)
{
    char c = *state->at;

    if (c == '[') {
        return error_set(err, ERROR_INPUT, "a class inside [...] is not supported");
    }
    if (c == '&' && state->at + 1 < state->end && state->at[1] == '&') {
        return error_set(err, ERROR_INPUT, "&& inside [...] is not supported");
    }
    if (c == ']' && !state->class_begins) {
        state->in_class = false;
    }
    state->class_begins = false;
    buffer_append_char(state->out, c);
    state->at++;
    return true;
}

static void translate_outside(struct translation *state)
{
    char c = *state->at++;

    buffer_append_char(state->out, c);
    if (c != '[') {
        return;
    }
    state->in_class = true;
    state->class_begins = true;
    if (state->at < state->end && *state->at == '^') {
        buffer_append_char(state->out, *state->at++);
    }
}

bool pattern_translate(const char *pattern, size_t length, struct buffer *out, struct error *err)
{
    struct translation state = {.at = pattern, .end = pattern + length, .out = out};

    while (state.at < state.end) {
        if (*state.at == '\\') {
            if (!translate_escape(&state, err)) {
                return false;
            }
            state.class_begins = false;
        } else if (!state.in_class) {
            translate_outside(&state);
        } else if (!translate_in_class(&state, err)) {
            return false;
        }
    }
    return true;
}
