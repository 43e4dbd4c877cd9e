/* summary.c - sums over shapes and over a catalog.
 *
 * Counts come from the same table of roles that the catalog is checked with, so a bare config and
 * a complete checkpoint agree.
 */
#include "common/model/summary.h"

#include "common/base/check.h"
#include "common/base/mem.h"
#include "common/model/tensor_role.h"

static const char *const part_names[PART_COUNT] = {
    [PART_ATTENTION] = "attention", [PART_ROUTER] = "router", [PART_EXPERTS] = "experts",
    [PART_SHARED] = "shared",       [PART_DENSE] = "dense",   [PART_NORMS] = "norms",
    [PART_EMBEDDING] = "embedding", [PART_HEAD] = "head",     [PART_DRAFT] = "draft",
};

static enum summary_part part_of(enum tensor_role role)
{
    switch (role) {
    case ROLE_EMBEDDING:
    case ROLE_DRAFT_EMBEDDING:
        return PART_EMBEDDING;
    case ROLE_HEAD:
    case ROLE_DRAFT_HEAD:
        return PART_HEAD;
    case ROLE_FINAL_NORM:
    case ROLE_INPUT_NORM:
    case ROLE_POST_NORM:
        return PART_NORMS;
    case ROLE_GATE:
    case ROLE_UP:
    case ROLE_DOWN:
        return PART_DENSE;
    case ROLE_ROUTER:
    case ROLE_ROUTER_BIAS:
        return PART_ROUTER;
    case ROLE_EXPERT_GATE:
    case ROLE_EXPERT_UP:
    case ROLE_EXPERT_DOWN:
        return PART_EXPERTS;
    case ROLE_SHARED_GATE:
    case ROLE_SHARED_UP:
    case ROLE_SHARED_DOWN:
        return PART_SHARED;
    case ROLE_DRAFT_TOKEN_NORM:
    case ROLE_DRAFT_HIDDEN_NORM:
    case ROLE_DRAFT_PROJECTION:
    case ROLE_DRAFT_FINAL_NORM:
        return PART_DRAFT;
    default:
        return PART_ATTENTION;
    }
}

/* Adds the weights of one layer, or of none (CATALOG_NO_LAYER), by part. */
static void count_layer(const struct arch *arch, uint32_t layer, uint64_t counts[PART_COUNT])
{
    for (int i = 0; i < ROLE_COUNT; i++) {
        enum tensor_role role = (enum tensor_role)i;
        struct tensor_shape shape = tensor_role_shape(arch, role);
        uint64_t values = (uint64_t)shape.rows * shape.columns;

        counts[part_of(role)] += values * tensor_role_count(arch, role, layer);
    }
}

static uint64_t sum_of(const uint64_t counts[PART_COUNT])
{
    uint64_t sum = 0;

    for (int i = 0; i < PART_COUNT; i++) {
        sum += counts[i];
    }
    return sum;
}

/* What one token uses of `amount`, spread evenly over all routed experts or embedding rows. */
static uint64_t active_share(const struct arch *arch, enum summary_part part, uint64_t amount)
{
    if (part == PART_EXPERTS && amount > 0) {
        return amount / arch->router.expert_count * arch->router.chosen_count;
    }
    if (part == PART_EMBEDDING && !arch->tied_embedding) {
        return amount / arch->vocab;
    }
    return amount;
}

static uint64_t values_of(const struct arch *arch, enum tensor_role role)
{
    struct tensor_shape shape = tensor_role_shape(arch, role);

    return (uint64_t)shape.rows * shape.columns;
}

static void count_draft(const struct arch *arch, struct parameter_counts *counts)
{
    uint64_t draft[PART_COUNT] = {0};

    for (uint32_t i = 0; i < arch->draft_layer_count; i++) {
        count_layer(arch, arch->layer_count + i, draft);
    }
    counts->draft = sum_of(draft);
    counts->draft_unique = counts->draft - draft[PART_EMBEDDING] - draft[PART_HEAD];
}

struct parameter_counts arch_param_counts(const struct arch *arch)
{
    struct parameter_counts counts = {0};
    uint64_t first[PART_COUNT] = {0};
    uint64_t all[PART_COUNT] = {0};

    count_layer(arch, 0, first);
    for (uint32_t layer = 0; layer < arch->layer_count; layer++) {
        count_layer(arch, layer, all);
    }
    count_layer(arch, CATALOG_NO_LAYER, all);
    counts.total = sum_of(all);
    for (int i = 0; i < PART_COUNT; i++) {
        counts.active += active_share(arch, (enum summary_part)i, all[i]);
    }
    counts.embedding = all[PART_EMBEDDING];
    counts.head = all[PART_HEAD];
    counts.attention = first[PART_ATTENTION];
    counts.dense_mlp = 3 * values_of(arch, ROLE_GATE);
    counts.expert = 3 * values_of(arch, ROLE_EXPERT_GATE);
    counts.shared = 3 * values_of(arch, ROLE_SHARED_GATE);
    counts.router = values_of(arch, ROLE_ROUTER);
    if (arch->router.method == ROUTER_NOAUX_TC) {
        counts.router += arch->router.expert_count;
    }
    count_draft(arch, &counts);
    return counts;
}

