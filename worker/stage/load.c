/* load.c - from files to packed weights.
 *
 * The unit of work is a run of whole rows of one piece, a few megabytes, cut at the piece's
 * granularity so that two threads never pack the same panel. Threads draw units from a cursor under
 * a mutex: a unit takes milliseconds, so nobody waits there. Each range that was read is dropped
 * from the page cache at once: a model that just fits into memory must not push its own weights
 * out with file pages nobody will read again.
 */
#include "worker/stage/load.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#define UNIT_BYTES ((uint64_t)8 << 20)

struct unit {
    const struct weights_piece *piece;
    uint32_t row_begin, row_end;
};

struct loader {
    const struct catalog *catalog;
    const struct weights *weights;
    struct load_progress *progress;
    uint64_t staging_bytes; /* of one thread */
    int *files;             /* [file_count]; -1: not needed */
    pthread_mutex_t mutex;  /* guards what follows */
    uint32_t piece;
    uint32_t row;
    bool failed;
    struct error err; /* of the first thread that failed */
};

static uint64_t row_bytes_of(const struct tensor *tensor)
{
    return weight_row_bytes(tensor->type, tensor->columns);
}

/* The range of its scales that a unit needs; those of a block row that an earlier unit began were
 * counted there. */
struct scale_range {
    uint64_t offset;
    uint64_t bytes;
    uint64_t counted_bytes;
};

static struct scale_range scale_range_of(const struct tensor *tensor, uint32_t row_begin,
                                         uint32_t row_end)
{
    uint64_t row_bytes = scale_block_count(tensor->columns) * sizeof(float);
    uint32_t first = row_begin / SCALE_BLOCK;
    uint32_t first_begun = scale_block_count(row_begin);
    uint32_t end = scale_block_count(row_end);

    if (tensor->scales.bytes == 0) {
        return (struct scale_range){0, 0, 0};
    }
    return (struct scale_range){tensor->scales.offset + first * row_bytes,
                                (end - first) * row_bytes, (end - first_begun) * row_bytes};
}

