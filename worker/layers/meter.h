#ifndef SHOAL_LAYERS_METER_H
#define SHOAL_LAYERS_METER_H

/* Where a step's time goes: by layer, operation and size of the step, with what each operation
 * read, wrote and computed.
 *
 * Always on: an operation costs one look at the clock (some 30 ns) and a few additions; a layer has
 * about ten. Owner: the compute thread; meter_records may be called by another one at any time, and
 * then gives each number as it is at that moment.
 *
 * NULL is a legal meter, which counts nothing.
 */
#include "common/base/error.h"
#include "common/base/operation.h"

struct meter;

uint64_t meter_bytes(uint32_t layer_count); /* for the ledger */
/* Layers [layer_begin, layer_end). */
struct meter *meter_create(uint32_t layer_begin, uint32_t layer_end, struct error *err) MUST_CHECK;
void meter_destroy(struct meter *meter); /* NULL is legal */

/* The time since the last operation was idle; what follows belongs to a step of this kind. */
void meter_step_begin(struct meter *meter, enum operation_phase phase, uint32_t row_count);
/* Work of the operation under way. */
void meter_add(struct meter *meter, const struct operation_work *work);
/* An operation has ended: the time since the end of the one before, and the work added meanwhile,
 * are its own. layer: a layer of the meter, or OPERATION_NO_LAYER. */
void meter_lap(struct meter *meter, uint32_t layer, enum operation operation, uint32_t row_count);
/* All work since the step began. */
struct operation_work meter_step_work(const struct meter *meter);

/* Every kind of operation that occurred, sums since the meter was made; mem_free the array. */
struct operation_record *meter_records(const struct meter *meter, uint32_t *count);

#endif
