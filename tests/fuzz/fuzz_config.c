/* fuzz_config.c - any bytes as a config.json; what is accepted must be safe to compute with. */
#include "common/model/summary.h"
#include "common/model/tensor_role.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_arch(const struct arch *arch)
{
    const struct router_config *router = &arch->router;
    struct parameter_counts counts = arch_param_counts(arch);

    ASSERT(counts.total >= counts.active && counts.active > 0);
    ASSERT(counts.total <= UINT64_MAX / 4); /* bytes as float32 fit too */
    ASSERT(router->group_count > 0 && router->expert_count % router->group_count == 0);
    ASSERT(router->group_chosen_count * (router->expert_count / router->group_count) >=
           router->chosen_count);
    ASSERT(router->expert_count == 0 ||
           arch_combine_group(arch, router->expert_count - 1) < arch_combine_group_count(arch));
    ASSERT(router->expert_count > 0 || arch->dense_layer_count == arch->layer_count);
    ASSERT(arch->kv_head_count > 0 && arch->head_count % arch->kv_head_count == 0);
    ASSERT(arch->qk_rope_dim > 0 && arch->qk_rope_dim % 2 == 0 && arch_kv_values(arch) > 0);
    ASSERT(isfinite(arch_softmax_scale(arch)) && arch_softmax_scale(arch) > 0);
    ASSERT(arch->dense_layer_count <= arch->layer_count && arch->eos_count <= ARCH_EOS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    struct arch arch;

    if (arch_parse((const char *)data, size, "config", &arch, &err)) {
        check_arch(&arch);
    } else {
        ASSERT(err.code != ERROR_NONE && err.message[0] != '\0');
    }
    return 0;
}
