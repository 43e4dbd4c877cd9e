#ifndef SHOAL_STAGE_LEDGER_H
#define SHOAL_STAGE_LEDGER_H

/* What a share will take in memory, line by line, before anything of it is allocated. */
#include "common/base/error.h"

#include <stdint.h>

#define LEDGER_LINES_MAX 8

struct ledger {
    uint32_t line_count;
    struct {
        const char *what; /* static */
        uint64_t bytes;
    } lines[LEDGER_LINES_MAX];
    uint64_t limit_bytes;
};

void ledger_add(struct ledger *ledger, const char *what, uint64_t bytes);
uint64_t ledger_total(const struct ledger *ledger);
/* The lines at info. */
void ledger_log(const struct ledger *ledger);
/* ERROR_LIMIT with all figures when the sum exceeds the limit. */
bool ledger_check(const struct ledger *ledger, struct error *err) MUST_CHECK;

#endif
