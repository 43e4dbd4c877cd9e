/* model_cache.c - see model_cache.h. */
#include "worker/stage/model_cache.h"

#include "common/base/file.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/units.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_BYTES 512 /* of st_blocks */

struct model_cache {
    char *directory; /* of all models */
    char *folder;    /* of this one */
    uint64_t bytes_max;
    int lock;
    struct fetch_listing listing;
    int *files; /* [listing.file_count]; -1: not open */
    struct chunk_records *records;
};

/* --- folders --- */

/* With all its parents. */
static bool folder_make(const char *path, struct error *err)
{
    char *part = mem_strdup(path);
    bool made = true;

    for (char *at = part + 1; made && at != NULL; at = at + 1) {
        at = strchr(at, '/');
        if (at != NULL) {
            *at = '\0';
        }
        if (mkdir(part, 0755) != 0 && errno != EEXIST) {
            made = error_set_errno(err, "%s", part);
        }
        if (at == NULL) {
            break;
        }
        *at = '/';
    }
    mem_free(part);
    return made;
}

static bool lock_take(struct model_cache *cache, struct error *err)
{
    char *path = model_cache_path(cache, "lock");
    bool taken;

    cache->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    taken = cache->lock >= 0 && flock(cache->lock, LOCK_SH) == 0;
    if (taken) {
        (void)futimens(cache->lock, NULL); /* the last use */
    } else {
        error_set_errno(err, "%s", path);
    }
    mem_free(path);
    return taken;
}

struct model_cache *model_cache_open(const struct model_cache_config *config, struct error *err)
{
    struct model_cache *cache = mem_new(struct model_cache);
    char *files;
    bool opened;

    cache->directory = mem_strdup(config->directory);
    cache->folder = mem_printf("%s/%s", config->directory, config->id);
    cache->bytes_max = config->bytes_max;
    cache->lock = -1;
    files = model_cache_path(cache, "files");
    opened = folder_make(files, err) && lock_take(cache, err);
    mem_free(files);
    if (!opened) {
        model_cache_close(cache);
        error_wrap(err, "cache");
        return NULL;
    }
    return cache;
}

void model_cache_close(struct model_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    for (uint32_t i = 0; i < cache->listing.file_count; i++) {
        if (cache->files[i] >= 0) {
            (void)close(cache->files[i]);
        }
    }
    if (cache->lock >= 0) {
        (void)close(cache->lock);
    }
    chunk_records_close(cache->records);
    fetch_listing_deinit(&cache->listing);
    mem_free(cache->files);
    mem_free(cache->folder);
    mem_free(cache->directory);
    mem_free(cache);
}

char *model_cache_path(const struct model_cache *cache, const char *name)
{
    return mem_printf("%s/%s", cache->folder, name);
}

/* --- eviction --- */

/* Bytes on the disk of everything below a folder. */
static uint64_t bytes_below(const char *folder)
{
    DIR *entries = opendir(folder);
    const struct dirent *entry;
    uint64_t bytes = 0;

    while (entries != NULL && (entry = readdir(entries)) != NULL) {
        char *path = mem_printf("%s/%s", folder, entry->d_name);
        struct stat facts;

        if (entry->d_name[0] != '.' && lstat(path, &facts) == 0) {
            bytes += S_ISDIR(facts.st_mode) ? bytes_below(path)
                                            : (uint64_t)facts.st_blocks * BLOCK_BYTES;
        }
        mem_free(path);
    }
    if (entries != NULL) {
        (void)closedir(entries);
    }
    return bytes;
}

static void folder_remove(const char *folder)
{
    DIR *entries = opendir(folder);
    const struct dirent *entry;

    while (entries != NULL && (entry = readdir(entries)) != NULL) {
        char *path = mem_printf("%s/%s", folder, entry->d_name);

        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            unlink(path) != 0 && (errno == EISDIR || errno == EPERM)) {
            folder_remove(path);
        }
        mem_free(path);
    }
    if (entries != NULL) {
        (void)closedir(entries);
    }
    (void)rmdir(folder);
}

