#ifndef SHOAL_BASE_OPERATION_H
#define SHOAL_BASE_OPERATION_H

/* What the time of a step goes into: the words in which workers count it, messages carry it, and
 * profiles say it. Pure; any thread.
 *
 * A step is a row of operations, one after another, on the thread that leads it; what lies between
 * two of them counts to the later one, so that their times add up to the step's.
 */
#include <stdbool.h>
#include <stdint.h>

enum operation {
    OPERATION_EMBED,              /* embedding rows */
    OPERATION_ATTENTION_NORM,     /* norm before attention */
    OPERATION_ATTENTION_PROJECT,  /* products that make queries and cache entries */
    OPERATION_ATTENTION_STORE,    /* their norms, biases and rotation; the entries into the cache */
    OPERATION_ATTENTION_ABSORB,   /* latent attention: queries into the latent space (W_UK) */
    OPERATION_ATTENTION,          /* scores, softmax, weighted sum over the cache */
    OPERATION_ATTENTION_EXPANDED, /* latent attention of prompts in their own segments, keys
                                     expanded */
    OPERATION_ATTENTION_VALUES,   /* the sums become values (W_UV, or the division alone) */
    OPERATION_ATTENTION_OUTPUT,   /* output product and residual */
    OPERATION_MLP_NORM,           /* norm behind attention */
    OPERATION_MLP_GATE_UP,        /* dense layers: gate, up and SiLU */
    OPERATION_MLP_DOWN,           /* dense layers: down and residual */
    OPERATION_ROUTER,             /* scores and choice of experts */
    OPERATION_SHARED_GATE_UP,     /* shared expert */
    OPERATION_SHARED_DOWN,        /* shared expert */
    OPERATION_EXPERT_GATE_UP,     /* routed experts: gather, gate, up and SiLU */
    OPERATION_EXPERT_DOWN,        /* routed experts: down and weight */
    OPERATION_EXPERT_DISPATCH,    /* who computes what; frames to the group's other members */
    OPERATION_EXPERT_WAIT,        /* for the group's other members */
    OPERATION_COMBINE,            /* sums of expert rows, and residual */
    OPERATION_FINAL_NORM,         /* norm before the head */
    OPERATION_LOGITS,             /* head product */
    OPERATION_SAMPLING,           /* tokens and log-probabilities from logits */
    OPERATION_DRAFT_INPUT,        /* the draft layer's input */
    OPERATION_RECEIVE,            /* waits for the previous stage's rows, and takes them */
    OPERATION_SEND,               /* rows to the next stage */
    OPERATION_OTHER,              /* the rest of a step: tables, answers */
    OPERATION_IDLE,               /* before a step: there was none */
    OPERATION_COUNT
};
const char *operation_name(enum operation operation); /* "attention_norm" */
bool operation_find(const char *name, enum operation *out);
/* Neither idle nor waiting for frames of others. */
bool operation_is_work(enum operation operation);

/* What kind of rows a step has. */
enum operation_phase {
    OPERATION_DECODE, /* generated tokens and drafts alone */
    OPERATION_PROMPT, /* prompt tokens, alone or with others */
    OPERATION_PHASE_COUNT
};
const char *operation_phase_name(enum operation_phase phase); /* "decode", "prompt" */
bool operation_phase_find(const char *name, enum operation_phase *out);

/* Steps are sorted by their own rows: up to 1, 4, 16, … 4^7. */
#define OPERATION_CLASS_COUNT 8
uint32_t operation_class_of(uint32_t row_count);
uint32_t operation_class_rows(uint32_t row_class); /* the most; the last class has no bound */

/* What an operation moves and computes, from shapes and row counts. Bytes of weights and cache are
 * those in kernel layout, once for each call: what the caches of the processor keep is not known. A
 * multiplication and an addition are two operations. */
struct operation_work {
    uint64_t weight_bytes;     /* read */
    uint64_t cache_bytes;      /* KV cache: read and written */
    uint64_t activation_bytes; /* read and written, f32 */
    uint64_t int8_operations;
    uint64_t f32_operations;
    uint64_t experts; /* distinct routed experts whose weights were read */
};

#define OPERATION_NO_LAYER UINT32_MAX

/* The sum of many calls. */
struct operation_record {
    uint32_t layer; /* layer_count: the draft layer; OPERATION_NO_LAYER: of none */
    enum operation operation;
    enum operation_phase phase;
    uint32_t row_class;
    uint64_t calls;
    uint64_t rows; /* over the calls */
    uint64_t ns;
    struct operation_work work;
};

/* What a machine could do at most, measured by the worker's own threads; 0: not measured. */
#define OPERATION_UNIT_BYTES 24
struct machine_limits {
    double read_bytes_per_s;
    double int8_operations_per_s;
    double f32_operations_per_s;
    char int8_unit[OPERATION_UNIT_BYTES]; /* "avx512-vnni" */
    char f32_unit[OPERATION_UNIT_BYTES];  /* "avx512-fma" */
};

#endif
