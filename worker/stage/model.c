/* model.c - see model.h. */
#include "worker/stage/model.h"

#include "common/base/mem.h"

#include <string.h>
#include <sys/stat.h>

/* Which file it was. */
struct file_stamp {
    bool is_known; /* it was there to be looked at */
    dev_t device;
    ino_t inode;
    off_t bytes;
    struct timespec changed;
};

static struct file_stamp stamp_of(const char *path)
{
    struct stat facts;

    if (stat(path, &facts) != 0) {
        return (struct file_stamp){0};
    }
    return (struct file_stamp){true, facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtim};
}

static bool stamps_equal(const struct file_stamp *a, const struct file_stamp *b)
{
    return a->device == b->device && a->inode == b->inode && a->bytes == b->bytes &&
           a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

static bool has_own_files(const struct model *model)
{
    return model->cache == NULL && model->catalog->weights.source != WEIGHTS_DUMMY;
}

struct model *model_open(const struct model_source *source, const struct weights_choice *weights,
                         struct error *err)
{
    struct model *model = mem_new(struct model);
    char *path = weights->source == WEIGHTS_DUMMY ? mem_strdup(source->path)
                                                  : model_source_open(source, &model->cache, err);

    model->path = mem_strdup(source->path);
    model->fetch_id = mem_strdup(source->fetch_id);
    if (path != NULL) {
        model->catalog = catalog_open_weights(path, weights, err);
    }
    mem_free(path);
    if (model->catalog == NULL) {
        model_destroy(model);
        return NULL;
    }
    model_hash(model->catalog, model->hash);
    model->stamps = mem_new_array(struct file_stamp, model->catalog->file_count);
    for (uint32_t i = 0; i < model->catalog->file_count; i++) {
        model->stamps[i] = stamp_of(model->catalog->files[i].path);
    }
    model->store = part_store_create(&model->catalog->arch);
    return model;
}

void model_destroy(struct model *model)
{
    if (model == NULL) {
        return;
    }
    part_store_destroy(model->store);
    catalog_close(model->catalog);
    model_cache_close(model->cache);
    mem_free(model->stamps);
    mem_free(model->path);
    mem_free(model->fetch_id);
    mem_free(model);
}

/* Files that are not there now don't speak against what was read of them. */
static bool files_are_unchanged(const struct model *model)
{
    for (uint32_t i = 0; i < model->catalog->file_count; i++) {
        struct file_stamp now = stamp_of(model->catalog->files[i].path);

        if (now.is_known && !stamps_equal(&now, &model->stamps[i])) {
            return false;
        }
    }
    return true;
}

bool model_is_current(const struct model *model, const struct model_source *source,
                      const struct weights_choice *weights, const char *hash)
{
    if (strcmp(model->path, source->path) != 0 ||
        model->catalog->weights.source != weights->source ||
        model->catalog->weights.seed != weights->seed ||
        (hash[0] != '\0' && strcmp(model->hash, hash) != 0)) {
        return false;
    }
    if (model->cache != NULL) {
        return strcmp(model->fetch_id, source->fetch_id) == 0;
    }
    return !has_own_files(model) || files_are_unchanged(model);
}

bool model_is_same(const struct model *model, const struct model *other)
{
    if (strcmp(model->hash, other->hash) != 0) {
        return false;
    }
    if (model->cache != NULL || other->cache != NULL) {
        return model->cache != NULL && other->cache != NULL &&
               strcmp(model->fetch_id, other->fetch_id) == 0;
    }
    for (uint32_t i = 0; has_own_files(model) && i < model->catalog->file_count; i++) {
        if (!stamps_equal(&model->stamps[i], &other->stamps[i])) {
            return false;
        }
    }
    return true;
}
