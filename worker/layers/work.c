/* work.c - what the operations of a step read, write and compute, from shapes and row counts.
 *
 * Weights count as they lie in memory, padding and scales included, once for each call: with many
 * rows a matrix is read again from a cache, which is no traffic of memory. The cache counts once
 * for each sequence that has rows in the call. Norms, rotations, softmax and sums are left out of
 * the operations: they are a few per value, products thousands.
 */
#include "worker/layers/forward_state.h"

void forward_lap(const struct forward *forward, uint32_t layer, enum operation operation,
                 uint32_t row_count)
{
    meter_lap(forward->config.meter, layer, operation, row_count);
}

static uint64_t matrix_bytes(const struct packed_matrix *w)
{
    return w->data == NULL ? 0 : packed_bytes(w->type, w->rows, w->columns);
}

/* Whether a product's activations are int8 codes. */
static bool is_int8(const struct forward *forward, const struct packed_matrix *w,
                    enum product_activations activations)
{
    const struct kernels *kernels = forward->config.kernels;

    return activations == PRODUCT_BY_NUMERICS && kernels->matmul != kernels->matmul_exact &&
           weight_type_is_blocks(w->type);
}

/* w . x for so many rows. */
static void matrix_count(const struct forward *forward, const struct packed_matrix *w,
                         enum product_activations activations, uint64_t row_count,
                         struct operation_work *work)
{
    uint64_t operations = 2 * row_count * w->rows * w->columns;

    if (is_int8(forward, w, activations)) {
        work->int8_operations += operations;
    } else {
        work->f32_operations += operations;
    }
}

static void activations_count(uint64_t row_count, uint64_t values, struct operation_work *work)
{
    work->activation_bytes += row_count * values * sizeof(float);
}

void products_count(const struct forward *forward, const struct product *products,
                    uint32_t product_count, uint32_t row_count)
{
    struct operation_work work = {0};

    for (uint32_t i = 0; i < product_count; i++) {
        const struct product *product = &products[i];

        work.weight_bytes += matrix_bytes(product->w);
        matrix_count(forward, product->w, product->activations, row_count, &work);
        activations_count(row_count, (uint64_t)product->w->columns + product->w->rows, &work);
        if (product->up != NULL) {
            work.weight_bytes += matrix_bytes(product->up);
            matrix_count(forward, product->up, product->activations, row_count, &work);
        }
    }
    meter_add(forward->config.meter, &work);
}

void heads_count(const struct forward *forward, const struct packed_matrix *heads,
                 uint32_t row_count)
{
    uint32_t head_count = forward->config.arch->head_count;
    uint64_t rows = (uint64_t)head_count * row_count;
    struct operation_work work = {.weight_bytes = head_count * matrix_bytes(heads)};

    matrix_count(forward, heads, PRODUCT_F32, rows, &work);
    activations_count(rows, (uint64_t)heads->rows + heads->columns, &work);
    meter_add(forward->config.meter, &work);
}

void experts_count(const struct forward *forward, const struct packed_matrix *matrix,
                   const struct packed_matrix *other, uint32_t expert_count, uint32_t job_count)
{
    struct operation_work work = {.weight_bytes = expert_count * matrix_bytes(matrix)};

    matrix_count(forward, matrix, PRODUCT_BY_NUMERICS, job_count, &work);
    activations_count(job_count, (uint64_t)matrix->columns + matrix->rows, &work);
    if (other != NULL) {
        work.weight_bytes += expert_count * matrix_bytes(other);
        matrix_count(forward, other, PRODUCT_BY_NUMERICS, job_count, &work);
        work.experts = expert_count;
    }
    meter_add(forward->config.meter, &work);
}

static uint64_t entry_bytes(const struct forward *forward)
{
    return kv_cache_config(forward->config.cache)->layout.block_bytes / KV_BLOCK_TOKENS;
}

void store_count(const struct forward *forward, uint32_t row_count)
{
    struct operation_work work = {.cache_bytes = row_count * entry_bytes(forward)};

    meter_add(forward->config.meter, &work);
}

static bool are_of_one_sequence(const struct forward_row *a, const struct forward_row *b)
{
    return a->lane == b->lane && a->slot == b->slot;
}

/* Keys that a row meets as they are cached: those of its own segment are expanded_count's. */
static uint64_t cached_keys(const struct forward *forward, const struct forward_row *row)
{
    if (forward->config.arch->attention == ATTENTION_MLA && row->token_class == TOKEN_PROMPT) {
        return row->position / ATTENTION_SEGMENT_TOKENS * ATTENTION_SEGMENT_TOKENS;
    }
    return (uint64_t)row->position + 1;
}

/* Rows of one sequence stand together: it reads its cache once, up to the last of them. */
void attention_count(const struct forward *forward, const struct forward_row *rows,
                     uint32_t row_count)
{
    struct attend_shape shape = attend_shape_of(forward->config.arch);
    uint64_t heads = forward->config.arch->head_count;
    uint64_t widths = (uint64_t)shape.key_width + shape.value_width;
    struct operation_work work = {0};
    uint64_t seen = 0;
    uint64_t read = 0;

    for (uint32_t r = 0; r < row_count; r++) {
        bool is_last = r + 1 == row_count || !are_of_one_sequence(&rows[r], &rows[r + 1]);
        uint64_t keys = cached_keys(forward, &rows[r]);

        seen += keys;
        read += is_last ? keys : 0;
    }
    work.cache_bytes = read * entry_bytes(forward);
    work.f32_operations = 2 * seen * heads * widths;
    activations_count(row_count, heads * widths, &work);
    meter_add(forward->config.meter, &work);
}

void expanded_count(const struct forward *forward, const struct packed_matrix *w_uk,
                    const struct packed_matrix *w_uv, const struct forward_row *rows,
                    uint32_t row_count)
{
    const struct arch *arch = forward->config.arch;
    uint64_t heads = arch->head_count;
    uint64_t widths = (uint64_t)arch->qk_nope_dim + arch->qk_rope_dim + arch->v_head_dim;
    struct operation_work work = {0};
    uint64_t seen = 0, expanded = 0, prompt_rows = 0;

    for (uint32_t r = 0; r < row_count; r++) {
        uint32_t segment = rows[r].position / ATTENTION_SEGMENT_TOKENS;
        uint64_t keys = (uint64_t)rows[r].position % ATTENTION_SEGMENT_TOKENS + 1;
        bool is_last = r + 1 == row_count || !are_of_one_sequence(&rows[r], &rows[r + 1]) ||
                       rows[r + 1].token_class != TOKEN_PROMPT ||
                       rows[r + 1].position / ATTENTION_SEGMENT_TOKENS != segment;

        if (rows[r].token_class == TOKEN_PROMPT) {
            prompt_rows++;
            seen += keys;
            expanded += is_last ? keys : 0;
        }
    }
    if (prompt_rows > 0) {
        work.weight_bytes = heads * (matrix_bytes(w_uk) + matrix_bytes(w_uv));
        matrix_count(forward, w_uk, PRODUCT_F32, heads * expanded, &work);
        matrix_count(forward, w_uv, PRODUCT_F32, heads * expanded, &work);
        work.cache_bytes = expanded * entry_bytes(forward);
        work.f32_operations += 2 * seen * heads * widths;
        activations_count(prompt_rows, heads * widths, &work);
    }
    meter_add(forward->config.meter, &work);
}
