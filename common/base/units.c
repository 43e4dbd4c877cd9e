/* units.c - amounts of bytes, rates and times as people write and read them.
 *
 * Bytes and times stay integers, so that they are exact; rates are measures and become doubles.
 */
#include "common/base/units.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define DECIMALS_MAX 6 /* 10^6 * 1 TiB still fits 64 bits */

static const struct {
    const char *suffix; /* in lower case */
    uint64_t bytes;
} parse_units[] = {
    {"", 1},
    {"b", 1},
    {"k", UINT64_C(1000)},
    {"kb", UINT64_C(1000)},
    {"ki", UINT64_C(1) << 10},
    {"kib", UINT64_C(1) << 10},
    {"m", UINT64_C(1000000)},
    {"mb", UINT64_C(1000000)},
    {"mi", UINT64_C(1) << 20},
    {"mib", UINT64_C(1) << 20},
    {"g", UINT64_C(1000000000)},
    {"gb", UINT64_C(1000000000)},
    {"gi", UINT64_C(1) << 30},
    {"gib", UINT64_C(1) << 30},
    {"t", UINT64_C(1000000000000)},
    {"tb", UINT64_C(1000000000000)},
    {"ti", UINT64_C(1) << 40},
    {"tib", UINT64_C(1) << 40},
};

