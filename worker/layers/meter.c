/* meter.c - counters of operations.
 *
 * A table with a cell for each layer, operation, phase and class of rows; pages of cells that never
 * occur are never touched. One thread writes, so a counter is raised by a load and a store, both
 * relaxed: another thread may read each of them without stopping the writer.
 */
#include "worker/layers/meter.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <stdatomic.h>

#define CELLS_PER_LAYER ((size_t)OPERATION_COUNT * OPERATION_PHASE_COUNT * OPERATION_CLASS_COUNT)

enum field {
    FIELD_CALLS,
    FIELD_ROWS,
    FIELD_NS,
    FIELD_WEIGHT_BYTES,
    FIELD_CACHE_BYTES,
    FIELD_ACTIVATION_BYTES,
    FIELD_INT8_OPERATIONS,
    FIELD_F32_OPERATIONS,
    FIELD_EXPERTS,
    FIELD_COUNT
};

struct cell {
    _Atomic uint64_t fields[FIELD_COUNT];
};

struct meter {
    uint32_t layer_begin, layer_end;
    struct cell *cells; /* [layers + 1][operation][phase][class]; the last layer is that of none */
    uint64_t cells_bytes;

    enum operation_phase phase;
    uint32_t row_class;
    int64_t lap_ns;                /* when the last operation ended; 0: there was none */
    struct operation_work pending; /* of the operation under way */
    struct operation_work step;    /* of the step's operations that ended */
};

uint64_t meter_bytes(uint32_t layer_count)
{
    return ((uint64_t)layer_count + 1) * CELLS_PER_LAYER * sizeof(struct cell);
}

struct meter *meter_create(uint32_t layer_begin, uint32_t layer_end, struct error *err)
{
    struct meter *meter = mem_new(struct meter);

    ASSERT(layer_begin <= layer_end);
    meter->layer_begin = layer_begin;
    meter->layer_end = layer_end;
    meter->cells_bytes = meter_bytes(layer_end - layer_begin);
    meter->cells = mem_map_pages(meter->cells_bytes, err);
    if (meter->cells == NULL) {
        error_wrap(err, "counters of operations");
        meter_destroy(meter);
        return NULL;
    }
    return meter;
}

void meter_destroy(struct meter *meter)
{
    if (meter != NULL) {
        mem_unmap_pages(meter->cells, meter->cells_bytes);
        mem_free(meter);
    }
}

static void work_add(struct operation_work *sum, const struct operation_work *more)
{
    sum->weight_bytes += more->weight_bytes;
    sum->cache_bytes += more->cache_bytes;
    sum->activation_bytes += more->activation_bytes;
    sum->int8_operations += more->int8_operations;
    sum->f32_operations += more->f32_operations;
    sum->experts += more->experts;
}

static struct cell *cell_of(const struct meter *meter, uint32_t layer, enum operation operation)
{
    uint32_t index = layer - meter->layer_begin;
    size_t at;

    if (layer == OPERATION_NO_LAYER) {
        index = meter->layer_end - meter->layer_begin;
    } else {
        ASSERT(layer >= meter->layer_begin && layer < meter->layer_end);
    }
    at = (size_t)index * OPERATION_COUNT + operation;
    at = at * OPERATION_PHASE_COUNT + meter->phase;
    return &meter->cells[at * OPERATION_CLASS_COUNT + meter->row_class];
}

static void raise(struct cell *cell, enum field field, uint64_t more)
{
    uint64_t value = atomic_load_explicit(&cell->fields[field], memory_order_relaxed);

    atomic_store_explicit(&cell->fields[field], value + more, memory_order_relaxed);
}

