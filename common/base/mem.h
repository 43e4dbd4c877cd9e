#ifndef SHOAL_BASE_MEM_H
#define SHOAL_BASE_MEM_H

/* The only room that calls malloc.
 *
 * mem_new and mem_resize serve small control-plane objects and abort when memory is out. What is
 * sized by a model, a request or a peer goes through mem_try_*, which fails with ERROR_LIMIT and
 * the figures. Big weight and cache regions come from mem_map_pages. All memory is zeroed.
 */
#include "common/base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define mem_new(type)                   ((type *)mem_alloc_zeroed(1, sizeof(type)))
#define mem_new_array(type, count)      ((type *)mem_alloc_zeroed((count), sizeof(type)))
#define mem_try_array(type, count, err) ((type *)mem_try_zeroed((count), sizeof(type), (err)))

/* count * size zeroed bytes, aligned to 64; count 0 gives a valid pointer. Aborts on overflow or
 * when memory is out. Free with mem_free. */
void *mem_alloc_zeroed(size_t count, size_t size);
/* The same, but fails with ERROR_LIMIT. */
void *mem_try_zeroed(size_t count, size_t size, struct error *err) MUST_CHECK;
/* Grows or shrinks to count * size bytes; new bytes are NOT zeroed; NULL allocates. Aborts. */
void *mem_resize(void *pointer, size_t count, size_t size);
void mem_free(void *pointer); /* NULL is legal */
char *mem_strdup(const char *text);
char *mem_strndup(const char *text, size_t length);
char *mem_printf(const char *format, ...) FORMAT_PRINTF(1, 2);

/* Anonymous zeroed pages, aligned to 2 MiB, with transparent huge pages asked for; untouched pages
 * take no memory, so the thread that first writes a page decides its NUMA node. */
void *mem_map_pages(uint64_t bytes, struct error *err) MUST_CHECK;
void mem_unmap_pages(void *pointer, uint64_t bytes); /* NULL is legal */
/* `bytes` of addresses that show one zeroed block of memory again and again: a write shows in every
 * repetition, and only the block takes memory. block_bytes: a multiple of the page size. Given back
 * with mem_unmap_pages. */
void *mem_map_repeated(uint64_t block_bytes, uint64_t bytes, struct error *err) MUST_CHECK;

/* *out = a * b; false when it does not fit. Never aborts. */
bool size_mul(size_t a, size_t b, size_t *out) MUST_CHECK;
bool size_add(size_t a, size_t b, size_t *out) MUST_CHECK;

/* For tests: the n-th mem_try_zeroed, mem_map_pages or mem_map_repeated from now fails (1 = the
 * next); 0 = never. */
void mem_fail_after(uint64_t n);

#endif
