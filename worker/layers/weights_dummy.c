/* weights_dummy.c - random weights that share their memory.
 *
 * A block holds values of one type for matrices of one width, scaled by 1 / sqrt(inputs), so that
 * what a layer computes keeps its size over any number of layers. F8_E4M3 panels end with their
 * scales, whose place depends on the width: a block is a whole number of panels there, and views
 * begin at panels. A prime number of pages makes rows that are whole pages apart differ for longer.
 */
#include "worker/layers/weights_dummy.h"

#include "common/base/half.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "worker/layers/weights_internal.h"

#include <math.h>
#include <string.h>

#define PAGE_BYTES       4096
#define BLOCK_BYTES      ((uint64_t)1031 * PAGE_BYTES) /* at least */
#define BLOCKS_MAX       64
#define VIEW_ALIGNMENT   64
#define PAGE_ENTRY_SHARE 512      /* bytes mapped for one byte of page tables */
#define F8_RMS           0.8445f  /* of the codes that are drawn, see fill_f8 */
#define UNIFORM_RMS      0.57735f /* of [-1, 1) */
/* Large beside what a layer adds, so that tokens still differ after many layers. */
#define EMBEDDING_SIZE 4.0f

struct block {
    enum weight_type type;
    uint32_t columns;
    uint32_t inputs; /* of the matrix; 0 for the embedding */
    uint64_t bytes;
    uint64_t step; /* views begin at multiples of it */
    uint64_t view_bytes_max;
    char *memory;
};

struct weights_dummy {
    uint64_t seed;
    uint32_t block_count;
    struct block blocks[BLOCKS_MAX];
    uint64_t vector_bytes;
    char *vectors;
};

/* --- which blocks --- */

static uint64_t round_up(uint64_t value, uint64_t multiple)
{
    return (value + multiple - 1) / multiple * multiple;
}

static bool is_vector(const struct binding *binding)
{
    return binding->matrix == NULL &&
           (binding->tensor == NULL || binding->tensor->role != ROLE_EMBEDDING);
}

static struct block block_of(const struct binding *binding)
{
    const struct packed_matrix *matrix = binding->matrix;
    struct block block = {.inputs = 0};

    if (matrix == NULL) {
        block.type = binding->tensor->type;
        block.columns = binding->tensor->columns;
    } else {
        block.type = matrix->type;
        block.columns = matrix->columns;
        block.inputs = matrix->columns;
    }
    block.step = VIEW_ALIGNMENT;
    block.bytes = BLOCK_BYTES;
    if (block.type == WEIGHT_F8_E4M3) {
        uint64_t period = packed_panel_bytes(block.type, block.columns);

        block.step = period;
        while (period % PAGE_BYTES != 0) {
            period *= 2; /* panels are multiples of 64 */
        }
        block.bytes = round_up(BLOCK_BYTES, period);
    }
    return block;
}

static struct block *block_find(struct weights_dummy *dummy, const struct block *wanted)
{
    for (uint32_t i = 0; i < dummy->block_count; i++) {
        struct block *block = &dummy->blocks[i];

        if (block->type == wanted->type && block->columns == wanted->columns &&
            block->inputs == wanted->inputs) {
            return block;
        }
    }
    ASSERT(dummy->block_count < BLOCKS_MAX); /* a width of each role, in two types at most */
    dummy->blocks[dummy->block_count] = *wanted;
    return &dummy->blocks[dummy->block_count++];
}

/* A view begins anywhere in the first repetition. */
static uint64_t mapped_bytes(const struct block *block)
{
    return block->bytes + block->view_bytes_max;
}

struct weights_dummy *weights_dummy_plan(const struct weights *weights, uint64_t seed)
{
    const struct plan *plan = weights->plan_memory;
    struct weights_dummy *dummy = mem_new(struct weights_dummy);

    dummy->seed = seed;
    for (uint32_t i = 0; i < plan->binding_count; i++) {
        const struct binding *binding = &plan->bindings[i];

        if (is_vector(binding)) {
            dummy->vector_bytes += round_up(binding->bytes, VIEW_ALIGNMENT);
        } else {
            struct block wanted = block_of(binding);
            struct block *block = block_find(dummy, &wanted);

            if (binding->bytes > block->view_bytes_max) {
                block->view_bytes_max = binding->bytes;
            }
        }
    }
    return dummy;
}

uint64_t weights_dummy_bytes(const struct weights_dummy *dummy)
{
    uint64_t bytes = round_up(dummy->vector_bytes, PAGE_BYTES);

    for (uint32_t i = 0; i < dummy->block_count; i++) {
        const struct block *block = &dummy->blocks[i];

        bytes += block->bytes + mapped_bytes(block) / PAGE_ENTRY_SHARE;
    }
    return bytes;
}

/* --- values --- */

/* [-1, 1) from 16 random bits. */
static float uniform_of(uint64_t bits)
{
    return (float)(int16_t)(uint16_t)bits * 0x1p-15f;
}

/* The root of the values' mean square. */
static float size_of(const struct block *block)
{
    return block->inputs == 0 ? EMBEDDING_SIZE : 1.0f / sqrtf((float)block->inputs);
}

