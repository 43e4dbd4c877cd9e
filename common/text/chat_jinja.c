/* chat_jinja.c - a Jinja template's text without what does not matter.
 *
 * The same template is published on one line and indented over a hundred. This is Jinja's lexer as
 * far as white space goes: "-" beside a tag strips text towards it, trim_blocks drops the line
 * break after a block, lstrip_blocks the blanks before one. Inside tags, blanks stay only between
 * words, and strings get one kind of quotes. Nothing is parsed beyond that, so what is no valid
 * template has a normal form too.
 */
#include "common/text/chat_jinja.h"

#include "common/base/hash.h"

#include <stdbool.h>
#include <string.h>

#define QUOTE '\x01' /* around strings in the normal form; no template has it */

struct lexer {
    const char *begin; /* of the template, without the line break at its end */
    const char *at;
    const char *end;
    struct buffer *out;
};

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_word(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           (unsigned char)c >= 0x80;
}

/* "{{", "{%" or "{#" at or after `at`; the end if there is none. */
static const char *find_tag(const struct lexer *lexer)
{
    for (const char *c = lexer->at; lexer->end - c >= 2; c++) {
        if (c[0] == '{' && (c[1] == '{' || c[1] == '%' || c[1] == '#')) {
            return c;
        }
    }
    return lexer->end;
}

/* Text between tags, up to the tag or the end. */
static void add_text(struct lexer *lexer, const char *tag)
{
    const char *last = tag;
    const char *line = tag;

    if (lexer->end - tag > 2 && tag[2] == '-') {
        while (last > lexer->at && is_space(last[-1])) {
            last--;
        }
    } else if (lexer->end - tag > 2 && tag[1] != '{' && tag[2] != '+') {
        while (line > lexer->at && is_space(line[-1]) && line[-1] != '\n') {
            line--;
        }
        if (line == lexer->begin || line[-1] == '\n') {
            last = line;
        }
    }
    for (const char *c = lexer->at; c < last; c++) {
        if (c[0] != '\r' || c + 1 == last || c[1] != '\n') {
            buffer_append_char(lexer->out, *c);
        }
    }
    lexer->at = tag;
}

/* A string in a tag, from its quote on; a missing end is the end of the text. */
static void add_string(struct lexer *lexer)
{
    char quote = *lexer->at++;

    buffer_append_char(lexer->out, QUOTE);
    while (lexer->at < lexer->end && *lexer->at != quote) {
        char c = *lexer->at++;

        if (c == '\n') {
            buffer_append_text(lexer->out, "\\n");
        } else if (c == '\\' && lexer->at < lexer->end) {
            char escaped = *lexer->at++;

            if (escaped != '\'' && escaped != '"') {
                buffer_append_char(lexer->out, '\\');
            }
            buffer_append_char(lexer->out, escaped);
        } else {
            buffer_append_char(lexer->out, c);
        }
    }
    lexer->at += lexer->at < lexer->end;
    buffer_append_char(lexer->out, QUOTE);
}

static void add_space(struct lexer *lexer, bool after_word)
{
    while (lexer->at < lexer->end && is_space(*lexer->at)) {
        lexer->at++;
    }
    if (after_word && lexer->at < lexer->end && is_word(*lexer->at)) {
        buffer_append_char(lexer->out, ' ');
    }
}

/* Length of the tag's end at `at` ("%}", "-%}", "+%}"); 0 if that is something else. */
static size_t tag_end_length(const struct lexer *lexer, char mark)
{
    size_t sign = *lexer->at == '-' || *lexer->at == '+';
    const char *c = lexer->at + sign;

    return lexer->end - c >= 2 && c[0] == mark && c[1] == '}' ? sign + 2 : 0;
}

static void skip_after_tag(struct lexer *lexer, char sign, char mark)
{
    if (sign == '-') {
        while (lexer->at < lexer->end && is_space(*lexer->at)) {
            lexer->at++;
        }
    } else if (sign != '+' && mark != '}') {
        lexer->at += lexer->end - lexer->at >= 2 && memcmp(lexer->at, "\r\n", 2) == 0;
        lexer->at += lexer->at < lexer->end && *lexer->at == '\n';
    }
}

/* A tag from its "{" to its "}", and the white space after it that it strips. */
static void add_tag(struct lexer *lexer)
{
    char opening = lexer->at[1];
    char mark = opening == '{' ? '}' : opening;
    size_t kept = lexer->out->length;
    size_t ending = 0;
    char sign = '\0';

    buffer_append(lexer->out, lexer->at, 2);
    lexer->at += 2;
    lexer->at += lexer->at < lexer->end && (*lexer->at == '-' || *lexer->at == '+');
    while (lexer->at < lexer->end && (ending = tag_end_length(lexer, mark)) == 0) {
        char c = *lexer->at;

        if (mark != '#' && (c == '\'' || c == '"')) {
            add_string(lexer);
        } else if (is_space(c)) {
            add_space(lexer, is_word(lexer->out->data[lexer->out->length - 1]));
        } else {
            buffer_append_char(lexer->out, c);
            lexer->at++;
        }
    }
    if (mark == '#') {
        lexer->out->length = kept;
    } else {
        buffer_append_char(lexer->out, mark);
        buffer_append_char(lexer->out, '}');
    }
    if (ending > 0) {
        sign = *lexer->at;
        lexer->at += ending;
    }
    skip_after_tag(lexer, sign, mark);
}

void chat_jinja_normalise(const char *jinja, struct buffer *out)
{
    size_t length = strlen(jinja);
    struct lexer lexer = {.begin = jinja, .at = jinja, .out = out};

    length -= length > 0 && jinja[length - 1] == '\n';
    lexer.end = jinja + length;
    while (lexer.at < lexer.end) {
        add_text(&lexer, find_tag(&lexer));
        if (lexer.at < lexer.end) {
            add_tag(&lexer);
        }
    }
}

uint64_t chat_jinja_digest(const char *jinja)
{
    struct buffer form = {0};

    chat_jinja_normalise(jinja, &form);
    uint64_t digest = hash_bytes(buffer_text(&form), form.length);
    buffer_deinit(&form);
    return digest;
}
