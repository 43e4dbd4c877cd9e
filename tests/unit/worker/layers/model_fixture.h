#ifndef SHOAL_TESTS_MODEL_FIXTURE_H
#define SHOAL_TESTS_MODEL_FIXTURE_H

/* A small checkpoint of tests/data in memory, and an engine that runs all of its layers in one
 * process, with experts held by one or several pretended owners. Failures fail the test. */
#include "worker/layers/forward.h"

#define ENGINE_OWNERS_MAX 4
#define ENGINE_SLOTS      6

struct test_model {
    struct catalog *catalog;
    struct weights *weights;
    void *memory;
};

/* share NULL: the whole model. */
struct test_model test_model_open(const char *name, const struct weights_share *share);
void test_model_close(struct test_model *model);
/* Reads and executes one piece, `rows_per_call` rows at a time. */
void test_model_load_piece(const struct test_model *model, const struct weights_piece *piece,
                           uint32_t rows_per_call);

struct engine_options {
    enum cpu_level level;
    uint32_t thread_count;
    enum kv_type kv_type;
    uint32_t rows_max;
    uint32_t context_tokens_max;
    /* Expert e belongs to owner e / owner_run % owner_count; 0 owners: one, that has all. */
    uint32_t owner_count;
    uint32_t owner_run;
};

struct engine {
    struct engine_options options;
    const char *name;
    struct test_model model; /* everything but the experts of other owners */
    struct test_model owner_models[ENGINE_OWNERS_MAX];
    struct forward *owners[ENGINE_OWNERS_MAX]; /* [0] also does all that is not an expert */
    struct team *team;
    struct kv_cache *cache;
    struct expert_choice *choices; /* [rows][chosen] of the layer run last */
    struct expert_job *jobs;
    float *shared;
    float *outputs; /* [rows][chosen][hidden] */
    float *sums;    /* [groups][hidden] */
};

/* Called before each layer with its input, and after the last one; and after each MoE layer's
 * router. Either may be NULL. */
struct engine_taps {
    void *context;
    void (*hidden)(void *context, uint32_t layer, const float *x, uint32_t row_count);
    void (*routing)(void *context, uint32_t layer, const struct expert_choice *choices,
                    uint32_t row_count);
};

struct engine *engine_open(const char *name, const struct engine_options *options);
void engine_close(struct engine *engine);
/* One step of all layers; logits [row_count][vocab]. */
void engine_step(struct engine *engine, const struct forward_row *rows, uint32_t row_count,
                 const struct engine_taps *taps, float *logits);

#endif
