/* mem.c - where memory comes from.
 *
 * Every block is aligned to 64 bytes (a cache line, an AVX-512 register) and is a plain block of
 * the C library, without a header of ours, so that sanitizers see its true borders. realloc does
 * not keep that alignment; mem_resize moves the rare block that lost it once more.
 */
#include "common/base/mem.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCK_ALIGNMENT ((size_t)64)
#define HUGE_PAGE_BYTES ((size_t)2 << 20)
/* One block beyond this is a mistake in the request, whatever the machine. */
#define BLOCK_BYTES_MAX ((size_t)1 << 40)

/* Calls until the one that fails; 0: none does. Tests only. */
static atomic_uint_fast64_t fail_countdown;

void mem_fail_after(uint64_t n)
{
    atomic_store(&fail_countdown, n);
}

static bool failure_is_due(void)
{
    uint_fast64_t left = atomic_load_explicit(&fail_countdown, memory_order_relaxed);

    while (left > 0) {
        if (atomic_compare_exchange_weak(&fail_countdown, &left, left - 1)) {
            return left == 1;
        }
    }
    return false;
}

bool size_mul(size_t a, size_t b, size_t *out)
{
    size_t product;

    if (__builtin_mul_overflow(a, b, &product)) {
        return false;
    }
    *out = product;
    return true;
}

bool size_add(size_t a, size_t b, size_t *out)
{
    size_t sum;

    if (__builtin_add_overflow(a, b, &sum)) {
        return false;
    }
    *out = sum;
    return true;
}

NO_RETURN static void memory_out(size_t count, size_t size)
{
    (void)dprintf(STDERR_FILENO, "out of memory: %zu * %zu bytes\n", count, size);
    abort();
}

/* Not zeroed; NULL when memory is out. */
static void *block_alloc(size_t bytes)
{
    void *block = NULL;

    if (bytes > BLOCK_BYTES_MAX || posix_memalign(&block, BLOCK_ALIGNMENT, bytes > 0 ? bytes : 1)) {
        return NULL;
    }
    return block;
}

static void *block_alloc_zeroed(size_t count, size_t size)
{
    size_t bytes;
    void *block = size_mul(count, size, &bytes) ? block_alloc(bytes) : NULL;

    if (block != NULL) {
        memset(block, 0, bytes);
    }
    return block;
}

void *mem_alloc_zeroed(size_t count, size_t size)
{
    void *block = block_alloc_zeroed(count, size);

    if (block == NULL) {
        memory_out(count, size);
    }
    return block;
}

void *mem_try_zeroed(size_t count, size_t size, struct error *err)
{
    void *block = failure_is_due() ? NULL : block_alloc_zeroed(count, size);

    if (block == NULL) {
        error_set(err, ERROR_LIMIT, "out of memory: %zu * %zu bytes", count, size);
    }
    return block;
}

/* Takes a block of `bytes` that may be off the alignment; gives one that is on it, or NULL. */
static void *block_realign(void *block, size_t bytes)
{
    void *aligned;

    if ((uintptr_t)block % BLOCK_ALIGNMENT == 0) {
        return block;
    }
    aligned = block_alloc(bytes);
    if (aligned != NULL) {
        memcpy(aligned, block, bytes);
    }
    free(block);
    return aligned;
}

void *mem_resize(void *pointer, size_t count, size_t size)
{
    void *block = NULL;
    size_t bytes;

    if (size_mul(count, size, &bytes) && bytes <= BLOCK_BYTES_MAX) {
        bytes = bytes > 0 ? bytes : 1;
        block = pointer == NULL ? block_alloc(bytes) : realloc(pointer, bytes);
    }
    if (block != NULL) {
        block = block_realign(block, bytes);
    }
    if (block == NULL) {
        memory_out(count, size);
    }
    return block;
}

void mem_free(void *pointer)
{
    free(pointer);
}

char *mem_strdup(const char *text)
{
    return mem_strndup(text, strlen(text));
}

