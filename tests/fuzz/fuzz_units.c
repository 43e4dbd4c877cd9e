/* fuzz_units.c - any text as an amount of bytes, a rate, a time. */
#include "common/base/mem.h"
#include "common/base/units.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = size > 0 ? mem_strndup((const char *)data, size) : mem_strdup("");
    struct error err = {0};
    uint64_t bytes = 0;
    double rate = 0;
    int64_t ns = 0;

    if (units_parse_bytes(text, "--memory", &bytes, &err)) {
        struct units_text out;

        ASSERT(units_bytes(&out, bytes)[0] != '\0');
    } else {
        ASSERT(err.code == ERROR_USAGE && err.message[0] != '\0');
    }
    ASSERT(units_parse_rate(text, "bandwidth", &rate, &err) ? rate > 0 && rate <= 1e15
                                                            : err.code == ERROR_USAGE);
    ASSERT(units_parse_duration(text, "latency", &ns, &err) ? ns >= 0 : err.code == ERROR_USAGE);
    mem_free(text);
    return 0;
}
