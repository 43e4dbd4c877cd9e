/* load.c - from files to packed weights.
 *
 * Threads draw units from a counter. A unit goes block by block through a staging buffer that stays
 * in the core's cache: read, checksummed, packed. When pages are not in the page cache, the kernel
 * is asked for a whole unit ahead of each thread, so that the disk always has work. What was read
 * is dropped from the page cache at once: a model that just fits into memory must not push its own
 * weights out with file pages nobody will read again.
 */
#include "worker/stage/load.h"

#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/uio.h>
#include <unistd.h>

#define ATTEMPTS_MAX 4 /* of reading a unit whose chunks are mended */

struct loader {
    const struct load_config *config;
    int *files;                   /* [file_count]; -1: not needed */
    atomic_uchar *is_brought;     /* [unit_count]: not in the page cache before, to be dropped */
    _Atomic uint32_t *units_left; /* [part_count] */
    _Atomic uint32_t next_unit;
    atomic_bool failed;
    pthread_mutex_t mutex; /* guards err */
    struct error err;      /* of the first thread that failed */
};

/* A unit under way on one thread. */
struct reading {
    struct loader *loader;
    const struct load_unit *unit;
    char *values;  /* one block */
    float *scales; /* those of the whole unit */
    uint32_t chunk;
    uint32_t chunk_done_bytes;
    uint32_t crc;
};

