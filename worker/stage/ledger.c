/* ledger.c - the sum that decides whether a share fits.
 *
 * A worker that would run into the system's limit half-way through loading takes minutes to fail,
 * and the machine with it; so everything large is added up first, and refused with the figures.
 */
#include "worker/stage/ledger.h"

#include "common/base/log.h"
#include "common/base/units.h"

#include <stdio.h>
#include <string.h>

void ledger_add(struct ledger *ledger, const char *what, uint64_t bytes)
{
    ASSERT(ledger->line_count < LEDGER_LINES_MAX);
    ledger->lines[ledger->line_count].what = what;
    ledger->lines[ledger->line_count].bytes = bytes;
    ledger->line_count++;
}

uint64_t ledger_total(const struct ledger *ledger)
{
    uint64_t total = 0;

    for (uint32_t i = 0; i < ledger->line_count; i++) {
        total += ledger->lines[i].bytes;
    }
    return total;
}

/* "weights 1.20 GB, KV cache 400 MB, … = 1.80 GB of 24.0 GB" */
static void write_lines(const struct ledger *ledger, char *out, size_t out_bytes)
{
    struct units_text total, limit;
    size_t used = 0;

    for (uint32_t i = 0; i < ledger->line_count && used < out_bytes; i++) {
        struct units_text bytes;

        used +=
            (size_t)snprintf(out + used, out_bytes - used, "%s%s %s", i > 0 ? ", " : "",
                             ledger->lines[i].what, units_bytes(&bytes, ledger->lines[i].bytes));
    }
    if (used < out_bytes) {
        (void)snprintf(out + used, out_bytes - used, "; in all %s of %s",
                       units_bytes(&total, ledger_total(ledger)),
                       units_bytes(&limit, ledger->limit_bytes));
    }
}

void ledger_log(const struct ledger *ledger)
{
    char text[320];

    write_lines(ledger, text, sizeof(text));
    log_info("memory ledger: %s", text);
}

bool ledger_check(const struct ledger *ledger, struct error *err)
{
    char text[320];

    if (ledger_total(ledger) <= ledger->limit_bytes) {
        return true;
    }
    write_lines(ledger, text, sizeof(text));
    return error_set(err, ERROR_LIMIT, "not enough memory: %s", text);
}
