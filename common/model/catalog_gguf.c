/* catalog_gguf.c - the tensors of a GGUF model.
 *
 * gguf.c has checked every header by itself and the splits as a set; here each name gets its role,
 * and type and dimensions are held against the architecture that the metadata describe. GGUF lists
 * dimensions fastest first: a matrix is [columns, rows]. The experts of a layer lie one after the
 * other in one tensor, as do the heads of a split kv_b.
 */
#include "common/base/mem.h"
#include "common/model/arch_gguf.h"
#include "common/model/catalog_internal.h"
#include "common/model/tensor_role.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NAME_BYTES_MAX 128 /* with an expert's number; GGUF names have at most 64 */

struct dimensions {
    uint32_t count;
    uint64_t values[GGUF_DIMENSIONS_MAX]; /* 1 beyond count */
};

static struct dimensions dimensions_of(const struct arch *arch, enum tensor_role role,
                                       uint32_t expert_count)
{
    struct tensor_shape shape = tensor_role_shape(arch, role);
    struct dimensions out = {shape.dimension_count, {shape.columns, shape.rows, 1, 1}};

    if (tensor_role_is_expert(role)) {
        out.count = 3;
        out.values[2] = expert_count;
    }
    if (role == ROLE_K_B || role == ROLE_V_B) {
        out.count = 3;
        out.values[1] = shape.rows / arch->head_count;
        out.values[2] = arch->head_count;
    }
    return out;
}

static bool dimensions_check(const struct gguf_tensor *found, const struct dimensions *wanted,
                             struct error *err)
{
    char found_text[128], wanted_text[128];

    if (memcmp(found->dimensions, wanted->values, sizeof(wanted->values)) == 0) {
        return true;
    }
    catalog_write_shape(found_text, sizeof(found_text), found->dimensions, found->dimension_count);
    catalog_write_shape(wanted_text, sizeof(wanted_text), wanted->values, wanted->count);
    return error_set(err, ERROR_INPUT, "tensor %s has dimensions %s; the metadata ask for %s",
                     found->name, found_text, wanted_text);
}

static bool type_check(const struct gguf_tensor *found, const struct dimensions *wanted,
                       struct error *err)
{
    bool fits = wanted->count > 1 || !weight_type_is_blocks(weight_type_of_quant(found->type));

    return fits || error_set(err, ERROR_INPUT,
                             "tensor %s has type %s; vectors can be read from F32, F16 and BF16",
                             found->name, quant_type_name(found->type));
}

/* One after the other in the file, all of one size. */
static bool experts_add(struct catalog *catalog, struct tensor tensor, uint32_t expert_count,
                        struct error *err)
{
    const char *stacked = tensor.name;
    char name[NAME_BYTES_MAX];

    tensor.bytes /= expert_count;
    tensor.name = name;
    for (uint32_t i = 0; i < expert_count; i++) {
        (void)snprintf(name, sizeof(name), "%s[%u]", stacked, i);
        tensor.expert = i;
        if (!catalog_add_tensor(catalog, &tensor, err)) {
            return false;
        }
        tensor.offset += tensor.bytes;
    }
    return true;
}

static bool tensor_add(struct catalog *catalog, const struct gguf_tensor *found, struct error *err)
{
    struct tensor tensor = {.name = found->name,
                            .type = weight_type_of_quant(found->type),
                            .expert = CATALOG_NO_EXPERT,
                            .file = found->file,
                            .offset = found->offset,
                            .bytes = found->bytes};
    struct tensor_shape shape;
    struct dimensions wanted;
    uint32_t count;

    if (!tensor_role_of_gguf_name(&catalog->arch, found->name, &tensor.role, &tensor.layer)) {
        return catalog_add_unused(catalog, found->name, err);
    }
    count = tensor_role_count(&catalog->arch, tensor.role, tensor.layer);
    wanted = dimensions_of(&catalog->arch, tensor.role, count);
    if (!dimensions_check(found, &wanted, err) || !type_check(found, &wanted, err)) {
        return false;
    }
    shape = tensor_role_shape(&catalog->arch, tensor.role);
    tensor.rows = shape.rows;
    tensor.columns = shape.columns;
    return tensor_role_is_expert(tensor.role) ? experts_add(catalog, tensor, count, err)
                                              : catalog_add_tensor(catalog, &tensor, err);
}

static void files_copy(struct catalog *catalog, const struct gguf *gguf)
{
    struct catalog_memory *memory = catalog->memory;

    catalog->file_count = gguf->file_count;
    catalog->files = mem_new_array(struct catalog_file, gguf->file_count);
    for (uint32_t i = 0; i < gguf->file_count; i++) {
        catalog->files[i].path = arena_strdup(&memory->names, gguf->files[i].path);
        catalog->files[i].bytes = gguf->files[i].bytes;
    }
}

/* The architecture has read the divisors of the rotary frequencies. */
static bool is_taken(const struct catalog *catalog, const struct gguf_tensor *tensor)
{
    return catalog->arch.rope.scaling == ROPE_DIVISORS &&
           strcmp(tensor->name, GGUF_ROPE_DIVISORS_NAME) == 0;
}

static bool tensors_add(struct catalog *catalog, const struct gguf *gguf, struct error *err)
{
    for (uint32_t i = 0; i < gguf->tensor_count; i++) {
        const struct gguf_tensor *tensor = &gguf->tensors[i];

        if (!is_taken(catalog, tensor) && !tensor_add(catalog, tensor, err)) {
            return error_wrap(err, "%s", gguf->files[tensor->file].path);
        }
    }
    return true;
}

bool catalog_read_gguf(struct catalog *catalog, const char *path, struct error *err)
{
    struct gguf *gguf = gguf_open(path, err);
    bool read;

    if (gguf == NULL) {
        return false;
    }
    files_copy(catalog, gguf);
    read = arch_read_gguf(gguf, &catalog->arch, err) && tensors_add(catalog, gguf, err);
    gguf_close(gguf);
    return read;
}
