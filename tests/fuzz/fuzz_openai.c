/* fuzz_openai.c - any bytes as the body of a chat or completion request. */
#include "coordinator/api/openai_params.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char tokenizer_json[] =
    "{\"added_tokens\":[{\"id\":2,\"content\":\"<b>\",\"special\":true}],\"pre_tokenizer\":"
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},"
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}";

static const struct tokenizer *open_tokenizer(void)
{
    static struct tokenizer *tokenizer;
    struct error err = {0};

    if (!tokenizer) {
        tokenizer =
            tokenizer_parse(tokenizer_json, sizeof(tokenizer_json) - 1, NULL, 0, "fuzz", &err);
    }
    return tokenizer;
}

static void try_kind(enum openai_kind kind, const uint8_t *data, size_t size)
{
    struct error err = {0};
    const struct api_config config = {
        .model_name = "m",
        .vocab = 3,
        .tokenizer = open_tokenizer(),
        .chat_template = chat_template_by_name("deepseek-r1", &err),
        .sampling = {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
    };
    struct openai_params params = {.kind = kind};
    struct openai_fault fault = {0};
    struct buffer body = {0};

    buffer_append(&body, data, size);
    if (openai_params_parse(&config, &body, &params, &fault)) {
        ASSERT(params.prompt_count > 0 && params.prompts[0].count > 0);
        ASSERT(params.sampling.logprobs <= 1 + OPENAI_LOGPROBS_MAX &&
               params.sampling.prompt_logprobs <= 1 + OPENAI_LOGPROBS_MAX);
        for (uint32_t i = 0; i < params.sampling.bias_count; i++) {
            const struct token_bias *bias = &params.sampling.biases[i];

            ASSERT(bias->token < config.vocab && (i == 0 || bias[-1].token < bias->token));
        }
        openai_params_release(&params);
        openai_params_deinit(&params);
    } else {
        ASSERT(fault.error.code != ERROR_NONE && fault.error.message[0] != '\0');
    }
    buffer_deinit(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ASSERT(open_tokenizer() != NULL);
    try_kind(OPENAI_CHAT, data, size);
    try_kind(OPENAI_COMPLETION, data, size);
    return 0;
}
