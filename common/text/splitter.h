#ifndef SHOAL_TEXT_SPLITTER_H
#define SHOAL_TEXT_SPLITTER_H

/* Cuts text into the pieces that are merged by themselves.
 *
 * Steps are applied in order, each to the pieces that the one before left; a piece is a text of its
 * own, so lookahead ends at its borders. Immutable once built; every run has its own match data.
 */
#include "common/base/error.h"

#include <stddef.h>

#define SPLIT_STEPS_MAX 32

enum split_syntax { SPLIT_REGEX, SPLIT_LITERAL };
enum split_keep {
    SPLIT_KEEP_BOTH,    /* matches and what lies between them: "Isolated" */
    SPLIT_KEEP_GAPS,    /* "Removed" */
    SPLIT_KEEP_MATCHES, /* "Removed" and "invert" */
};

struct split_step; /* a compiled pattern */

struct splitter {
    struct split_step *steps; /* [step_count] */
    size_t step_count;
};

void splitter_init(struct splitter *splitter);
void splitter_deinit(struct splitter *splitter);
/* ERROR_INPUT with the place in the pattern when it does not compile. */
bool splitter_add(struct splitter *splitter, const char *pattern, enum split_syntax syntax,
                  enum split_keep keep, struct error *err) MUST_CHECK;

typedef void split_piece_fn(void *context, const char *piece, size_t length);

struct split_run; /* one thread's; any number of texts one after the other */
struct split_run *split_run_create(const struct splitter *splitter, split_piece_fn *piece_fn,
                                   void *context);
void split_run_destroy(struct split_run *run);
/* Calls piece_fn for every piece in order. The text is valid UTF-8.
 * ERROR_LIMIT: a pattern needs more steps or memory than PCRE2 allows. */
bool split_run_text(struct split_run *run, const char *text, size_t length,
                    struct error *err) MUST_CHECK;

#endif
