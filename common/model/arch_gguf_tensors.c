/* arch_gguf_tensors.c - what only the tensors of a GGUF file say about its architecture.
 *
 * Which of two layouts a file has shows in the names of its first layer's tensors; a layer that
 * differs is then missing tensors, and its catalog says so.
 */
#include "common/model/arch_gguf_internal.h"

#include "common/base/file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <unistd.h>

static bool divisors_check(const struct gguf_tensor *tensor, const struct arch *arch,
                           struct error *err)
{
    if (tensor->type != QUANT_F32) {
        return error_set(err, ERROR_INPUT, "has type %s; only F32 can be read here",
                         quant_type_name(tensor->type));
    }
    if (tensor->bytes != (uint64_t)arch->qk_rope_dim / 2 * sizeof(float)) {
        return error_set(err, ERROR_INPUT, "has %" PRIu64 " values for %u frequencies",
                         tensor->bytes / sizeof(float), arch->qk_rope_dim / 2);
    }
    return arch->qk_rope_dim / 2 <= ROPE_DIVISORS_MAX ||
           error_set(err, ERROR_LIMIT, "has %u values; %d can be used", arch->qk_rope_dim / 2,
                     ROPE_DIVISORS_MAX);
}

/* F32 is little-endian in files and here. */
static bool values_read(const struct gguf_file *file, const struct gguf_tensor *tensor, void *out,
                        struct error *err)
{
    int fd = open(file->path, O_RDONLY | O_CLOEXEC);
    bool read;

    if (fd < 0) {
        return error_set_errno(err, "%s", file->path);
    }
    read = file_pread(fd, out, tensor->bytes, tensor->offset, file->path, err);
    close(fd);
    return read;
}

static bool divisors_read(const struct gguf *gguf, const struct gguf_tensor *tensor,
                          struct arch *arch, struct error *err)
{
    struct rope_config *rope = &arch->rope;

    if (!divisors_check(tensor, arch, err) ||
        !values_read(&gguf->files[tensor->file], tensor, rope->divisors, err)) {
        return false;
    }
    for (uint32_t i = 0; i < arch->qk_rope_dim / 2; i++) {
        if (!isfinite(rope->divisors[i]) || rope->divisors[i] <= 0) {
            return error_set(err, ERROR_INPUT, "value %u is %g; divisors are finite and above 0", i,
                             (double)rope->divisors[i]);
        }
    }
    rope->scaling = ROPE_DIVISORS;
    return true;
}

static bool has_tensor(const struct gguf *gguf, const char *name)
{
    return gguf_find_tensor(gguf, name) != NULL;
}

bool arch_gguf_tensors(const struct gguf *gguf, struct arch *arch, struct error *err)
{
    const struct gguf_tensor *divisors = gguf_find_tensor(gguf, GGUF_ROPE_DIVISORS_NAME);

    if (arch->attention == ATTENTION_MLA && has_tensor(gguf, "blk.0.attn_k_b.weight") &&
        !has_tensor(gguf, "blk.0.attn_kv_b.weight")) {
        arch->kv_b_layout = KV_B_SPLIT;
    }
    if (arch->attention == ATTENTION_GQA) {
        arch->attention_bias |= has_tensor(gguf, "blk.0.attn_q.bias") ? BIAS_QKV : 0;
        arch->attention_bias |= has_tensor(gguf, "blk.0.attn_output.bias") ? BIAS_OUT : 0;
    }
    return divisors == NULL || divisors_read(gguf, divisors, arch, err) ||
           error_wrap(err, "tensor " GGUF_ROPE_DIVISORS_NAME);
}
