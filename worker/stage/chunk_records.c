/* chunk_records.c - see chunk_records.h.
 *
 * In memory the records are an open-addressed table; forgetting marks an entry, so that probing
 * goes on behind it.
 */
#include "worker/stage/chunk_records.h"

#include "common/base/bytes.h"
#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define RECORD_BYTES   32
#define VERSION        1
#define FILE_BYTES_MAX ((size_t)512 << 20)

static const char magic[8] = "SHOALCHK";

enum entry_state { ENTRY_FREE, ENTRY_HELD, ENTRY_FORGOTTEN };
struct entry {
    uint64_t name_hash;
    uint64_t offset;
    uint32_t bytes;
    uint32_t crc32c;
    enum entry_state state;
};

struct chunk_records {
    int file;
    char *path;
    pthread_mutex_t mutex; /* guards what follows */
    struct entry *entries;
    uint32_t capacity; /* a power of two */
    uint32_t used;     /* held or forgotten */
    uint32_t count;
};

/* --- the table --- */

static uint64_t name_hash(const char *name)
{
    return hash_bytes(name, strlen(name));
}

static bool is_of(const struct entry *entry, const struct entry *wanted)
{
    return entry->name_hash == wanted->name_hash && entry->offset == wanted->offset &&
           entry->bytes == wanted->bytes;
}

/* The entry of the chunk, or the free one where it would go. */
static struct entry *entry_at(struct entry *entries, uint32_t capacity, const struct entry *wanted)
{
    uint64_t at = hash_counter(wanted->name_hash, wanted->offset, wanted->bytes, 0);

    for (;; at++) {
        struct entry *entry = &entries[at & (capacity - 1)];

        if (entry->state == ENTRY_FREE || is_of(entry, wanted)) {
            return entry;
        }
    }
}

static void table_grow(struct chunk_records *records)
{
    uint32_t capacity = records->capacity == 0 ? 1024 : records->capacity * 2;
    struct entry *entries = mem_new_array(struct entry, capacity);

    records->used = 0;
    for (uint32_t i = 0; i < records->capacity; i++) {
        if (records->entries[i].state == ENTRY_HELD) {
            *entry_at(entries, capacity, &records->entries[i]) = records->entries[i];
            records->used++;
        }
    }
    mem_free(records->entries);
    records->entries = entries;
    records->capacity = capacity;
}

static void table_put(struct chunk_records *records, const struct entry *added)
{
    struct entry *entry;

    if (records->used >= records->capacity / 2) {
        table_grow(records);
    }
    entry = entry_at(records->entries, records->capacity, added);
    records->used += entry->state == ENTRY_FREE;
    records->count += entry->state != ENTRY_HELD;
    *entry = *added;
    entry->state = ENTRY_HELD;
}

static struct entry entry_of(const struct chunk_key *key, uint32_t crc32c)
{
    return (struct entry){name_hash(key->name), key->offset, key->bytes, crc32c, ENTRY_HELD};
}

/* --- the file --- */

static void header_make(uint8_t out[RECORD_BYTES])
{
    memset(out, 0, RECORD_BYTES);
    memcpy(out, magic, sizeof(magic));
    bytes_put(out + 8, VERSION, 4);
    bytes_put(out + 12, hash_crc32c(0, out, 12), 4);
}

static void record_make(const struct entry *entry, uint8_t out[RECORD_BYTES])
{
    bytes_put(out, entry->name_hash, 8);
    bytes_put(out + 8, entry->offset, 8);
    bytes_put(out + 16, entry->bytes, 4);
    bytes_put(out + 20, entry->crc32c, 4);
    bytes_put(out + 24, 0, 4);
    bytes_put(out + 28, hash_crc32c(0, out, 28), 4);
}

static void record_take(struct chunk_records *records, const uint8_t *in)
{
    struct entry entry = {bytes_get(in, 8), bytes_get(in + 8, 8), (uint32_t)bytes_get(in + 16, 4),
                          (uint32_t)bytes_get(in + 20, 4), ENTRY_HELD};

    if (bytes_get(in + 28, 4) == hash_crc32c(0, in, 28)) {
        table_put(records, &entry);
    }
}

