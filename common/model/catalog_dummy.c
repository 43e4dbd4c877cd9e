/* catalog_dummy.c - a catalog without a checkpoint: every tensor that the architecture has, in the
 * types in which models are published.
 *
 * DeepSeek's F8_E4M3 checkpoints quantise the projections and leave embeddings, head, router, norms
 * and the draft layers' joint projection in BF16. Walking layers, roles and experts in rising order
 * gives the catalog its order.
 */
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/model/catalog_internal.h"
#include "common/model/tensor_role.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CONFIG_BYTES_MAX ((size_t)1 << 20)

static const char dummy_word[] = "dummy";

bool weights_choice_parse(const char *text, struct weights_choice *out, struct error *err)
{
    const char *rest = text + strlen(dummy_word);
    struct weights_choice choice = {.source = WEIGHTS_DUMMY};
    char *end;

    if (text[0] == '\0') {
        *out = (struct weights_choice){.source = WEIGHTS_PUBLISHED};
        return true;
    }
    if (strncmp(text, dummy_word, strlen(dummy_word)) == 0 && *rest == '\0') {
        *out = choice;
        return true;
    }
    if (strncmp(text, dummy_word, strlen(dummy_word)) == 0 && rest[0] == ':' &&
        isdigit((unsigned char)rest[1])) {
        errno = 0;
        choice.seed = strtoull(rest + 1, &end, 10);
        if (errno == 0 && *end == '\0') {
            *out = choice;
            return true;
        }
    }
    return error_set(err, ERROR_USAGE, "must be dummy or dummy:SEED, not \"%.64s\"", text);
}

const char *weights_choice_write(const struct weights_choice *weights,
                                 char text[WEIGHTS_CHOICE_BYTES])
{
    text[0] = '\0';
    if (weights->source == WEIGHTS_DUMMY) {
        (void)snprintf(text, WEIGHTS_CHOICE_BYTES, "%s:%" PRIu64, dummy_word, weights->seed);
    }
    return text;
}

/* Of matrices; vectors are BF16 or, the router's bias, F32. */
static enum weight_type type_of(enum tensor_role role, uint32_t dimension_count,
                                enum weight_type projections)
{
    switch (role) {
    case ROLE_ROUTER_BIAS:
        return WEIGHT_F32;
    case ROLE_EMBEDDING:
    case ROLE_HEAD:
    case ROLE_ROUTER:
    case ROLE_DRAFT_EMBEDDING:
    case ROLE_DRAFT_PROJECTION:
    case ROLE_DRAFT_HEAD:
        return WEIGHT_BF16;
    default:
        return dimension_count == 2 ? projections : WEIGHT_BF16;
    }
}

static bool layer_add(struct catalog *catalog, uint32_t layer, enum weight_type projections,
                      struct error *err)
{
    char name[TENSOR_NAME_BYTES_MAX];

    for (int i = 0; i < ROLE_COUNT; i++) {
        struct tensor tensor = {.name = name, .role = (enum tensor_role)i, .layer = layer};
        struct tensor_shape shape = tensor_role_shape(&catalog->arch, tensor.role);
        uint32_t count = tensor_role_count(&catalog->arch, tensor.role, layer);

        tensor.type = type_of(tensor.role, shape.dimension_count, projections);
        tensor.rows = shape.rows;
        tensor.columns = shape.columns;
        tensor.bytes = shape.rows * weight_row_bytes(tensor.type, shape.columns);
        if (tensor.type == WEIGHT_F8_E4M3) {
            tensor.scales.bytes = (uint64_t)scale_block_count(shape.rows) *
                                  scale_block_count(shape.columns) * sizeof(float);
        }
        for (uint32_t j = 0; j < count; j++) {
            tensor.expert = tensor_role_is_expert(tensor.role) ? j : CATALOG_NO_EXPERT;
            (void)tensor_role_write_name(tensor.role, layer, tensor.expert, name);
            catalog->total_bytes += tensor.scales.bytes;
            if (!catalog_add_tensor(catalog, &tensor, err)) {
                return false;
            }
        }
    }
    return true;
}

/* arch_parse has checked what quantization_config says, if it is there. */
static bool config_read(const char *path, struct arch *arch, enum weight_type *projections,
                        struct error *err)
{
    char *text = NULL;
    size_t length;
    json_t *config = NULL;
    bool read = file_read(path, CONFIG_BYTES_MAX, &text, &length, err) &&
                arch_parse(text, length, path, arch, err);

    if (read) {
        config = json_parse(text, length, path, err);
        read = config != NULL;
    }
    if (read) {
        *projections = json_is_object(json_object_get(config, "quantization_config"))
                           ? WEIGHT_F8_E4M3
                           : WEIGHT_BF16;
    }
    json_decref(config);
    mem_free(text);
    return read;
}

static bool model_read(const char *path, struct arch *arch, enum weight_type *projections,
                       struct error *err)
{
    struct error no_model = {0};
    enum model_format format;
    struct stat facts;
    char *file;
    bool read;

    if (stat(path, &facts) != 0) {
        return error_set_errno(err, "%s", path);
    }
    if (!S_ISDIR(facts.st_mode) && model_path_format(path, &format, &no_model) &&
        format == MODEL_GGUF) {
        return error_set(err, ERROR_USAGE,
                         "%s: dummy weights take a config.json or its directory, no GGUF file",
                         path);
    }
    if (!S_ISDIR(facts.st_mode)) {
        return config_read(path, arch, projections, err);
    }
    file = mem_printf("%s/config.json", path);
    /* Once more as a directory, for the ends that generation_config.json adds. */
    read = config_read(file, arch, projections, err) && arch_read(path, arch, err);
    mem_free(file);
    return read;
}

struct catalog *catalog_open_weights(const char *path, const struct weights_choice *weights,
                                     struct error *err)
{
    enum weight_type projections = WEIGHT_BF16;
    struct catalog *catalog;
    uint32_t layer_count;
    bool added;

    if (weights->source == WEIGHTS_PUBLISHED) {
        return catalog_open(path, err);
    }
    catalog = catalog_make();
    catalog->weights = *weights;
    if (!model_read(path, &catalog->arch, &projections, err)) {
        catalog_close(catalog);
        return NULL;
    }
    layer_count = catalog->arch.layer_count + catalog->arch.draft_layer_count;
    added = true;
    for (uint32_t layer = 0; added && layer < layer_count; layer++) {
        added = layer_add(catalog, layer, projections, err);
    }
    if (!added || !layer_add(catalog, CATALOG_NO_LAYER, projections, err)) {
        catalog_close(catalog);
        return NULL;
    }
    return catalog;
}