/* Codes of both signs and the exponents -3 to 0, none of them NaN; then the panels' scales. */
static void fill_f8(struct block *block, uint64_t key)
{
    uint32_t scale_count = scale_block_count(block->columns);
    float *scales = mem_new_array(float, scale_count);
    float size = size_of(block) / F8_RMS;

    for (uint64_t at = 0; at < block->bytes; at += sizeof(uint64_t)) {
        uint64_t bits = hash_counter(key, at, 0, 0);
        uint64_t codes = (bits & UINT64_C(0x9f9f9f9f9f9f9f9f)) | UINT64_C(0x2020202020202020);

        memcpy(block->memory + at, &codes, sizeof(codes));
    }
    for (uint64_t at = 0; at < block->bytes; at += block->step) {
        for (uint32_t i = 0; i < scale_count; i++) {
            scales[i] = size * (1.0f + 0.25f * uniform_of(hash_counter(key, at, i, 1)));
        }
        pack_scales(block->memory + at, block->columns, 0, PANEL_ROWS, scales);
    }
    mem_free(scales);
}

static void fill_float(struct block *block, uint64_t key)
{
    float size = size_of(block) / UNIFORM_RMS;
    uint32_t value_bytes = weight_type_bytes(block->type);

    for (uint64_t i = 0; i < block->bytes / value_bytes; i++) {
        float value = size * uniform_of(hash_counter(key, i / 4, 0, 0) >> 16 * (i % 4));
        uint16_t half = block->type == WEIGHT_F16 ? f16_of_float(value) : bf16_of_float(value);

        if (block->type == WEIGHT_F32) {
            memcpy(block->memory + i * value_bytes, &value, sizeof(value));
        } else {
            memcpy(block->memory + i * value_bytes, &half, sizeof(half));
        }
    }
}

static bool block_make(struct weights_dummy *dummy, struct block *block, struct error *err)
{
    uint64_t key = hash_counter(dummy->seed, block->type, block->columns, block->inputs);

    block->memory = mem_map_repeated(block->bytes, mapped_bytes(block), err);
    if (block->memory == NULL) {
        return false;
    }
    if (block->type == WEIGHT_F8_E4M3) {
        fill_f8(block, key);
    } else {
        fill_float(block, key);
    }
    return true;
}

/* A tensor's own random number, wherever it is computed. */
static uint64_t place_hash(const struct weights_dummy *dummy, const struct binding *binding)
{
    const struct tensor *tensor = binding->tensor;

    return hash_counter(hash_counter(dummy->seed, binding->tensor_part, 0, 0), tensor->role,
                        tensor->layer, tensor->expert);
}

/* Norms are about one, biases about zero. */
static void vector_fill(const struct weights_dummy *dummy, const struct binding *binding,
                        float *out)
{
    float centre = 1.0f, spread = 0.1f;
    uint64_t key;

    if (binding->tensor == NULL) {
        return; /* zeros */
    }
    switch (binding->tensor->role) {
    case ROLE_ROUTER_BIAS:
    case ROLE_Q_BIAS:
    case ROLE_K_BIAS:
    case ROLE_V_BIAS:
    case ROLE_OUT_BIAS:
        centre = 0.0f;
        spread = 0.02f;
        break;
    default:
        break;
    }
    key = place_hash(dummy, binding);
    for (uint64_t i = 0; i < binding->bytes / sizeof(float); i++) {
        out[i] = centre + spread * uniform_of(hash_counter(key, i, 0, 0));
    }
}

bool weights_dummy_bind(struct weights_dummy *dummy, struct weights *weights, struct error *err)
{
    const struct plan *plan = weights->plan_memory;
    char *vector;

    for (uint32_t i = 0; i < dummy->block_count; i++) {
        if (!block_make(dummy, &dummy->blocks[i], err)) {
            return false;
        }
    }
    dummy->vectors = mem_map_pages(dummy->vector_bytes, err);
    if (dummy->vectors == NULL) {
        return false;
    }
    vector = dummy->vectors;
    for (uint32_t i = 0; i < plan->binding_count; i++) {
        const struct binding *binding = &plan->bindings[i];

        if (is_vector(binding)) {
            vector_fill(dummy, binding, (float *)(void *)vector);
            *binding->pointer = vector;
            vector += round_up(binding->bytes, VIEW_ALIGNMENT);
        } else {
            struct block wanted = block_of(binding);
            const struct block *block = block_find(dummy, &wanted);
            uint64_t places = block->bytes / block->step;

            *binding->pointer = block->memory + place_hash(dummy, binding) % places * block->step;
        }
    }
    weights->file_bytes = 0;
    return true;
}

void weights_dummy_destroy(struct weights_dummy *dummy)
{
    if (dummy == NULL) {
        return;
    }
    for (uint32_t i = 0; i < dummy->block_count; i++) {
        mem_unmap_pages(dummy->blocks[i].memory, mapped_bytes(&dummy->blocks[i]));
    }
    mem_unmap_pages(dummy->vectors, dummy->vector_bytes);
    mem_free(dummy);
}
