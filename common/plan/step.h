#ifndef SHOAL_PLAN_STEP_H
#define SHOAL_PLAN_STEP_H

/* One forward pass of one micro-batch through all stages, as the scheduler emits it and every
 * worker receives it; and what a worker answers. Pure values; pointers are borrowed or lie in the
 * arena of whoever decoded them.
 */
#include <stdint.h>

#define STEP_TOKEN_NONE   UINT32_MAX
#define STEP_PROPOSE_MAX  16    /* tokens that the draft layer may be asked for */
#define STEP_LOGPROBS_MAX 1025u /* sampling_params.logprobs, .prompt_logprobs: 1 + most likely */

/* What a sequence's rows shall yield, beside new cache entries. Bits. */
enum step_want {
    WANT_SAMPLE = 1,  /* the last stage samples the token after the last row that is no draft, and
                         the one after each draft */
    WANT_LOGITS = 2,  /* the last stage answers the logits of every row */
    WANT_ROUTING = 4, /* every stage answers its routed experts of every row */
    WANT_HIDDEN = 8,  /* every stage answers the hidden states it hands over (tests, research) */
    WANT_DRAFT_LOGITS = 16, /* the last stage answers the logits of the draft layer for every row
                               whose next token is known, and with WANT_ROUTING its routed experts
                               (layer number: the placement's layer_count) */
};

struct token_bias {
    uint32_t token;
    float bias; /* added to its logit */
};

struct sampling_params {
    float temperature; /* 0: greedy */
    float top_p;       /* 1: off */
    float min_p;       /* 0: off */
    uint32_t top_k;    /* 0: off */
    uint32_t choice;   /* which of n answers */
    uint64_t seed;
    float repetition_penalty; /* 0 and 1: off; over prompt and generated tokens */
    float presence_penalty;   /* 0: off; over generated tokens */
    float frequency_penalty;  /* 0: off; over generated tokens */
    uint32_t bias_count;
    const struct token_bias *biases; /* [bias_count], rising token; lent */
    uint32_t logprobs; /* of samples. 0: none; 1 + n: the token's own and the n most likely */
    uint32_t prompt_logprobs; /* of the token after each prompt row, likewise */
};

struct step_entry {
    uint64_t sequence; /* for logs; state is found by lane and slot */
    uint32_t lane;
    uint32_t slot;     /* index of the sequence's block table on the lane */
    uint32_t position; /* of the first row; rows are consecutive */
    uint32_t token_count;
    const uint32_t *tokens;   /* [token_count] */
    uint32_t draft_count;     /* the last so many tokens are drafts: guesses to be verified */
    uint32_t next_token;      /* the token after the last row, if it is known; else
                                 STEP_TOKEN_NONE. For prompt_logprobs and the draft layer */
    uint32_t propose_max;     /* so many tokens the draft layer proposes after the last sample that
                                 stands; 0: it only keeps its cache entries. Proposals after
                                 the first need room in the cache: they end with the block table,
                                 at (block_begin + block_count) blocks */
    uint32_t generated_begin; /* positions from here on are of class generated, below: prompt */
    uint32_t block_begin;     /* the block table's entries from here on are set to… */
    uint32_t block_count;
    const uint32_t *blocks; /* …these */
    uint32_t wants;         /* enum step_want bits */
    struct sampling_params sampling;
};

struct step {
    uint64_t epoch;
    uint64_t number;  /* rising by one, never reused in an epoch */
    uint32_t attempt; /* of the epoch, in which it was issued last: 0, and one more each time that
                         the steps in flight are issued again */
    uint32_t entry_count;
    struct step_entry *entries; /* a worker's rows are those of its lanes, in this order */
};

uint32_t step_row_count(const struct step *step); /* over all lanes */
uint32_t step_lane_row_count(const struct step *step, uint32_t lane);

/* Samples are independent of whether the drafts before them are right: the coordinator lets sample
 * i + 1 stand if sample i stands and equals draft i. */
struct step_sample {
    uint32_t entry; /* index into step.entries */
    uint32_t index; /* 0: after the last row that is no draft; i: after the i-th draft */
    uint32_t token;
};
/* What the draft layer proposes to follow the entry's last sample that stands. */
struct step_proposal {
    uint32_t entry;
    uint32_t count;
    const uint32_t *tokens; /* [count] */
};
/* Log-probabilities of the token that follows a row, by the model's own logits. */
struct step_logprobs {
    uint32_t entry;
    uint32_t row;   /* inside the entry */
    uint32_t token; /* the sample after this row, or the prompt's next token */
    float logprob;
    uint32_t rank; /* 1: the most likely */
    uint32_t top_count;
    const uint32_t *top_tokens; /* [top_count], most likely first, lower id first among equals */
    const float *top_logprobs;  /* [top_count] */
};
/* Routed experts of one row in one layer, as the golden files have them. */
struct step_routing {
    uint32_t entry;
    uint32_t row; /* inside the entry */
    uint32_t layer;
    uint32_t expert_begin; /* into step_result.experts and .expert_weights */
};
/* Rows of floats: logits [row_count][vocab] or hidden [row_count][hidden]. */
struct step_rows {
    uint32_t entry;
    uint32_t row_begin; /* inside the entry */
    uint32_t row_count;
    uint32_t columns;
    const float *values;
};

/* Every worker answers every step. */
struct step_result {
    uint64_t epoch;
    uint64_t step;
    uint32_t attempt;
    uint32_t worker;
    int64_t begin_ns;   /* first row's work began, the worker's monotonic clock */
    int64_t end_ns;     /* output handed to the link */
    int64_t wait_ns;    /* of that, spent waiting for frames of peers */
    uint32_t row_count; /* own rows */
    uint32_t sample_count;
    struct step_sample *samples; /* by entry, then index */
    uint32_t proposal_count;
    struct step_proposal *proposals;
    uint32_t logprobs_count;
    struct step_logprobs *logprobs;
    uint32_t logits_count;
    struct step_rows *logits;
    uint32_t draft_logits_count;
    struct step_rows *draft_logits; /* WANT_DRAFT_LOGITS */
    uint32_t hidden_count;
    /* Output of the stage's last layer; of stage 0 first the embeddings of all entries. */
    struct step_rows *hidden;
    uint32_t routing_count;
    struct step_routing *routing;
    uint32_t chosen_count;   /* experts per routing row */
    const uint32_t *experts; /* ascending id */
    const float *expert_weights;
};

#endif
