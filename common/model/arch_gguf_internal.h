#ifndef SHOAL_MODEL_ARCH_GGUF_INTERNAL_H
#define SHOAL_MODEL_ARCH_GGUF_INTERNAL_H

/* Between arch_gguf.c and what single architectures add to it. */
#include "common/base/json.h"
#include "common/model/arch_gguf.h"

struct architecture;

/* A config in the making. */
struct translation {
    const struct gguf *gguf;
    const struct gguf_header *header;
    const struct architecture *architecture;
    json_t *config;
    char key[128]; /* the last one that translation_key made */
};

/* "deepseek2.block_count"; lent until the next call. */
const char *translation_key(struct translation *translation, const char *name);
/* A field that an earlier step has put; 0 when there is none. */
uint32_t translation_field(const struct translation *translation, const char *field);
void translation_set(struct translation *translation, const char *field, uint32_t value);

/* What the tables cannot say about deepseek2; comes after them. */
bool arch_gguf_deepseek(struct translation *translation, struct error *err) MUST_CHECK;

/* What the tensors add to an architecture read from the metadata. */
bool arch_gguf_tensors(const struct gguf *gguf, struct arch *arch, struct error *err) MUST_CHECK;

#endif
