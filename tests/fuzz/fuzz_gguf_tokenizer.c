/* fuzz_gguf_tokenizer.c - any bytes as the metadata of a tokenizer in GGUF, and any text through
 * what it makes. The input is the file; the text is what lies behind its header. */
#include "common/model/gguf.h"
#include "tests/fuzz/tokenizer_walk.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf_header header;
    struct error err = {0};

    if (gguf_header_init(&header, data, size, size, &err) != GGUF_PARSED) {
        return 0;
    }
    struct tokenizer *tokenizer = tokenizer_from_gguf(&header, &err);
    ASSERT(tokenizer != NULL || err.code == ERROR_INPUT || err.code == ERROR_LIMIT);
    if (tokenizer != NULL) {
        size_t begin = header.data_begin < size ? (size_t)header.data_begin : size;

        ASSERT(!tokenizer_adds_bos(tokenizer) ||
               tokenizer_bos(tokenizer) < tokenizer_token_count(tokenizer));
        tokenizer_walk(tokenizer, (const char *)data + begin, size - begin);
    }
    tokenizer_close(tokenizer);
    gguf_header_deinit(&header);
    return 0;
}