const char *units_bytes(struct units_text *out, uint64_t bytes)
{
    static const char *const names[] = {"kB", "MB", "GB", "TB", "PB", "EB"};
    static const uint64_t tens[] = {1, 10, 100};
    uint64_t unit = 1;

    (void)snprintf(out->text, sizeof(out->text), "%" PRIu64 " B", bytes);
    for (size_t name = 0; bytes >= 1000 && name < ARRAY_LENGTH(names); name++) {
        unit *= 1000;
        for (size_t decimals = ARRAY_LENGTH(tens); decimals-- > 0;) {
            uint64_t step = unit / tens[decimals]; /* what the last digit stands for */
            uint64_t digits = bytes / step + (bytes % step >= step / 2 ? 1 : 0);

            /* Precision 0 prints a zero as nothing: no decimals, none shown. */
            if (digits < 1000) {
                (void)snprintf(out->text, sizeof(out->text), "%" PRIu64 "%s%.*" PRIu64 " %s",
                               digits / tens[decimals], decimals > 0 ? "." : "", (int)decimals,
                               digits % tens[decimals], names[name]);
                return out->text;
            }
        }
    }
    return out->text;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* What was read of an amount: whole + fraction / fraction_scale, of a unit. */
struct amount {
    uint64_t whole;
    uint64_t fraction;
    uint64_t fraction_scale;
};

/* Returns what follows the number, or NULL. */
static const char *number_parse(const char *text, struct amount *amount)
{
    const char *begin = text;
    const char *point;

    *amount = (struct amount){.fraction_scale = 1};
    for (; is_digit(*text); text++) {
        if (__builtin_mul_overflow(amount->whole, 10, &amount->whole) ||
            __builtin_add_overflow(amount->whole, (unsigned)(*text - '0'), &amount->whole)) {
            return NULL;
        }
    }
    if (text == begin || *text != '.') {
        return text == begin ? NULL : text;
    }
    point = text++;
    for (; is_digit(*text); text++) {
        if (text - point > DECIMALS_MAX) {
            return NULL;
        }
        amount->fraction = amount->fraction * 10 + (unsigned)(*text - '0');
        amount->fraction_scale *= 10;
    }
    return text == point + 1 ? NULL : text;
}

/* 0: no such unit. */
static uint64_t unit_find(const char *suffix)
{
    for (size_t i = 0; i < ARRAY_LENGTH(parse_units); i++) {
        if (strcasecmp(suffix, parse_units[i].suffix) == 0) {
            return parse_units[i].bytes;
        }
    }
    return 0;
}

bool units_parse_bytes(const char *text, const char *what, uint64_t *bytes, struct error *err)
{
    struct amount amount;
    const char *suffix = number_parse(text, &amount);
    uint64_t unit = 0;
    uint64_t total;

    if (suffix != NULL) {
        suffix += suffix[0] == ' ' && suffix[1] != '\0' ? 1 : 0;
        unit = unit_find(suffix);
    }
    if (unit == 0 || (unit == 1 && amount.fraction != 0)) {
        return error_set(err, ERROR_USAGE,
                         "%s: \"%s\" is not an amount of bytes; write 64G, 1.5GiB or 4096", what,
                         text);
    }
    if (__builtin_mul_overflow(amount.whole, unit, &total) ||
        __builtin_add_overflow(total, amount.fraction * unit / amount.fraction_scale, &total)) {
        return error_set(err, ERROR_USAGE, "%s: %s does not fit into 64 bits", what, text);
    }
    *bytes = total;
    return true;
}

/* --- rates --- */

static const struct {
    const char *suffix;
    double bits;
} bit_units[] = {{"bit", 1}, {"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {"tbit", 1e12}};

#define RATE_MAX 1e15 /* bytes a second */

/* Bytes in a second of one of the unit before "/s"; 0: no such unit. */
static double rate_unit_find(const char *suffix)
{
    size_t length = strlen(suffix);
    char unit[8];

    if (length < 3 || length - 2 >= sizeof(unit) || strcasecmp(suffix + length - 2, "/s") != 0) {
        return 0;
    }
    memcpy(unit, suffix, length - 2);
    unit[length - 2] = '\0';
    for (size_t i = 0; i < ARRAY_LENGTH(bit_units); i++) {
        if (strcasecmp(unit, bit_units[i].suffix) == 0) {
            return bit_units[i].bits / 8;
        }
    }
    return (double)unit_find(unit);
}

bool units_parse_rate(const char *text, const char *what, double *bytes_per_s, struct error *err)
{
    struct amount amount;
    const char *suffix = number_parse(text, &amount);
    double unit = 0;
    double rate;

    if (suffix != NULL) {
        unit = rate_unit_find(suffix + (suffix[0] == ' ' ? 1 : 0));
    }
    rate = unit == 0
               ? 0
               : ((double)amount.whole + (double)amount.fraction / (double)amount.fraction_scale) *
                     unit;
    if (rate <= 0 || rate > RATE_MAX) {
        return error_set(err, ERROR_USAGE,
                         "%s: \"%s\" is not a rate; write 40GB/s, 1Gbit/s or 512MiB/s", what, text);
    }
    *bytes_per_s = rate;
    return true;
}

/* --- times --- */

/* The micro sign has two code points: U+00B5 and the Greek letter U+03BC. */
static const struct {
    const char *suffix;
    uint64_t ns;
} time_units[] = {{"ns", 1},           {"us", 1000},    {"\xc2\xb5s", 1000},
                  {"\xce\xbcs", 1000}, {"ms", 1000000}, {"s", 1000000000}};

#define DURATION_NS_MAX UINT64_C(3600000000000)

bool units_parse_duration(const char *text, const char *what, int64_t *ns, struct error *err)
{
    struct amount amount;
    const char *suffix = number_parse(text, &amount);
    uint64_t unit = 0;
    uint64_t total;

    if (suffix != NULL) {
        suffix += suffix[0] == ' ' ? 1 : 0;
        for (size_t i = 0; i < ARRAY_LENGTH(time_units); i++) {
            unit = strcmp(suffix, time_units[i].suffix) == 0 ? time_units[i].ns : unit;
        }
    }
    if (unit == 0 || __builtin_mul_overflow(amount.whole, unit, &total) ||
        __builtin_add_overflow(total, amount.fraction * unit / amount.fraction_scale, &total) ||
        total > DURATION_NS_MAX) {
        return error_set(err, ERROR_USAGE,
                         "%s: \"%s\" is not a time up to an hour; write 100us, 1.5ms or 2s", what,
                         text);
    }
    *ns = (int64_t)total;
    return true;
}