char *mem_strndup(const char *text, size_t length)
{
    size_t bytes = strnlen(text, length);
    char *copy = mem_resize(NULL, bytes + 1, 1);

    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    return copy;
}

char *mem_printf(const char *format, ...)
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
    text = mem_resize(NULL, (size_t)length + 1, 1);
    (void)vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

/* Whole pages, at least one; false when that overflows. */
static bool pages_round_up(uint64_t bytes, size_t *out)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    size_t sum;

    if (bytes == 0) {
        bytes = 1;
    }
    if (bytes > SIZE_MAX || !size_add((size_t)bytes, page_bytes - 1, &sum)) {
        return false;
    }
    *out = sum / page_bytes * page_bytes;
    return true;
}

/* Maps one huge page too much and gives back what lies before and behind the aligned part. */
static void *map_aligned(size_t bytes)
{
    size_t mapped;
    char *begin;
    size_t before;
    size_t behind;

    if (!size_add(bytes, HUGE_PAGE_BYTES, &mapped)) {
        errno = ENOMEM;
        return NULL;
    }
    begin = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (begin == MAP_FAILED) {
        return NULL;
    }
    before = (HUGE_PAGE_BYTES - (uintptr_t)begin % HUGE_PAGE_BYTES) % HUGE_PAGE_BYTES;
    behind = HUGE_PAGE_BYTES - before; /* never 0 */
    if (before > 0) {
        (void)munmap(begin, before);
    }
    (void)munmap(begin + before + bytes, behind);
    return begin + before;
}

void *mem_map_pages(uint64_t bytes, struct error *err)
{
    size_t rounded;
    void *pages = NULL;

    if (!failure_is_due() && pages_round_up(bytes, &rounded)) {
        pages = map_aligned(rounded);
    }
    if (pages == NULL) {
        error_set(err, ERROR_LIMIT, "out of memory: cannot map %" PRIu64 " bytes", bytes);
        return NULL;
    }
    if (rounded >= HUGE_PAGE_BYTES) {
        /* A wish: a kernel without transparent huge pages refuses, and small pages work too. */
        (void)madvise(pages, rounded, MADV_HUGEPAGE);
    }
    return pages;
}

void mem_unmap_pages(void *pointer, uint64_t bytes)
{
    size_t rounded;

    if (pointer == NULL) {
        return;
    }
    ASSERT(pages_round_up(bytes, &rounded));
    ASSERT(munmap(pointer, rounded) == 0);
}

static bool map_blocks(char *pages, size_t bytes, int file, size_t block_bytes)
{
    for (size_t at = 0; at < bytes; at += block_bytes) {
        size_t part = bytes - at < block_bytes ? bytes - at : block_bytes;

        if (mmap(pages + at, part, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) ==
            MAP_FAILED) {
            return false;
        }
    }
    return true;
}

static void *map_repeated(size_t block_bytes, size_t bytes, int file)
{
    void *pages;

    if (file < 0 || ftruncate(file, (off_t)block_bytes) != 0) {
        return NULL;
    }
    pages = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED) {
        return NULL;
    }
    if (!map_blocks(pages, bytes, file, block_bytes)) {
        (void)munmap(pages, bytes);
        return NULL;
    }
    return pages;
}

void *mem_map_repeated(uint64_t block_bytes, uint64_t bytes, struct error *err)
{
    size_t rounded;
    void *pages = NULL;

    ASSERT(block_bytes > 0 && block_bytes % (uint64_t)sysconf(_SC_PAGESIZE) == 0);
    if (!failure_is_due() && pages_round_up(bytes, &rounded)) {
        int file = memfd_create("repeated", MFD_CLOEXEC);

        pages = map_repeated(block_bytes, rounded, file);
        if (file >= 0) {
            (void)close(file); /* the mappings keep it */
        }
    }
    if (pages == NULL) {
        error_set(err, ERROR_LIMIT,
                  "out of memory: cannot map %" PRIu64 " bytes again and again over %" PRIu64,
                  block_bytes, bytes);
    }
    return pages;
}