/* A model's folder is named by 16 hexadecimal digits; nothing else here is ours. */
static bool is_model_name(const char *name)
{
    return strlen(name) == FETCH_MODEL_HASH_BYTES &&
           strspn(name, "0123456789abcdef") == FETCH_MODEL_HASH_BYTES;
}

/* The model that was used longest ago and that nobody uses, its lock held; NULL: none. */
struct victim {
    char *folder;
    int lock;
    struct timespec used;
};

static bool is_earlier(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec != b->tv_sec ? a->tv_sec < b->tv_sec : a->tv_nsec < b->tv_nsec;
}

static void victim_consider(struct victim *victim, char *folder)
{
    char *path = mem_printf("%s/lock", folder);
    int lock = open(path, O_RDWR | O_CLOEXEC);
    struct stat facts;

    mem_free(path);
    if (lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0 && fstat(lock, &facts) == 0 &&
        (victim->folder == NULL || is_earlier(&facts.st_mtim, &victim->used))) {
        if (victim->folder != NULL) {
            (void)close(victim->lock);
            mem_free(victim->folder);
        }
        *victim = (struct victim){folder, lock, facts.st_mtim};
        return;
    }
    if (lock >= 0) {
        (void)close(lock);
    }
    mem_free(folder);
}

static bool evict_one(const struct model_cache *cache)
{
    DIR *entries = opendir(cache->directory);
    struct victim victim = {NULL, -1, {0, 0}};
    const struct dirent *entry;

    while (entries != NULL && (entry = readdir(entries)) != NULL) {
        if (is_model_name(entry->d_name)) {
            victim_consider(&victim, mem_printf("%s/%s", cache->directory, entry->d_name));
        }
    }
    if (entries != NULL) {
        (void)closedir(entries);
    }
    if (victim.folder == NULL) {
        return false;
    }
    log_info("cache: %s is evicted", victim.folder);
    folder_remove(victim.folder);
    (void)close(victim.lock);
    mem_free(victim.folder);
    return true;
}

bool model_cache_make_room(struct model_cache *cache, uint64_t bytes, struct error *err)
{
    struct units_text wanted, used, limit;
    uint64_t there;

    if (cache->bytes_max == 0) {
        return true;
    }
    do {
        there = bytes_below(cache->directory);
        if (there <= cache->bytes_max && bytes <= cache->bytes_max - there) {
            return true;
        }
    } while (evict_one(cache));
    return error_set(err, ERROR_LIMIT,
                     "cache %s: %s more are needed, models in use take %s of --cache-size %s",
                     cache->directory, units_bytes(&wanted, bytes), units_bytes(&used, there),
                     units_bytes(&limit, cache->bytes_max));
}

/* --- the description --- */

int model_cache_file(struct model_cache *cache, uint32_t file, struct error *err)
{
    char *path;

    if (cache->files[file] >= 0) {
        return cache->files[file];
    }
    path = mem_printf("%s/files/%s", cache->folder, cache->listing.files[file].name);
    cache->files[file] = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (cache->files[file] < 0) {
        error_set_errno(err, "cache %s", path);
    }
    mem_free(path);
    return cache->files[file];
}

/* Of its full size: a file of another size is none of this model's, and starts as a hole. */
static bool file_size_set(struct model_cache *cache, uint32_t file, struct error *err)
{
    const struct fetch_file *listed = &cache->listing.files[file];
    int descriptor = model_cache_file(cache, file, err);
    struct stat facts;

    if (descriptor < 0) {
        return false;
    }
    if (fstat(descriptor, &facts) == 0 && (uint64_t)facts.st_size == listed->bytes) {
        return true;
    }
    return (ftruncate(descriptor, 0) == 0 && ftruncate(descriptor, (off_t)listed->bytes) == 0) ||
           error_set_errno(err, "cache: %s", listed->name);
}

/* A range that is fetched into its place. */
struct part {
    struct model_cache *cache;
    uint32_t file;
    uint32_t crc32c;
};

