#ifndef SHOAL_API_OPENAI_JSON_H
#define SHOAL_API_OPENAI_JSON_H

/* The JSON shapes of completion answers, whole and in chunks, as OpenAI's API has them. Thinking is
 * sent as both `reasoning_content` (DeepSeek, SGLang, llama-server) and `reasoning` (vLLM). Extra
 * field: `seed`, the one that was used. */
#include "coordinator/api/openai_params.h"

struct openai_choice {
    uint32_t index;
    struct buffer thinking; /* not yet sent (streams), or all of it */
    struct buffer text;
    bool done;
    bool finish_written;
    struct generation_summary summary; /* once done */
};

struct openai_answer {
    enum openai_kind kind;
    char id[48];
    int64_t created; /* unix seconds */
    const char *model;
    char fingerprint[96]; /* version and numerics */
    uint64_t seed;
    uint32_t choice_count;
    uint32_t n; /* choices of one prompt */
    struct openai_choice *choices;
};

void openai_answer_init(struct openai_answer *answer, const struct api_config *config,
                        const struct openai_params *params, uint32_t choice_count);
void openai_answer_deinit(struct openai_answer *answer);

/* New references. */
json_t *openai_json_whole(const struct openai_answer *answer);
json_t *openai_json_open(const struct openai_answer *answer, const struct openai_choice *choice);
json_t *openai_json_delta(const struct openai_answer *answer, const struct openai_choice *choice);
json_t *openai_json_finish(const struct openai_answer *answer, const struct openai_choice *choice);
json_t *openai_json_usage_chunk(const struct openai_answer *answer);

#endif
