/* inspect_text.c - `shoal inspect` for people. */
#include "common/base/buffer.h"
#include "common/base/units.h"
#include "coordinator/cli/inspect.h"

#include <stdio.h>

#define NAMES_SHOWN 8

const char *inspect_layer_kind(const struct arch *arch, uint32_t layer)
{
    if (layer >= arch->layer_count) {
        return "draft";
    }
    return arch_layer_is_moe(arch, layer) ? "experts" : "dense";
}

/* "671 B", "36.6 B", "1.23 M" */
static const char *count_text(char *text, size_t bytes, uint64_t count)
{
    static const char *const units[] = {"", " k", " M", " B", " T"};
    double value = (double)count;
    size_t unit = 0;

    while (value >= 999.5 && unit + 1 < ARRAY_LENGTH(units)) {
        value /= 1000;
        unit++;
    }
    (void)snprintf(text, bytes, "%.*f%s",
                   unit == 0 || value >= 99.95 ? 0
                   : value >= 9.995            ? 1
                                               : 2,
                   value, units[unit]);
    return text;
}

static void arch_print(const struct arch *arch)
{
    (void)printf("architecture   %s\n", arch->name);
    (void)printf("layers         %u", arch->layer_count);
    if (arch->router.expert_count > 0) {
        (void)printf(" (%u dense, %u with experts)", arch->dense_layer_count,
                     arch->layer_count - arch->dense_layer_count);
    }
    if (arch->draft_layer_count > 0) {
        (void)printf(" and %u draft", arch->draft_layer_count);
    }
    (void)printf("\n");
    if (arch->attention == ATTENTION_MLA) {
        (void)printf("width          %u, %u heads, latent %u + %u\n", arch->hidden,
                     arch->head_count, arch->kv_lora_rank, arch->qk_rope_dim);
    } else {
        (void)printf("width          %u, %u heads of %u, %u of keys and values\n", arch->hidden,
                     arch->head_count, arch->qk_rope_dim, arch->kv_head_count);
    }
    if (arch->router.expert_count > 0) {
        (void)printf("experts        %u a layer, %u for each token (%u of %u groups), width %u%s\n",
                     arch->router.expert_count, arch->router.chosen_count,
                     arch->router.group_chosen_count, arch->router.group_count, arch->expert_width,
                     arch->shared_width > 0 ? ", and a shared one" : "");
    }
    (void)printf("vocabulary     %u\n", arch->vocab);
    (void)printf("context        %u tokens\n", arch->context_tokens_max);
}

/* Layers of a GGUF file may differ in their types. */
static void expert_print(const struct summary *summary)
{
    struct units_text least, most;

    if (summary->expert_bytes_max == 0) {
        return;
    }
    (void)printf("one expert     %s", units_bytes(&least, summary->expert_bytes_min));
    if (summary->expert_bytes_min < summary->expert_bytes_max) {
        (void)printf(" to %s", units_bytes(&most, summary->expert_bytes_max));
    }
    (void)printf("\n");
}

static void totals_print(const struct catalog *catalog, const struct summary *summary)
{
    char total[32], active[32];
    struct units_text bytes, active_bytes, kv_token, kv_context;
    uint64_t kv_bytes = summary->kv_bytes_token[KV_F16];

    (void)printf("parameters     %s, %s active for a token\n",
                 count_text(total, sizeof(total), summary->parameters.total),
                 count_text(active, sizeof(active), summary->parameters.active));
    (void)printf("weights        %s ", units_bytes(&bytes, summary->total_bytes));
    if (catalog->weights.source == WEIGHTS_DUMMY) {
        (void)printf("by config.json alone");
    } else {
        (void)printf("in %u %s file%s", catalog->file_count, model_format_name(catalog->format),
                     catalog->file_count == 1 ? "" : "s");
    }
    (void)printf(", %s read for a token\n", units_bytes(&active_bytes, summary->active_bytes));
    expert_print(summary);
    (void)printf("KV cache       %s a token (f16), %s for the whole context\n",
                 units_bytes(&kv_token, kv_bytes),
                 units_bytes(&kv_context, kv_bytes * catalog->arch.context_tokens_max));
}

