#ifndef SHOAL_BASE_ARENA_H
#define SHOAL_BASE_ARENA_H

/* A lifetime with memory: process, epoch, request, step. Freed or reset as a whole.
 *
 * A growing arena (arena_init) adds chunks from mem.h and aborts when memory is out. A fixed one
 * (arena_init_fixed) never grows: arena_alloc asserts that the epoch sized it right; use it where
 * nothing may be allocated. One owner thread; no locking.
 */
#include "common/base/check.h"

#include <stddef.h>

struct arena_chunk;
struct arena {
    struct arena_chunk *chunks; /* newest first; NULL in a fixed arena */
    char *next;
    char *end;
    char *fixed_begin; /* of a fixed arena, else NULL */
    size_t chunk_bytes;
    size_t used_bytes; /* since the last reset, padding included */
};

#define arena_new(arena, type) ((type *)arena_alloc((arena), sizeof(type)))
#define arena_new_array(arena, type, count)                                                        \
    ((type *)arena_alloc_array((arena), (count), sizeof(type)))

void arena_init(struct arena *arena, size_t chunk_bytes);
/* Borrows `memory` (64-byte aligned) until arena_deinit. */
void arena_init_fixed(struct arena *arena, void *memory, size_t bytes);
void arena_deinit(struct arena *arena);
/* Everything from the arena dies; a growing arena keeps one chunk for the next round. */
void arena_reset(struct arena *arena);

/* Zeroed, aligned to 64 bytes, valid until reset or deinit. */
void *arena_alloc(struct arena *arena, size_t bytes);
void *arena_alloc_array(struct arena *arena, size_t count, size_t size); /* asserts no overflow */
char *arena_strdup(struct arena *arena, const char *text);
char *arena_strndup(struct arena *arena, const char *text, size_t length);
char *arena_printf(struct arena *arena, const char *format, ...) FORMAT_PRINTF(2, 3);

#endif