static void lap_count(struct meter *meter, struct cell *cell, uint32_t row_count, int64_t ns)
{
    const struct operation_work *work = &meter->pending;

    raise(cell, FIELD_CALLS, 1);
    raise(cell, FIELD_ROWS, row_count);
    raise(cell, FIELD_NS, (uint64_t)ns);
    raise(cell, FIELD_WEIGHT_BYTES, work->weight_bytes);
    raise(cell, FIELD_CACHE_BYTES, work->cache_bytes);
    raise(cell, FIELD_ACTIVATION_BYTES, work->activation_bytes);
    raise(cell, FIELD_INT8_OPERATIONS, work->int8_operations);
    raise(cell, FIELD_F32_OPERATIONS, work->f32_operations);
    raise(cell, FIELD_EXPERTS, work->experts);
}

void meter_add(struct meter *meter, const struct operation_work *work)
{
    if (meter != NULL) {
        work_add(&meter->pending, work);
    }
}

void meter_lap(struct meter *meter, uint32_t layer, enum operation operation, uint32_t row_count)
{
    int64_t now_ns;

    if (meter == NULL) {
        return;
    }
    now_ns = clock_monotonic_ns();
    if (meter->lap_ns != 0) {
        lap_count(meter, cell_of(meter, layer, operation), row_count, now_ns - meter->lap_ns);
    }
    meter->lap_ns = now_ns;
    work_add(&meter->step, &meter->pending);
    meter->pending = (struct operation_work){0};
}

void meter_step_begin(struct meter *meter, enum operation_phase phase, uint32_t row_count)
{
    if (meter == NULL) {
        return;
    }
    meter->phase = phase;
    meter->row_class = operation_class_of(row_count);
    meter->pending = (struct operation_work){0}; /* of a step that was abandoned */
    meter_lap(meter, OPERATION_NO_LAYER, OPERATION_IDLE, 0);
    meter->step = (struct operation_work){0};
}

struct operation_work meter_step_work(const struct meter *meter)
{
    return meter != NULL ? meter->step : (struct operation_work){0};
}

/* --- reading --- */

static uint64_t value_of(const struct cell *cell, enum field field)
{
    return atomic_load_explicit(&cell->fields[field], memory_order_relaxed);
}

static struct operation_record record_of(const struct meter *meter, size_t at)
{
    const struct cell *cell = &meter->cells[at];
    uint32_t layer = meter->layer_begin + (uint32_t)(at / CELLS_PER_LAYER);

    return (struct operation_record){
        .layer = layer == meter->layer_end ? OPERATION_NO_LAYER : layer,
        .operation =
            (enum operation)(at / OPERATION_CLASS_COUNT / OPERATION_PHASE_COUNT % OPERATION_COUNT),
        .phase = (enum operation_phase)(at / OPERATION_CLASS_COUNT % OPERATION_PHASE_COUNT),
        .row_class = (uint32_t)(at % OPERATION_CLASS_COUNT),
        .calls = value_of(cell, FIELD_CALLS),
        .rows = value_of(cell, FIELD_ROWS),
        .ns = value_of(cell, FIELD_NS),
        .work = {.weight_bytes = value_of(cell, FIELD_WEIGHT_BYTES),
                 .cache_bytes = value_of(cell, FIELD_CACHE_BYTES),
                 .activation_bytes = value_of(cell, FIELD_ACTIVATION_BYTES),
                 .int8_operations = value_of(cell, FIELD_INT8_OPERATIONS),
                 .f32_operations = value_of(cell, FIELD_F32_OPERATIONS),
                 .experts = value_of(cell, FIELD_EXPERTS)}};
}

struct operation_record *meter_records(const struct meter *meter, uint32_t *count)
{
    size_t cell_count =
        meter == NULL ? 0 : (meter->layer_end - meter->layer_begin + 1) * CELLS_PER_LAYER;
    struct operation_record *records = NULL;
    uint32_t capacity = 0;

    *count = 0;
    for (size_t at = 0; at < cell_count; at++) {
        if (value_of(&meter->cells[at], FIELD_CALLS) == 0) {
            continue;
        }
        if (*count == capacity) {
            capacity = capacity == 0 ? 64 : 2 * capacity;
            records = mem_resize(records, capacity, sizeof(*records));
        }
        records[(*count)++] = record_of(meter, at);
    }
    return records;
}
