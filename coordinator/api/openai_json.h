#ifndef SHOAL_API_OPENAI_JSON_H
#define SHOAL_API_OPENAI_JSON_H

/* The JSON shapes of completion answers, whole and in chunks, as OpenAI's API has them. Thinking is
 * sent as both `reasoning_content` (DeepSeek, SGLang, llama-server) and `reasoning` (vLLM). Extra
 * fields: `seed`, the one that was used; where asked for, vLLM's prompt_logprobs, token_ids and
 * prompt_token_ids. Private to coordinator/api. */
#include "coordinator/api/openai_params.h"

struct openai_choice {
    uint32_t index;
    const struct token_list *prompt; /* lent by the params, which keep it if the answer shows it */
    const struct generation *generation; /* lent; NULL only where neither ids nor log-probabilities
                                            are asked for */
    struct buffer thinking;              /* not yet sent (streams), or all of it */
    struct buffer text;
    bool done;
    bool echo_written;
    bool finish_written;
    struct generation_summary summary; /* once done */

    /* What of the tokens' ids and log-probabilities is in the answer. */
    size_t tokens_written;
    uint32_t offset; /* characters of their text, the echo included */
    struct detokenizer decoder;
};

struct openai_answer {
    const struct openai_params *params; /* lent */
    const struct tokenizer *tokenizer;
    char id[48];
    int64_t created; /* unix seconds */
    const char *model;
    char fingerprint[96]; /* version and numerics */
    uint32_t choice_count;
    struct openai_choice *choices;
    struct buffer chunk_head; /* what every chunk begins with */
};

/* The params are lent for the answer's life. */
void openai_answer_init(struct openai_answer *answer, const struct api_config *config,
                        const struct openai_params *params, uint32_t choice_count);
void openai_answer_deinit(struct openai_answer *answer);

/* A new reference. */
json_t *openai_json_whole(struct openai_answer *answer);

/* --- openai_stream.c: events, appended to `out` --- */
void openai_stream_open(const struct openai_answer *answer, struct openai_choice *choice,
                        struct buffer *out);
/* With the text that the choice holds; the caller clears it afterwards. */
void openai_stream_delta(const struct openai_answer *answer, struct openai_choice *choice,
                         struct buffer *out);
void openai_stream_finish(const struct openai_answer *answer, struct openai_choice *choice,
                          struct buffer *out);
void openai_stream_usage(const struct openai_answer *answer, struct buffer *out);
void openai_stream_event(json_t *body, struct buffer *out); /* takes the reference */

/* --- parts of both; new references --- */
const char *openai_reason_word(enum finish_reason reason);
json_t *openai_json_envelope(const struct openai_answer *answer, const char *object);
json_t *openai_json_usage(const struct openai_answer *answer);

/* --- openai_logprobs.c; new references --- */
/* The prompt as text, as the answer's own text is made of tokens. */
void openai_echo_text(const struct openai_answer *answer, const struct openai_choice *choice,
                      struct buffer *out);
/* The choice's "logprobs": of the prompt if it is echoed and that has not been written, and of the
 * tokens from tokens_written on. The caller moves tokens_written afterwards. Null if not asked for.
 */
json_t *openai_json_logprobs(const struct openai_answer *answer, struct openai_choice *choice);
/* vLLM's prompt_logprobs: for each token of the prompt an object by token id; null for the first.
 */
json_t *openai_json_prompt_logprobs(const struct openai_answer *answer,
                                    const struct openai_choice *choice);
json_t *openai_json_ids(const uint32_t *ids, size_t count);

#endif
