/* splitter.c - the pre-tokenizer's patterns, run by PCRE2.
 *
 * Patterns are data from tokenizer.json. They are compiled to machine code where the system lets us
 * (JIT), and interpreted otherwise, with equal results. Pieces go through the steps depth first, so
 * that no list of pieces is ever kept: the depth is the number of steps.
 *
 * Newline is LF only and "$" matches before each of them, as in the Ruby syntax that tokenizer.json
 * is written for.
 */
#define PCRE2_CODE_UNIT_WIDTH 8

#include "common/text/splitter.h"

#include "common/base/mem.h"
#include "common/text/pattern.h"
#include "common/text/utf8.h"

#include <pcre2.h>
#include <string.h>

#define JIT_STACK_BYTES     (64 * 1024)
#define JIT_STACK_BYTES_MAX (16 * 1024 * 1024)

struct split_step {
    pcre2_code *code;
    bool jit;
    enum split_keep keep;
};

struct split_run {
    const struct splitter *splitter;
    split_piece_fn *piece_fn;
    void *context;
    pcre2_match_context *match_context;
    pcre2_jit_stack *jit_stack; /* NULL until a pattern needs more than PCRE2's own */
    pcre2_match_data *data[SPLIT_STEPS_MAX];
};

void splitter_init(struct splitter *splitter)
{
    splitter->step_count = 0;
    splitter->steps = mem_new_array(struct split_step, SPLIT_STEPS_MAX);
}

void splitter_deinit(struct splitter *splitter)
{
    for (size_t i = 0; i < splitter->step_count; i++) {
        pcre2_code_free(splitter->steps[i].code);
    }
    mem_free(splitter->steps);
    memset(splitter, 0, sizeof *splitter);
}

static pcre2_code *compile(const char *pattern, size_t length, uint32_t options, struct error *err)
{
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    int code_of_error = 0;
    PCRE2_SIZE place = 0;

    ASSERT(context != NULL);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)pattern, length, options, &code_of_error, &place, context);
    pcre2_compile_context_free(context);
    if (code == NULL) {
        PCRE2_UCHAR reason[128] = "";

        pcre2_get_error_message(code_of_error, reason, sizeof reason);
        error_set(err, ERROR_INPUT, "the pattern does not compile: %s at byte %zu", (char *)reason,
                  (size_t)place);
    }
    return code;
}

bool splitter_add(struct splitter *splitter, const char *pattern, enum split_syntax syntax,
                  enum split_keep keep, struct error *err)
{
    struct buffer translated = {0};
    pcre2_code *code = NULL;

    if (splitter->step_count == SPLIT_STEPS_MAX) {
        return error_set(err, ERROR_INPUT, "more than %d steps", SPLIT_STEPS_MAX);
    }
    if (syntax == SPLIT_LITERAL) {
        code = compile(pattern, strlen(pattern), PCRE2_LITERAL | PCRE2_UTF, err);
    } else if (pattern_translate(pattern, strlen(pattern), &translated, err)) {
        code = compile(buffer_text(&translated), translated.length,
                       PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, err);
    }
    buffer_deinit(&translated);
    if (code == NULL) {
        return false;
    }
    splitter->steps[splitter->step_count++] = (struct split_step){
        .code = code, .jit = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0, .keep = keep};
    return true;
}

struct split_run *split_run_create(const struct splitter *splitter, split_piece_fn *piece_fn,
                                   void *context)
{
    struct split_run *run = mem_new(struct split_run);

    run->splitter = splitter;
    run->piece_fn = piece_fn;
    run->context = context;
    run->match_context = pcre2_match_context_create(NULL);
    ASSERT(run->match_context != NULL);
    for (size_t i = 0; i < splitter->step_count; i++) {
        run->data[i] = pcre2_match_data_create(1, NULL); /* the whole match; groups don't matter */
        ASSERT(run->data[i] != NULL);
    }
    return run;
}