static bool begin_anew(struct chunk_records *records, struct error *err)
{
    uint8_t header[RECORD_BYTES];

    header_make(header);
    return (ftruncate(records->file, 0) == 0 &&
            write(records->file, header, sizeof(header)) == (ssize_t)sizeof(header)) ||
           error_set_errno(err, "%s", records->path);
}

/* What is there; a part of a record at the end is cut off. */
static bool records_read(struct chunk_records *records, struct error *err)
{
    uint8_t header[RECORD_BYTES];
    char *text;
    size_t length;

    if (!file_read(records->path, FILE_BYTES_MAX, &text, &length, err)) {
        return false;
    }
    header_make(header);
    if (length < RECORD_BYTES || memcmp(text, header, sizeof(header)) != 0) {
        if (length > 0) {
            log_warn("%s is no file of checksums; it begins anew", records->path);
        }
        mem_free(text);
        return begin_anew(records, err);
    }
    for (size_t at = RECORD_BYTES; at + RECORD_BYTES <= length; at += RECORD_BYTES) {
        record_take(records, (const uint8_t *)text + at);
    }
    mem_free(text);
    return length % RECORD_BYTES == 0 ||
           ftruncate(records->file, (off_t)(length - length % RECORD_BYTES)) == 0 ||
           error_set_errno(err, "%s", records->path);
}

struct chunk_records *chunk_records_open(const char *path, struct error *err)
{
    struct chunk_records *records = mem_new(struct chunk_records);

    records->path = mem_strdup(path);
    (void)pthread_mutex_init(&records->mutex, NULL);
    table_grow(records);
    records->file = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (records->file < 0) {
        error_set_errno(err, "%s", path);
        chunk_records_close(records);
        return NULL;
    }
    if (!records_read(records, err)) {
        chunk_records_close(records);
        return NULL;
    }
    return records;
}

void chunk_records_close(struct chunk_records *records)
{
    if (records == NULL) {
        return;
    }
    if (records->file >= 0) {
        (void)fdatasync(records->file);
        (void)close(records->file);
    }
    (void)pthread_mutex_destroy(&records->mutex);
    mem_free(records->entries);
    mem_free(records->path);
    mem_free(records);
}

bool chunk_records_find(struct chunk_records *records, const struct chunk_key *key,
                        uint32_t *crc32c)
{
    struct entry wanted = entry_of(key, 0);
    const struct entry *entry;
    bool found;

    pthread_mutex_lock(&records->mutex);
    entry = entry_at(records->entries, records->capacity, &wanted);
    found = entry->state == ENTRY_HELD;
    *crc32c = found ? entry->crc32c : *crc32c;
    pthread_mutex_unlock(&records->mutex);
    return found;
}

bool chunk_records_add(struct chunk_records *records, const struct chunk_key *key, uint32_t crc32c,
                       struct error *err)
{
    struct entry entry = entry_of(key, crc32c);
    uint8_t record[RECORD_BYTES];
    ssize_t written;

    record_make(&entry, record);
    pthread_mutex_lock(&records->mutex);
    table_put(records, &entry);
    written = write(records->file, record, sizeof(record));
    pthread_mutex_unlock(&records->mutex);
    return written == (ssize_t)sizeof(record) || error_set_errno(err, "%s", records->path);
}

void chunk_records_forget(struct chunk_records *records, const struct chunk_key *key)
{
    struct entry wanted = entry_of(key, 0);
    struct entry *entry;

    pthread_mutex_lock(&records->mutex);
    entry = entry_at(records->entries, records->capacity, &wanted);
    if (entry->state == ENTRY_HELD) {
        entry->state = ENTRY_FORGOTTEN;
        records->count--;
    }
    pthread_mutex_unlock(&records->mutex);
}

uint32_t chunk_records_count(struct chunk_records *records)
{
    uint32_t count;

    pthread_mutex_lock(&records->mutex);
    count = records->count;
    pthread_mutex_unlock(&records->mutex);
    return count;
}

const char *chunk_records_path(const struct chunk_records *records)
{
    return records->path;
}