static uint64_t align_line(uint64_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

uint64_t load_staging_bytes(const struct load_plan *plan, uint32_t thread_count)
{
    return (align_line(plan->block_bytes_max) + align_line(plan->scale_bytes_max)) * thread_count;
}

static void fail(struct loader *loader, const struct error *err)
{
    pthread_mutex_lock(&loader->mutex);
    if (!atomic_load(&loader->failed)) {
        loader->err = *err;
        atomic_store(&loader->failed, true);
    }
    pthread_mutex_unlock(&loader->mutex);
}

/* --- the page cache: hints only, a file system without them keeps its ways --- */

static bool is_cached(int file, const struct load_chunk *chunk)
{
    char byte;
    struct iovec probe = {&byte, 1};

    return preadv2(file, &probe, 1, (off_t)chunk->offset, RWF_NOWAIT) >= 0 || errno != EAGAIN;
}

/* Asks for what a unit will read unless it is there already. */
static void bring_unit(struct loader *loader, uint32_t at)
{
    const struct load_plan *plan = loader->config->plan;
    const struct load_unit *unit = &plan->units[at];

    for (uint32_t i = unit->chunk_begin; i < unit->chunk_end; i++) {
        const struct load_chunk *chunk = &plan->chunks[i];
        int file = loader->files[chunk->file];

        if (!is_cached(file, chunk)) {
            (void)posix_fadvise(file, (off_t)chunk->offset, chunk->bytes, POSIX_FADV_WILLNEED);
            atomic_store(&loader->is_brought[at], 1);
        }
    }
}

static void drop_unit(const struct loader *loader, const struct load_unit *unit)
{
    const struct load_plan *plan = loader->config->plan;

    for (uint32_t i = unit->chunk_begin;
         atomic_load(&loader->is_brought[unit - plan->units]) != 0 && i < unit->chunk_end; i++) {
        const struct load_chunk *chunk = &plan->chunks[i];

        (void)posix_fadvise(loader->files[chunk->file], (off_t)chunk->offset, chunk->bytes,
                            POSIX_FADV_DONTNEED);
    }
}

/* --- one unit --- */

/* Takes the next bytes of the unit's chunks into account; false unless all is well with those that
 * end here. */
static enum load_verdict check_bytes(struct reading *reading, const void *bytes, uint64_t length,
                                     struct error *err)
{
    const struct load_guard *guard = reading->loader->config->guard;
    enum load_verdict verdict = LOAD_GOOD;
    const char *next = bytes;

    while (guard != NULL && length > 0 && verdict == LOAD_GOOD) {
        const struct load_chunk *chunk = &reading->loader->config->plan->chunks[reading->chunk];
        uint64_t left = chunk->bytes - reading->chunk_done_bytes;
        uint64_t part = left < length ? left : length;

        reading->crc = hash_crc32c(reading->crc, next, part);
        reading->chunk_done_bytes += (uint32_t)part;
        next += part;
        length -= part;
        if (reading->chunk_done_bytes == chunk->bytes) {
            verdict = guard->check(guard->context, reading->chunk, reading->crc, err);
            reading->chunk++;
            reading->chunk_done_bytes = 0;
            reading->crc = 0;
        }
    }
    return verdict;
}

static enum load_verdict read_bytes(struct reading *reading, uint32_t file, uint64_t offset,
                                    void *out, uint64_t bytes, struct error *err)
{
    struct loader *loader = reading->loader;

    if (!file_pread(loader->files[file], out, bytes, offset,
                    loader->config->catalog->files[file].path, err)) {
        return LOAD_BAD;
    }
    return check_bytes(reading, out, bytes, err);
}

static void begin_chunk(struct reading *reading, uint32_t chunk)
{
    reading->chunk = chunk;
    reading->chunk_done_bytes = 0;
    reading->crc = 0;
}

static enum load_verdict read_scales(struct reading *reading, struct error *err)
{
    const struct load_unit *unit = reading->unit;
    const struct load_chunk *chunks = reading->loader->config->plan->chunks;
    enum load_verdict verdict = LOAD_GOOD;
    char *out = (char *)reading->scales;

    begin_chunk(reading, unit->scale_chunk_begin);
    for (uint32_t i = unit->scale_chunk_begin; i < unit->chunk_end && verdict == LOAD_GOOD; i++) {
        verdict = read_bytes(reading, chunks[i].file, chunks[i].offset, out, chunks[i].bytes, err);
        out += chunks[i].bytes;
    }
    return verdict;
}

/* Rows [begin, end) of the unit's piece: read and packed. */
static enum load_verdict read_block(struct reading *reading, uint32_t begin, uint32_t end,
                                    struct error *err)
{
    const struct load_config *config = reading->loader->config;
    const struct load_unit *unit = reading->unit;
    const struct tensor *tensor = unit->piece->tensor;
    uint64_t row_bytes = load_row_bytes(tensor);
    uint32_t scale_row = begin / SCALE_BLOCK - unit->row_begin / SCALE_BLOCK;
    struct weights_rows rows = {begin, end, reading->values,
                                reading->scales +
                                    (size_t)scale_row * scale_block_count(tensor->columns)};
    enum load_verdict verdict =
        read_bytes(reading, tensor->file, tensor->offset + begin * row_bytes, reading->values,
                   (end - begin) * row_bytes, err);

    if (verdict == LOAD_BAD) {
        error_wrap(err, "tensor %s", tensor->name);
    } else if (verdict == LOAD_GOOD && !weights_fill(config->weights, unit->piece, &rows, err)) {
        error_wrap(err, "%s", config->catalog->files[tensor->file].path);
        verdict = LOAD_BAD;
    }
    return verdict;
}

static enum load_verdict read_unit_once(struct reading *reading, struct error *err)
{
    const struct load_config *config = reading->loader->config;
    const struct load_unit *unit = reading->unit;
    uint32_t rows = load_block_rows(config->weights, unit->piece);
    enum load_verdict verdict;

    for (uint32_t i = unit->chunk_begin; config->guard != NULL && i < unit->chunk_end; i++) {
        if (!config->guard->await(config->guard->context, i, err)) {
            return LOAD_BAD;
        }
    }
    verdict = read_scales(reading, err);
    if (verdict == LOAD_BAD) {
        error_wrap(err, "scales of tensor %s", unit->piece->tensor->name);
    }
    begin_chunk(reading, unit->chunk_begin);
    for (uint32_t row = unit->row_begin; row < unit->row_end && verdict == LOAD_GOOD;) {
        uint32_t left = unit->row_end - row;
        uint32_t end = row + (left < rows ? left : rows);

        verdict = read_block(reading, row, end, err);
        row = end;
    }
    return verdict;
}

/* Bytes of the unit, without scales of a block row that an earlier unit began. */
static uint64_t unit_bytes(const struct load_unit *unit)
{
    const struct tensor *tensor = unit->piece->tensor;
    uint64_t bytes = (unit->row_end - unit->row_begin) * load_row_bytes(tensor);

    if (tensor->scales.bytes > 0) {
        uint32_t block_rows = scale_block_count(unit->row_end) - scale_block_count(unit->row_begin);

        bytes += (uint64_t)block_rows * scale_block_count(tensor->columns) * sizeof(float);
    }
    return bytes;
}

static bool read_unit(struct reading *reading, struct error *err)
{
    enum load_verdict verdict = LOAD_AGAIN;

    for (int attempt = 0; attempt < ATTEMPTS_MAX && verdict == LOAD_AGAIN; attempt++) {
        verdict = read_unit_once(reading, err);
    }
    if (verdict == LOAD_AGAIN) {
        return error_set(err, ERROR_SYSTEM,
                         "tensor %s: what is written into the cache comes back changed, %d times",
                         reading->unit->piece->tensor->name, ATTEMPTS_MAX);
    }
    if (verdict == LOAD_BAD) {
        return false;
    }
    drop_unit(reading->loader, reading->unit);
    atomic_fetch_sub(&reading->loader->units_left[reading->unit->piece->part], 1);
    atomic_fetch_add_explicit(&reading->loader->config->progress->done_bytes,
                              unit_bytes(reading->unit), memory_order_relaxed);
    return true;
}

/* --- threads --- */

/* NULL: nothing is left, or somebody failed. */
static const struct load_unit *take_unit(struct loader *loader)
{
    const struct load_config *config = loader->config;
    const struct load_plan *plan = config->plan;
    uint32_t at;
    uint32_t ahead;

    if (atomic_load(&loader->failed)) {
        return NULL;
    }
    at = atomic_fetch_add(&loader->next_unit, 1);
    ahead = at + config->thread_count;
    if (at >= plan->unit_count) {
        return NULL;
    }
    if (at < config->thread_count) {
        bring_unit(loader, at);
    }
    if (ahead < plan->unit_count) {
        bring_unit(loader, ahead);
    }
    return &plan->units[at];
}

static void *loader_thread(void *context)
{
    struct loader *loader = context;
    const struct load_plan *plan = loader->config->plan;
    struct reading reading = {.loader = loader};
    struct error err = {0};
    char *staging = mem_try_zeroed(load_staging_bytes(plan, 1), 1, &err);

    if (staging == NULL) {
        error_wrap(&err, "staging buffer");
        fail(loader, &err);
        return NULL;
    }
    reading.values = staging;
    reading.scales = (float *)(void *)(staging + align_line(plan->block_bytes_max));
    while ((reading.unit = take_unit(loader)) != NULL) {
        if (atomic_load(&loader->config->progress->cancel)) {
            error_set(&err, ERROR_PEER, "loading was cancelled");
            fail(loader, &err);
        } else if (!read_unit(&reading, &err)) {
            fail(loader, &err);
        }
    }
    mem_free(staging);
    return NULL;
}

static void run_threads(struct loader *loader, uint32_t thread_count)
{
    pthread_t *threads = mem_new_array(pthread_t, thread_count);
    uint32_t started = 0;

    while (started + 1 < thread_count &&
           pthread_create(&threads[started], NULL, loader_thread, loader) == 0) {
        started++;
    }
    (void)loader_thread(loader); /* with fewer threads it only takes longer */
    for (uint32_t i = 0; i < started; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    mem_free(threads);
}

/* --- files --- */

static bool open_files(struct loader *loader, struct error *err)
{
    const struct load_plan *plan = loader->config->plan;
    const struct catalog *catalog = loader->config->catalog;

    for (uint32_t i = 0; i < catalog->file_count; i++) {
        loader->files[i] = -1;
    }
    for (uint32_t i = 0; i < plan->chunk_count; i++) {
        uint32_t file = plan->chunks[i].file;

        if (loader->files[file] < 0) {
            loader->files[file] = open(catalog->files[file].path, O_RDONLY | O_CLOEXEC);
        }
        if (loader->files[file] < 0) {
            return error_set_errno(err, "%s", catalog->files[file].path);
        }
    }
    return true;
}

static void close_files(struct loader *loader)
{
    for (uint32_t i = 0; i < loader->config->catalog->file_count; i++) {
        if (loader->files[i] >= 0) {
            (void)close(loader->files[i]);
        }
    }
}

/* --- parts --- */

static void count_units(struct loader *loader)
{
    const struct load_plan *plan = loader->config->plan;

    for (uint32_t i = 0; i < plan->unit_count; i++) {
        atomic_fetch_add(&loader->units_left[plan->units[i].piece->part], 1);
    }
}

/* Once no thread runs any more. */
static void mark_filled(const struct loader *loader)
{
    struct weights *weights = loader->config->weights;

    for (uint32_t i = 0; i < weights->part_count; i++) {
        weights->parts[i].is_filled = atomic_load(&loader->units_left[i]) == 0;
    }
}

bool load_weights(const struct load_config *config, struct error *err)
{
    struct loader loader = {
        .config = config,
        .files = mem_new_array(int, config->catalog->file_count),
        .is_brought = mem_new_array(atomic_uchar, config->plan->unit_count),
        .units_left = mem_new_array(_Atomic uint32_t, config->weights->part_count),
        .mutex = PTHREAD_MUTEX_INITIALIZER,
    };
    bool opened = open_files(&loader, err);

    count_units(&loader);
    if (opened) {
        run_threads(&loader, config->thread_count);
    }
    mark_filled(&loader);
    close_files(&loader);
    mem_free(loader.files);
    mem_free(loader.is_brought);
    mem_free(loader.units_left);
    (void)pthread_mutex_destroy(&loader.mutex);
    if (opened && atomic_load(&loader.failed)) {
        *err = loader.err;
        return false;
    }
    return opened;
}