static uint64_t bytes_of(const struct tensor *tensor)
{
    return tensor->bytes + tensor->scales.bytes;
}

static void add_tensor(struct summary *summary, const struct tensor *tensor)
{
    enum summary_part part = part_of(tensor->role);

    summary->total_bytes += bytes_of(tensor);
    summary->bytes_of_type[tensor->type] += tensor->bytes;
    summary->tensors_of_type[tensor->type]++;
    if (tensor->scales.bytes > 0) {
        summary->bytes_of_type[WEIGHT_F32] += tensor->scales.bytes;
        summary->tensors_of_type[WEIGHT_F32]++;
    }
    summary->bytes_of_part[part] += bytes_of(tensor);
    if (tensor->layer != CATALOG_NO_LAYER) {
        summary->layers[tensor->layer].bytes[part] += bytes_of(tensor);
        summary->layers[tensor->layer].total_bytes += bytes_of(tensor);
    }
}

/* The three matrices of each routed expert. */
static void measure_experts(const struct catalog *catalog, struct summary *summary)
{
    const struct arch *arch = &catalog->arch;

    for (uint32_t layer = 0; layer < summary->layer_count; layer++) {
        for (uint32_t i = 0; arch_layer_is_moe(arch, layer) && i < arch->router.expert_count; i++) {
            uint64_t bytes = bytes_of(catalog_find(catalog, ROLE_EXPERT_GATE, layer, i)) +
                             bytes_of(catalog_find(catalog, ROLE_EXPERT_UP, layer, i)) +
                             bytes_of(catalog_find(catalog, ROLE_EXPERT_DOWN, layer, i));

            if (summary->expert_bytes_min == 0 || bytes < summary->expert_bytes_min) {
                summary->expert_bytes_min = bytes;
            }
            if (bytes > summary->expert_bytes_max) {
                summary->expert_bytes_max = bytes;
            }
        }
    }
}

static void measure_active(const struct catalog *catalog, struct summary *summary)
{
    uint64_t main_bytes[PART_COUNT] = {0};

    for (uint32_t i = 0; i < catalog->tensor_count; i++) {
        const struct tensor *tensor = &catalog->tensors[i];

        if (tensor->layer < catalog->arch.layer_count || tensor->layer == CATALOG_NO_LAYER) {
            main_bytes[part_of(tensor->role)] += bytes_of(tensor);
        }
    }
    for (int i = 0; i < PART_COUNT; i++) {
        summary->active_bytes += active_share(&catalog->arch, (enum summary_part)i, main_bytes[i]);
    }
}

struct summary *summary_create(const struct catalog *catalog)
{
    const struct arch *arch = &catalog->arch;
    struct summary *summary = mem_new(struct summary);

    summary->parameters = arch_param_counts(arch);
    summary->layer_count = arch->layer_count + arch->draft_layer_count;
    summary->layers = mem_new_array(struct layer_summary, summary->layer_count);
    summary->kv_values_token_layer = arch_kv_values(arch);
    summary->kv_values_token = (uint64_t)arch_kv_values(arch) * arch->layer_count;
    for (int i = 0; i < KV_TYPE_COUNT; i++) {
        struct kv_layout layout = kv_layout_of(arch, (enum kv_type)i);

        summary->kv_bytes_token[i] = kv_layout_token_bytes(&layout) * arch->layer_count;
    }
    summary->unused_count = catalog->unused_count;
    for (uint32_t i = 0; i < catalog->tensor_count; i++) {
        add_tensor(summary, &catalog->tensors[i]);
    }
    measure_experts(catalog, summary);
    measure_active(catalog, summary);
    return summary;
}

void summary_destroy(struct summary *summary)
{
    if (summary == NULL) {
        return;
    }
    mem_free(summary->layers);
    mem_free(summary);
}

uint64_t summary_expert_bytes(const struct catalog *catalog, const struct summary *summary,
                              uint32_t layer)
{
    ASSERT(arch_layer_is_moe(&catalog->arch, layer) && layer < summary->layer_count);
    return summary->layers[layer].bytes[PART_EXPERTS] / catalog->arch.router.expert_count;
}

const char *summary_part_name(enum summary_part part)
{
    ASSERT(part < PART_COUNT);
    return part_names[part];
}
