/* fuzz_tokenizer.c - any bytes as tokenizer.json, and any text through what it makes. The input is
 * the file, a zero byte, and the text to encode. */
#include "tests/fuzz/tokenizer_walk.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    const char *json = (const char *)data;
    size_t json_bytes = size == 0 ? 0 : strnlen(json, size);
    const char *text = json + json_bytes;

    /* The file comes as the configuration, too: both are foreign. */
    struct tokenizer *tokenizer = tokenizer_parse(json, json_bytes, json, json_bytes, "fuzz", &err);
    ASSERT(tokenizer != NULL || err.code == ERROR_INPUT || err.code == ERROR_LIMIT);
    if (tokenizer != NULL) {
        tokenizer_walk(tokenizer, text, size - json_bytes);
    }
    tokenizer_close(tokenizer);
    return 0;
}
