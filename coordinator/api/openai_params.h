#ifndef SHOAL_API_OPENAI_PARAMS_H
#define SHOAL_API_OPENAI_PARAMS_H

/* The body of a completion request, checked: every field of the wrong type or range is refused by
 * name, and so is what this server cannot do (silently ignoring it would change the answer). Fields
 * that have no effect on the answer (user, metadata, …) are ignored as OpenAI's own API does. */
#include "coordinator/api/api.h"
#include "coordinator/api/generation.h"

#include <jansson.h>

enum openai_kind { OPENAI_CHAT, OPENAI_COMPLETION };

#define OPENAI_STOP_MAX     16
#define OPENAI_CHOICES_MAX  128
#define OPENAI_BIASES_MAX   1024 /* tokens of logit_bias */
#define OPENAI_LOGPROBS_MAX 20   /* likely tokens of logprobs, top_logprobs, prompt_logprobs */

struct openai_params {
    enum openai_kind kind;
    bool stream;
    bool include_usage;
    bool ignore_eos;
    uint32_t n;
    uint32_t tokens_max;             /* GENERATION_TOKENS_ALL: up to the context's end; 0: none */
    struct sampling_params sampling; /* with a seed, given or made */
    struct token_bias *biases;       /* owned; sampling.biases */
    /* What the answer shows; sampling has what is needed for it. 0: none, 1 + n as there. */
    uint32_t logprobs, prompt_logprobs;
    bool echo;
    bool return_token_ids;
    enum request_class request_class;  /* BATCH: "service_tier": "flex", or a priority above 0 */
    bool tier_named;                   /* the answer then names it too */
    const char *stop[OPENAI_STOP_MAX]; /* lent by the body */
    size_t stop_count;
    size_t prompt_count;
    struct token_list *prompts; /* [prompt_count], owned */
    enum reasoning_mode reasoning;
    json_t *body; /* owned: strings above point into it */
};

/* What is wrong with a request: the error and, where one is at fault, its field. */
struct openai_fault {
    struct error error; /* ERROR_USAGE and ERROR_INPUT are the client's */
    const char *param;  /* or NULL */
    bool model_unknown; /* answered 404 */
    bool too_long;      /* does not fit the context */
};
/* out->kind is set by the caller, the rest zero. On failure out is empty. */
bool openai_params_parse(const struct api_config *config, const struct buffer *body,
                         struct openai_params *out, struct openai_fault *fault) MUST_CHECK;
/* Frees what only the start of generation needs: the body, biases, and the prompts unless the
 * answer shows them. */
void openai_params_release(struct openai_params *params);
void openai_params_deinit(struct openai_params *params);

#endif
