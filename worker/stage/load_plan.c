/* load_plan.c - a share's tensors, cut into units and chunks.
 *
 * Units are cut at the piece's granularity so that two threads never pack the same panel.
 */
#include "worker/stage/load_plan.h"

#include "common/base/mem.h"

#define BLOCK_BYTES ((uint64_t)256 << 10)

uint64_t load_row_bytes(const struct tensor *tensor)
{
    return weight_row_bytes(tensor->type, tensor->columns);
}

/* Rows that take about `bytes`: a multiple of the granularity, at least one granule. */
static uint32_t rows_of_bytes(const struct tensor *tensor, uint32_t granularity, uint64_t bytes)
{
    uint64_t granule_bytes = load_row_bytes(tensor) * granularity;
    uint64_t granules = granule_bytes > 0 ? bytes / granule_bytes : 1;
    uint64_t rows = (granules > 0 ? granules : 1) * granularity;

    return rows < tensor->rows ? (uint32_t)rows : tensor->rows;
}

uint32_t load_block_rows(const struct weights *weights, const struct weights_piece *piece)
{
    /* The blocks of a unit are one thread's: they may cut a row of scales, but no panel. */
    uint32_t granularity =
        piece->kind == PIECE_PACK ? PANEL_ROWS : weights_piece_granularity(weights, piece);

    return rows_of_bytes(piece->tensor, granularity, BLOCK_BYTES);
}

/* Appends the chunks of a range, or only counts them while there is no array. */
static void add_range(struct load_plan *plan, const struct tensor *tensor, uint32_t file,
                      uint64_t offset, uint64_t bytes)
{
    while (bytes > 0) {
        uint64_t part = bytes < LOAD_CHUNK_BYTES ? bytes : LOAD_CHUNK_BYTES;

        if (plan->chunks != NULL) {
            plan->chunks[plan->chunk_count] =
                (struct load_chunk){offset, (uint32_t)part, file, tensor};
        }
        plan->chunk_count++;
        offset += part;
        bytes -= part;
    }
}

static void add_unit(struct load_plan *plan, const struct weights_piece *piece, uint32_t row_begin,
                     uint32_t row_end)
{
    const struct tensor *tensor = piece->tensor;
    uint64_t row_bytes = load_row_bytes(tensor);
    struct load_unit unit = {piece, row_begin, row_end, plan->chunk_count, 0, 0};

    add_range(plan, tensor, tensor->file, tensor->offset + row_begin * row_bytes,
              (row_end - row_begin) * row_bytes);
    unit.scale_chunk_begin = plan->chunk_count;
    if (tensor->scales.bytes > 0) {
        uint64_t scale_row_bytes = scale_block_count(tensor->columns) * sizeof(float);
        uint32_t first = row_begin / SCALE_BLOCK;
        uint64_t bytes = (scale_block_count(row_end) - first) * scale_row_bytes;

        add_range(plan, tensor, tensor->scales.file,
                  tensor->scales.offset + first * scale_row_bytes, bytes);
        plan->scale_bytes_max = bytes > plan->scale_bytes_max ? bytes : plan->scale_bytes_max;
    }
    unit.chunk_end = plan->chunk_count;
    if (plan->units != NULL) {
        plan->units[plan->unit_count] = unit;
    }
    plan->unit_count++;
}

static void add_piece(struct load_plan *plan, const struct weights *weights,
                      const struct weights_piece *piece)
{
    const struct tensor *tensor = piece->tensor;
    uint32_t rows =
        rows_of_bytes(tensor, weights_piece_granularity(weights, piece), LOAD_CHUNK_BYTES);
    uint64_t block_bytes = load_block_rows(weights, piece) * load_row_bytes(tensor);

    if (block_bytes > plan->block_bytes_max) {
        plan->block_bytes_max = block_bytes;
    }
    plan->file_bytes += tensor->bytes + tensor->scales.bytes;
    for (uint32_t row = 0; row < tensor->rows;) {
        uint32_t left = tensor->rows - row;
        uint32_t end = row + (left < rows ? left : rows);

        add_unit(plan, piece, row, end);
        row = end;
    }
}

static void cut(struct load_plan *plan, const struct weights *weights)
{
    plan->unit_count = 0;
    plan->chunk_count = 0;
    plan->file_bytes = 0;
    for (uint32_t i = 0; i < weights->piece_count; i++) {
        if (!weights->parts[weights->pieces[i].part].is_filled) {
            add_piece(plan, weights, &weights->pieces[i]);
        }
    }
}

struct load_plan *load_plan_create(const struct weights *weights)
{
    struct load_plan *plan = mem_new(struct load_plan);

    cut(plan, weights);
    plan->units = mem_new_array(struct load_unit, plan->unit_count);
    plan->chunks = mem_new_array(struct load_chunk, plan->chunk_count);
    cut(plan, weights);
    return plan;
}

void load_plan_destroy(struct load_plan *plan)
{
    if (plan == NULL) {
        return;
    }
    mem_free(plan->units);
    mem_free(plan->chunks);
    mem_free(plan);
}