static bool part_write(void *context, uint64_t offset, const void *bytes, size_t length,
                       struct error *err)
{
    struct part *part = context;
    const char *name = part->cache->listing.files[part->file].name;

    part->crc32c = hash_crc32c(part->crc32c, bytes, length);
    return file_pwrite(part->cache->files[part->file], bytes, length, offset, name, err) ||
           error_wrap(err, "cache");
}

/* Whether a range has the checksum that was recorded. */
static bool part_is_there(struct model_cache *cache, uint32_t file, const struct chunk_key *key)
{
    char *bytes;
    uint32_t recorded = 0;
    struct error err;
    bool is_there;

    if (!chunk_records_find(cache->records, key, &recorded)) {
        return false;
    }
    bytes = mem_new_array(char, key->bytes);
    is_there = file_pread(cache->files[file], bytes, key->bytes, key->offset, key->name, &err) &&
               hash_crc32c(0, bytes, key->bytes) == recorded;
    mem_free(bytes);
    if (!is_there) {
        log_warn("cache: bytes %" PRIu64 " to %" PRIu64
                 " of %s are not what was fetched; they are fetched again",
                 key->offset, key->offset + key->bytes, key->name);
    }
    return is_there;
}

static bool part_need(struct model_cache *cache, struct fetch_client *client,
                      const struct fetch_range *range, struct error *err)
{
    const char *name = cache->listing.files[range->file].name;
    struct chunk_key key = {name, range->offset, (uint32_t)range->bytes};
    struct part part = {cache, range->file, 0};

    if (range->bytes > UINT32_MAX) {
        return error_set(err, ERROR_LIMIT, "%s: a description of %" PRIu64 " bytes", name,
                         range->bytes);
    }
    if (range->bytes == 0 || part_is_there(cache, range->file, &key)) {
        return true;
    }
    return fetch_client_read(client, range, part_write, &part, err) &&
           chunk_records_add(cache->records, &key, part.crc32c, err);
}

static bool files_describe(struct model_cache *cache, struct fetch_client *client,
                           struct error *err)
{
    for (uint32_t i = 0; i < cache->listing.file_count; i++) {
        const struct fetch_file *file = &cache->listing.files[i];

        if (!file_size_set(cache, i, err) ||
            !part_need(cache, client, &(struct fetch_range){i, 0, file->header_bytes}, err) ||
            !part_need(cache, client,
                       &(struct fetch_range){i, file->extra_offset, file->extra_bytes}, err)) {
            return error_wrap(err, "description of the model");
        }
    }
    return true;
}

static bool listing_get(struct model_cache *cache, struct fetch_client *client, struct error *err)
{
    char *records = model_cache_path(cache, "chunks");

    cache->records = chunk_records_open(records, err);
    mem_free(records);
    if (cache->records == NULL || !fetch_client_list(client, &cache->listing, err)) {
        return false;
    }
    if (cache->listing.file_count == 0) {
        return error_set(err, ERROR_PEER, "the coordinator offers no files");
    }
    cache->files = mem_new_array(int, cache->listing.file_count);
    for (uint32_t i = 0; i < cache->listing.file_count; i++) {
        cache->files[i] = -1;
    }
    return true;
}

bool model_cache_describe(struct model_cache *cache, struct fetch_client *client, char **model_path,
                          struct error *err)
{
    bool is_directory = false;

    ASSERT(cache->records == NULL);
    if (!listing_get(cache, client, err) || !files_describe(cache, client, err)) {
        return false;
    }
    for (uint32_t i = 0; i < cache->listing.file_count; i++) {
        is_directory |= strcmp(cache->listing.files[i].name, "config.json") == 0;
    }
    *model_path = is_directory
                      ? model_cache_path(cache, "files")
                      : mem_printf("%s/files/%s", cache->folder, cache->listing.files[0].name);
    return true;
}

const struct fetch_listing *model_cache_listing(const struct model_cache *cache)
{
    return &cache->listing;
}

struct chunk_records *model_cache_records(struct model_cache *cache)
{
    return cache->records;
}
