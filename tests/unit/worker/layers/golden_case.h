#ifndef SHOAL_TESTS_GOLDEN_CASE_H
#define SHOAL_TESTS_GOLDEN_CASE_H

/* The expected outputs of one checkpoint of tests/data: little-endian f32 arrays and JSON lines.
 * Failures fail the test. */
#include <stddef.h>
#include <stdint.h>

#define GOLDEN_PROMPTS 4

struct golden_prompt {
    uint32_t token_count;
    uint32_t *tokens;
    uint32_t logits_row; /* first row of `logits` */
    uint32_t greedy[32]; /* what follows, by highest logit */
    double margins[32];  /* by how much it is the highest; 0 where the oracle does not say */
};
struct golden_route {
    uint32_t experts[16]; /* ascending id */
    float weights[16];
    double gap; /* how far the best unchosen one was from being chosen */
};
struct golden_case {
    struct golden_prompt prompts[GOLDEN_PROMPTS];
    uint32_t position_count;     /* of all prompts */
    float *logits;               /* [position_count][vocab] */
    float *hidden;               /* [layers + 2][17][hidden] of prompt 2 */
    struct golden_route *routes; /* [layer][position_count]; draft layers left out */
    size_t logits_bytes;
    size_t hidden_bytes;
};

/* chosen_count 0: a model without experts. */
struct golden_case golden_case_open(const char *name, uint32_t layer_count, uint32_t chosen_count);
void golden_case_close(struct golden_case *golden);
/* The whole file, mem_free it. */
float *golden_read_floats(const char *name, const char *file, size_t *bytes);

#endif