void split_run_destroy(struct split_run *run)
{
    if (run == NULL) {
        return;
    }
    for (size_t i = 0; i < run->splitter->step_count; i++) {
        pcre2_match_data_free(run->data[i]);
    }
    pcre2_match_context_free(run->match_context);
    pcre2_jit_stack_free(run->jit_stack);
    mem_free(run);
}

static int match_once(struct split_run *run, size_t level, const char *text, size_t length,
                      size_t offset)
{
    const struct split_step *step = &run->splitter->steps[level];

    if (step->jit) {
        return pcre2_jit_match(step->code, (PCRE2_SPTR)text, length, offset, 0, run->data[level],
                               run->match_context);
    }
    return pcre2_match(step->code, (PCRE2_SPTR)text, length, offset, PCRE2_NO_UTF_CHECK,
                       run->data[level], run->match_context);
}

enum match_result { MATCH_FOUND, MATCH_NONE, MATCH_FAILED };

static enum match_result match_next(struct split_run *run, size_t level, const char *text,
                                    size_t length, size_t offset)
{
    int result = match_once(run, level, text, length, offset);

    if (result == PCRE2_ERROR_JIT_STACKLIMIT && run->jit_stack == NULL) {
        run->jit_stack = pcre2_jit_stack_create(JIT_STACK_BYTES, JIT_STACK_BYTES_MAX, NULL);
        pcre2_jit_stack_assign(run->match_context, NULL, run->jit_stack);
        result = match_once(run, level, text, length, offset);
    }
    if (result == PCRE2_ERROR_NOMATCH) {
        return MATCH_NONE;
    }
    return result >= 0 ? MATCH_FOUND : MATCH_FAILED; /* 0: more groups than there is room for */
}

static bool split_piece(struct split_run *run, size_t level, const char *text, size_t length,
                        struct error *err);

static bool split_gap(struct split_run *run, size_t level, const char *text, size_t length,
                      struct error *err)
{
    return run->splitter->steps[level].keep == SPLIT_KEEP_MATCHES ||
           split_piece(run, level + 1, text, length, err);
}

static bool split_match(struct split_run *run, size_t level, const char *text, size_t length,
                        struct error *err)
{
    return run->splitter->steps[level].keep == SPLIT_KEEP_GAPS ||
           split_piece(run, level + 1, text, length, err);
}

/* Where the search goes on: behind the match, and never twice at one place. */
static size_t offset_after(const char *text, size_t length, size_t begin, size_t end)
{
    size_t taken = 1;

    if (end > begin || end == length) {
        return end > begin ? end : length + 1;
    }
    utf8_step(text + end, length - end, &taken);
    return end + taken;
}

static bool split_piece(struct split_run *run, size_t level, const char *text, size_t length,
                        struct error *err)
{
    size_t done = 0;
    size_t offset = 0;

    if (length == 0) {
        return true;
    }
    if (level == run->splitter->step_count) {
        run->piece_fn(run->context, text, length);
        return true;
    }
    while (offset <= length) {
        enum match_result result = match_next(run, level, text, length, offset);

        if (result == MATCH_NONE) {
            break;
        }
        if (result == MATCH_FAILED) {
            return error_set(err, ERROR_LIMIT,
                             "pre-tokenizer step %zu gave up on %zu bytes of text without a break",
                             level, length);
        }
        const PCRE2_SIZE *place = pcre2_get_ovector_pointer(run->data[level]);
        size_t begin = place[0] < done ? done : place[0]; /* \K and lookbehind can move it */
        size_t end = place[1] < begin ? begin : place[1];
        if (!split_gap(run, level, text + done, begin - done, err) ||
            !split_match(run, level, text + begin, end - begin, err)) {
            return false;
        }
        done = end;
        offset = offset_after(text, length, begin, end);
    }
    return split_gap(run, level, text + done, length - done, err);
}

bool split_run_text(struct split_run *run, const char *text, size_t length, struct error *err)
{
    return split_piece(run, 0, text, length, err);
}
