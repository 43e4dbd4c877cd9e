/* fuzz_tokenizer.c - any bytes as tokenizer.json, and any text through what it makes.
 *
 * The input is the file, a zero byte, and the text to encode. What comes out is decoded again; the
 * bytes agree unless the file lacks bytes, removes text or composes it, so only bounds are checked.
 */
#include "common/text/tokenizer.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(const struct tokenizer *tokenizer, const char *text, size_t length)
{
    struct text_span spans[] = {{text, length / 2, SPECIAL_PARSE},
                                {text + length / 2, length - length / 2, SPECIAL_TEXT}};
    struct token_list ids = {0};
    struct detokenizer state = {.held_count = 0};
    struct buffer out = {0};
    struct error err = {0};

    if (!tokenizer_encode(tokenizer, spans, 2, &ids, &err)) {
        ASSERT(err.code == ERROR_LIMIT);
        ASSERT(ids.count == 0);
    }
    for (size_t i = 0; i < ids.count; i++) {
        ASSERT(ids.ids[i] < tokenizer_token_count(tokenizer));
        detokenizer_push(&state, tokenizer, ids.ids[i], SPECIAL_SHOW, &out);
    }
    detokenizer_finish(&state, &out);
    token_list_deinit(&ids);
    buffer_deinit(&out);
}

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
        round_trip(tokenizer, text, size - json_bytes);
    }
    tokenizer_close(tokenizer);
    return 0;
}
