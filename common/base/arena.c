/* arena.c - memory that dies together.
 *
 *   chunk:  | header, 64 bytes | block | block | ... next -> free ... end |
 *
 * Blocks are cut from the newest chunk. A block larger than a chunk gets a chunk of its own, put
 * behind the newest so that the room left there is not lost. Blocks are zeroed when they are cut,
 * because a chunk that survived a reset is dirty.
 */
#include "common/base/arena.h"

#include "common/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ALIGNMENT ((size_t)64)

struct arena_chunk {
    struct arena_chunk *older;
    size_t bytes; /* behind the header */
};

static char *chunk_begin(struct arena_chunk *chunk)
{
    return (char *)chunk + ALIGNMENT;
}

static size_t round_up(size_t bytes)
{
    size_t sum;

    ASSERT(size_add(bytes, ALIGNMENT - 1, &sum));
    return sum / ALIGNMENT * ALIGNMENT;
}

static struct arena_chunk *chunk_create(size_t bytes)
{
    struct arena_chunk *chunk;
    size_t total;

    ASSERT(size_add(bytes, ALIGNMENT, &total));
    chunk = mem_resize(NULL, total, 1);
    chunk->older = NULL;
    chunk->bytes = bytes;
    return chunk;
}

static void chunk_use(struct arena *arena, struct arena_chunk *chunk)
{
    arena->next = chunk_begin(chunk);
    arena->end = arena->next + chunk->bytes;
}

/* A block that fits nowhere: from a new chunk. */
static char *block_from_new_chunk(struct arena *arena, size_t bytes)
{
    struct arena_chunk *newest = arena->chunks;
    struct arena_chunk *chunk;

    if (bytes > arena->chunk_bytes && newest != NULL) {
        chunk = chunk_create(bytes);
        chunk->older = newest->older;
        newest->older = chunk;
        return chunk_begin(chunk);
    }
    chunk = chunk_create(bytes > arena->chunk_bytes ? bytes : arena->chunk_bytes);
    chunk->older = newest;
    arena->chunks = chunk;
    chunk_use(arena, chunk);
    arena->next += bytes;
    return chunk_begin(chunk);
}

void arena_init(struct arena *arena, size_t chunk_bytes)
{
    ASSERT(chunk_bytes > 0);
    memset(arena, 0, sizeof(*arena));
    arena->chunk_bytes = round_up(chunk_bytes);
}

void arena_init_fixed(struct arena *arena, void *memory, size_t bytes)
{
    ASSERT(memory != NULL && (uintptr_t)memory % ALIGNMENT == 0);
    memset(arena, 0, sizeof(*arena));
    arena->fixed_begin = memory;
    arena->next = memory;
    arena->end = arena->next + bytes / ALIGNMENT * ALIGNMENT;
}

void arena_deinit(struct arena *arena)
{
    struct arena_chunk *chunk = arena->chunks;

    while (chunk != NULL) {
        struct arena_chunk *older = chunk->older;

        mem_free(chunk);
        chunk = older;
    }
    memset(arena, 0, sizeof(*arena));
}

/* Frees all chunks but the largest, which serves the next round best. */
static struct arena_chunk *chunks_keep_largest(struct arena_chunk *chunk)
{
    struct arena_chunk *kept = NULL;

    while (chunk != NULL) {
        struct arena_chunk *older = chunk->older;
        struct arena_chunk *dropped = chunk;

        if (kept == NULL || chunk->bytes > kept->bytes) {
            dropped = kept;
            kept = chunk;
        }
        mem_free(dropped);
        chunk = older;
    }
    return kept;
}

void arena_reset(struct arena *arena)
{
    arena->used_bytes = 0;
    if (arena->fixed_begin != NULL) {
        arena->next = arena->fixed_begin;
        return;
    }
    arena->chunks = chunks_keep_largest(arena->chunks);
    if (arena->chunks != NULL) {
        arena->chunks->older = NULL;
        chunk_use(arena, arena->chunks);
    }
}

void *arena_alloc(struct arena *arena, size_t bytes)
{
    size_t rounded = round_up(bytes > 0 ? bytes : 1);
    char *block = arena->next;

    if (block != NULL && rounded <= (size_t)(arena->end - block)) {
        arena->next += rounded;
    } else {
        ASSERT(arena->fixed_begin == NULL); /* else: sized too small by the epoch */
        ASSERT(arena->chunk_bytes > 0);     /* arena_init was called */
        block = block_from_new_chunk(arena, rounded);
    }
    arena->used_bytes += rounded;
    return memset(block, 0, rounded);
}

void *arena_alloc_array(struct arena *arena, size_t count, size_t size)
{
    size_t bytes;

    ASSERT(size_mul(count, size, &bytes));
    return arena_alloc(arena, bytes);
}

char *arena_strdup(struct arena *arena, const char *text)
{
    return arena_strndup(arena, text, strlen(text));
}

char *arena_strndup(struct arena *arena, const char *text, size_t length)
{
    size_t bytes = strnlen(text, length);
    char *copy = arena_alloc(arena, bytes + 1);

    memcpy(copy, text, bytes);
    return copy;
}

char *arena_printf(struct arena *arena, const char *format, ...)
{
    va_list args;
    va_list again;
    char *text;
    int length;

    va_start(args, format);
    va_copy(again, args);
    length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    ASSERT(length >= 0);
    text = arena_alloc(arena, (size_t)length + 1);
    (void)vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}