static void shares_print(const struct summary *summary)
{
    struct units_text text;

    (void)printf("\n%-14s %12s %7s\n", "part", "bytes", "share");
    for (int i = 0; i < PART_COUNT; i++) {
        if (summary->bytes_of_part[i] > 0) {
            (void)printf("%-14s %12s %6.1f%%\n", summary_part_name((enum summary_part)i),
                         units_bytes(&text, summary->bytes_of_part[i]),
                         100.0 * (double)summary->bytes_of_part[i] / (double)summary->total_bytes);
        }
    }
    (void)printf("\n%-14s %12s %8s\n", "type", "bytes", "tensors");
    for (int i = 0; i < WEIGHT_TYPE_COUNT; i++) {
        if (summary->tensors_of_type[i] > 0) {
            (void)printf("%-14s %12s %8u\n", weight_type_name((enum weight_type)i),
                         units_bytes(&text, summary->bytes_of_type[i]),
                         summary->tensors_of_type[i]);
        }
    }
}

static bool is_alike(const struct arch *arch, const struct summary *summary, uint32_t a, uint32_t b)
{
    return summary->layers[a].total_bytes == summary->layers[b].total_bytes &&
           inspect_layer_kind(arch, a) == inspect_layer_kind(arch, b);
}

/* "3-6 9 12": the layers that are like `first`. */
static void alike_write(const struct arch *arch, const struct summary *summary, uint32_t first,
                        struct buffer *out)
{
    uint32_t end;

    for (uint32_t begin = first; begin < summary->layer_count; begin = end) {
        end = begin + 1;
        if (!is_alike(arch, summary, first, begin)) {
            continue;
        }
        while (end < summary->layer_count && is_alike(arch, summary, first, end)) {
            end++;
        }
        buffer_printf(out, end - begin > 1 ? "%s%u-%u" : "%s%u", begin > first ? " " : "", begin,
                      end - 1);
    }
}

static bool is_first_of_its_kind(const struct arch *arch, const struct summary *summary,
                                 uint32_t layer)
{
    for (uint32_t before = 0; before < layer; before++) {
        if (is_alike(arch, summary, before, layer)) {
            return false;
        }
    }
    return true;
}

/* Layers that are alike share a line. */
static void layers_print(const struct catalog *catalog, const struct summary *summary)
{
    const struct arch *arch = &catalog->arch;

    (void)printf("\n%-14s %12s %12s  %s\n", "kind of layer", "bytes each", "one expert", "layers");
    for (uint32_t i = 0; i < summary->layer_count; i++) {
        struct units_text bytes, expert;
        struct buffer layers;

        if (!is_first_of_its_kind(arch, summary, i)) {
            continue;
        }
        buffer_init(&layers);
        alike_write(arch, summary, i, &layers);
        (void)printf("%-14s %12s %12s  %s\n", inspect_layer_kind(arch, i),
                     units_bytes(&bytes, summary->layers[i].total_bytes),
                     arch_layer_is_moe(arch, i)
                         ? units_bytes(&expert, summary_expert_bytes(catalog, summary, i))
                         : "-",
                     buffer_text(&layers));
        buffer_deinit(&layers);
    }
}

/* Some names of many. */
static void names_print(FILE *out, const char **names, uint32_t count)
{
    for (uint32_t i = 0; i < count && i < NAMES_SHOWN; i++) {
        (void)fprintf(out, "               %s\n", names[i]);
    }
    if (count > NAMES_SHOWN) {
        (void)fprintf(out, "               and %u more\n", count - NAMES_SHOWN);
    }
}

static void leftovers_print(const struct inspection *inspection)
{
    const struct catalog *catalog = inspection->catalog;

    if (inspection->missing_draft_layers > 0) {
        (void)printf("missing        %u draft layer%s that config.json announces\n",
                     inspection->missing_draft_layers,
                     inspection->missing_draft_layers == 1 ? "" : "s");
    }
    if (catalog->unused_count > 0) {
        (void)printf("unused         %u tensors of unknown names:\n", catalog->unused_count);
        names_print(stdout, catalog->unused, catalog->unused_count);
    }
}

void inspect_print(const struct inspection *inspection)
{
    if (inspection->catalog != NULL) {
        arch_print(&inspection->catalog->arch);
        totals_print(inspection->catalog, inspection->summary);
        leftovers_print(inspection);
        shares_print(inspection->summary);
        layers_print(inspection->catalog, inspection->summary);
    } else if (inspection->files.missing_count > 0) {
        (void)fprintf(stderr, "missing        %u of %u files:\n", inspection->files.missing_count,
                      inspection->files.file_count);
        names_print(stderr, inspection->files.names, inspection->files.missing_count);
    }
}