static uint64_t align_line(uint64_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* Rows of a unit: as many as fit, a multiple of the granularity, at least one granule. */
static uint32_t unit_rows(const struct weights *weights, const struct weights_piece *piece)
{
    uint32_t granularity = weights_piece_granularity(weights, piece);
    uint64_t granule_bytes = row_bytes_of(piece->tensor) * granularity;
    uint64_t granules = granule_bytes > 0 ? UNIT_BYTES / granule_bytes : 1;
    uint64_t rows = (granules > 0 ? granules : 1) * granularity;

    return rows < piece->tensor->rows ? (uint32_t)rows : piece->tensor->rows;
}

static uint64_t staging_bytes_of(const struct weights *weights)
{
    uint64_t most = 64;

    for (uint32_t i = 0; i < weights->piece_count; i++) {
        const struct weights_piece *piece = &weights->pieces[i];
        uint32_t rows = unit_rows(weights, piece);
        /* One block row more than these have: a unit may begin inside one. */
        uint64_t bytes = align_line(rows * row_bytes_of(piece->tensor)) +
                         scale_range_of(piece->tensor, 0, rows + SCALE_BLOCK).bytes;

        most = bytes > most ? bytes : most;
    }
    return most;
}

uint64_t load_staging_bytes(const struct weights *weights, uint32_t thread_count)
{
    return staging_bytes_of(weights) * thread_count;
}

static void fail(struct loader *loader, const struct error *err)
{
    pthread_mutex_lock(&loader->mutex);
    if (!loader->failed) {
        loader->failed = true;
        loader->err = *err;
    }
    pthread_mutex_unlock(&loader->mutex);
}

/* False: nothing is left, or somebody failed. */
static bool next_unit(struct loader *loader, struct unit *out)
{
    const struct weights *weights = loader->weights;
    bool found = false;

    pthread_mutex_lock(&loader->mutex);
    if (!loader->failed && loader->piece < weights->piece_count) {
        const struct weights_piece *piece = &weights->pieces[loader->piece];
        uint32_t rows = unit_rows(weights, piece);

        out->piece = piece;
        out->row_begin = loader->row;
        out->row_end =
            piece->tensor->rows - loader->row > rows ? loader->row + rows : piece->tensor->rows;
        loader->row = out->row_end;
        if (loader->row == piece->tensor->rows) {
            loader->row = 0;
            loader->piece++;
        }
        found = true;
    }
    pthread_mutex_unlock(&loader->mutex);
    return found;
}

/* Some bytes of a file of the catalog. */
struct range {
    uint32_t file;
    uint64_t offset;
    uint64_t bytes;
};

static bool read_range(struct loader *loader, const struct range *range, void *out,
                       struct error *err)
{
    int file = loader->files[range->file];

    if (!file_pread(file, out, range->bytes, range->offset,
                    loader->catalog->files[range->file].path, err)) {
        return false;
    }
    /* Only a hint: a file system without it keeps its pages. */
    (void)posix_fadvise(file, (off_t)range->offset, (off_t)range->bytes, POSIX_FADV_DONTNEED);
    return true;
}

static bool read_unit(struct loader *loader, const struct unit *unit, char *staging,
                      struct error *err)
{
    const struct tensor *tensor = unit->piece->tensor;
    uint64_t row_bytes = row_bytes_of(tensor);
    uint64_t bytes = (unit->row_end - unit->row_begin) * row_bytes;
    struct scale_range scales = scale_range_of(tensor, unit->row_begin, unit->row_end);
    struct range value_range = {tensor->file, tensor->offset + unit->row_begin * row_bytes, bytes};
    struct range scale_range = {tensor->scales.file, scales.offset, scales.bytes};
    struct weights_rows rows = {unit->row_begin, unit->row_end, staging,
                                (const void *)(staging + align_line(bytes))};

    if (!read_range(loader, &value_range, staging, err) ||
        (scales.bytes > 0 && !read_range(loader, &scale_range, staging + align_line(bytes), err))) {
        return error_wrap(err, "tensor %s", tensor->name);
    }
    if (!weights_fill(loader->weights, unit->piece, &rows, err)) {
        return error_wrap(err, "%s", loader->catalog->files[tensor->file].path);
    }
    atomic_fetch_add_explicit(&loader->progress->done_bytes, bytes + scales.counted_bytes,
                              memory_order_relaxed);
    return true;
}

static void *loader_thread(void *context)
{
    struct loader *loader = context;
    struct error err = {0};
    struct unit unit;
    char *staging = mem_try_zeroed(loader->staging_bytes, 1, &err);

    if (staging == NULL) {
        error_wrap(&err, "staging buffer");
        fail(loader, &err);
    }
    while (staging != NULL && next_unit(loader, &unit)) {
        if (atomic_load(&loader->progress->cancel)) {
            error_set(&err, ERROR_PEER, "loading was cancelled");
            fail(loader, &err);
        } else if (!read_unit(loader, &unit, staging, &err)) {
            fail(loader, &err);
        }
    }
    mem_free(staging);
    return NULL;
}

static bool open_file(struct loader *loader, uint32_t file, struct error *err)
{
    if (loader->files[file] < 0) {
        loader->files[file] = open(loader->catalog->files[file].path, O_RDONLY | O_CLOEXEC);
    }
    return loader->files[file] >= 0 ||
           error_set_errno(err, "%s", loader->catalog->files[file].path);
}

static bool open_files(struct loader *loader, struct error *err)
{
    for (uint32_t i = 0; i < loader->catalog->file_count; i++) {
        loader->files[i] = -1;
    }
    for (uint32_t i = 0; i < loader->weights->piece_count; i++) {
        const struct tensor *tensor = loader->weights->pieces[i].tensor;

        if (!open_file(loader, tensor->file, err) ||
            (tensor->scales.bytes > 0 && !open_file(loader, tensor->scales.file, err))) {
            return false;
        }
    }
    return true;
}

static void close_files(struct loader *loader)
{
    for (uint32_t i = 0; i < loader->catalog->file_count; i++) {
        if (loader->files[i] >= 0) {
            (void)close(loader->files[i]);
        }
    }
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

bool load_weights(const struct catalog *catalog, const struct weights *weights,
                  uint32_t thread_count, struct load_progress *progress, struct error *err)
{
    struct loader loader = {
        .catalog = catalog,
        .weights = weights,
        .progress = progress,
        .staging_bytes = staging_bytes_of(weights),
        .files = mem_new_array(int, catalog->file_count),
        .mutex = PTHREAD_MUTEX_INITIALIZER,
    };
    bool opened = open_files(&loader, err);

    if (opened) {
        run_threads(&loader, thread_count);
    }
    close_files(&loader);
    mem_free(loader.files);
    (void)pthread_mutex_destroy(&loader.mutex);
    if (opened && loader.failed) {
        *err = loader.err;
        return false;
    }
    return opened;
}
