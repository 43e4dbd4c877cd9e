/* part_store.c - see part_store.h.
 *
 * One slot for each part that the model could have, found by arithmetic: a table of layers by
 * (layer, its experts), then embedding, draft and head. R1 has 16 000 of them.
 */
#include "worker/stage/part_store.h"

#include "common/base/mem.h"

struct slot {
    char *memory; /* NULL: not held */
    uint64_t bytes;
    uint32_t holders; /* shares */
    bool is_filled;
};

struct part_store {
    uint32_t layer_count; /* the draft layers included */
    uint32_t expert_count;
    uint32_t slot_count;
    struct slot *slots;
};

struct part_store *part_store_create(const struct arch *arch)
{
    struct part_store *store = mem_new(struct part_store);

    store->layer_count = arch->layer_count + arch->draft_layer_count;
    store->expert_count = arch->router.expert_count;
    store->slot_count = store->layer_count * (1 + store->expert_count) + 3;
    store->slots = mem_new_array(struct slot, store->slot_count);
    return store;
}

static struct slot *slot_of(const struct part_store *store, const struct weights_part *part)
{
    uint32_t behind_layers = store->layer_count * (1 + store->expert_count);
    uint32_t layer_at = part->layer * (1 + store->expert_count);
    uint32_t at = 0;

    switch (part->kind) {
    case PART_LAYER:
        at = layer_at;
        break;
    case PART_EXPERT:
        at = layer_at + 1 + part->expert;
        break;
    case PART_EMBEDDING:
        at = behind_layers;
        break;
    case PART_DRAFT:
        at = behind_layers + 1;
        break;
    case PART_HEAD:
        at = behind_layers + 2;
        break;
    }
    ASSERT(at < store->slot_count);
    return &store->slots[at];
}

static void slot_empty(struct slot *slot)
{
    mem_unmap_pages(slot->memory, slot->bytes);
    *slot = (struct slot){0};
}

void part_store_destroy(struct part_store *store)
{
    if (store == NULL) {
        return;
    }
    for (uint32_t i = 0; i < store->slot_count; i++) {
        ASSERT(store->slots[i].holders == 0);
        slot_empty(&store->slots[i]);
    }
    mem_free(store->slots);
    mem_free(store);
}

uint64_t part_store_bytes(const struct part_store *store)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < store->slot_count; i++) {
        bytes += store->slots[i].bytes;
    }
    return bytes;
}

/* In bytes: what is here and held by nobody. */
static uint64_t idle_bytes(const struct part_store *store)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < store->slot_count; i++) {
        bytes += store->slots[i].holders == 0 ? store->slots[i].bytes : 0;
    }
    return bytes;
}

struct part_sum part_store_sum(const struct part_store *store, const struct weights *weights)
{
    struct part_sum sum = {.spare_bytes = idle_bytes(store)};

    for (uint32_t i = 0; i < weights->part_count; i++) {
        const struct slot *slot = slot_of(store, &weights->parts[i]);

        if (slot->memory != NULL && slot->is_filled) {
            sum.kept_bytes += slot->bytes;
            sum.kept_file_bytes += weights->parts[i].file_bytes;
            sum.spare_bytes -= slot->holders == 0 ? slot->bytes : 0;
        }
    }
    return sum;
}

void part_store_trim(struct part_store *store, const struct weights *weights)
{
    for (uint32_t i = 0; i < weights->part_count; i++) {
        slot_of(store, &weights->parts[i])->holders++;
    }
    for (uint32_t i = 0; i < store->slot_count; i++) {
        if (store->slots[i].holders == 0) {
            slot_empty(&store->slots[i]);
        }
    }
    for (uint32_t i = 0; i < weights->part_count; i++) {
        slot_of(store, &weights->parts[i])->holders--;
    }
}

static uint64_t missing_bytes(const struct part_store *store, const struct weights *weights)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < weights->part_count; i++) {
        bytes += slot_of(store, &weights->parts[i])->memory == NULL ? weights->parts[i].bytes : 0;
    }
    return bytes;
}

bool part_store_take(struct part_store *store, struct weights *weights, struct error *err)
{
    uint64_t bytes = missing_bytes(store, weights);
    char *next = NULL;

    if (bytes > 0) {
        next = mem_map_pages(bytes, err);
        if (next == NULL) {
            return false;
        }
    }
    for (uint32_t i = 0; i < weights->part_count; i++) {
        struct weights_part *part = &weights->parts[i];
        struct slot *slot = slot_of(store, part);

        if (slot->memory == NULL) {
            *slot = (struct slot){.memory = next, .bytes = part->bytes};
            next += part->bytes;
        }
        ASSERT(slot->bytes == part->bytes);
        slot->holders++;
        part->memory = slot->memory;
        part->is_filled = slot->is_filled;
    }
    weights_bind_parts(weights);
    return true;
}

void part_store_note(struct part_store *store, const struct weights *weights)
{
    for (uint32_t i = 0; i < weights->part_count; i++) {
        const struct weights_part *part = &weights->parts[i];

        ASSERT(part->memory != NULL);
        slot_of(store, part)->is_filled = part->is_filled;
    }
}

void part_store_release(struct part_store *store, struct weights *weights)
{
    for (uint32_t i = 0; i < weights->part_count; i++) {
        struct weights_part *part = &weights->parts[i];
        struct slot *slot = slot_of(store, part);

        if (part->memory == NULL) {
            continue;
        }
        ASSERT(slot->memory == part->memory && slot->holders > 0);
        slot->holders--;
        if (slot->holders == 0 && !slot->is_filled) {
            slot_empty(slot);
        }
        part->memory = NULL;
    }
}
