#ifndef SHOAL_TEXT_CHAT_FAMILY_H
#define SHOAL_TEXT_CHAT_FAMILY_H

/* A family of chat templates: one row of the table in chat_template.c, one function in a file of
 * its own (template_<family>.c). Static data. */
#include "common/text/chat_builder.h"
#include "common/text/chat_template.h"

#include <stdint.h>

#define CHAT_TEXTS_MAX 4

struct chat_template {
    const char *name;
    const char *alias; /* another name of it; or NULL */
    /* Digests (chat_jinja.h) of the texts that render as this family does; 0 at the end. */
    uint64_t texts[CHAT_TEXTS_MAX];
    const void *style; /* what `render` knows the family's members by; may be NULL */
    /* Writes the conversation. *opens_thinking is false before. ERROR_USAGE names the message. */
    bool (*render)(const void *style, const struct chat_request *request,
                   struct chat_builder *builder, bool *opens_thinking, struct error *err);
};

/* template_deepseek_r1.c */
struct deepseek_r1_style;
extern const struct deepseek_r1_style deepseek_r1_style;
extern const struct deepseek_r1_style deepseek_v3_style;
extern const struct deepseek_r1_style deepseek_r1_tojson_style;
extern const struct deepseek_r1_style deepseek_r1_distill_qwen_style;
extern const struct deepseek_r1_style deepseek_r1_distill_llama_style;
extern const struct deepseek_r1_style deepseek_r1_2501_style;
extern const struct deepseek_r1_style deepseek_v3_2412_style;
bool template_deepseek_r1_render(const void *style, const struct chat_request *request,
                                 struct chat_builder *builder, bool *opens_thinking,
                                 struct error *err);

/* template_deepseek_0324.c */
struct deepseek_0324_style;
extern const struct deepseek_0324_style deepseek_v3_0324_style;
extern const struct deepseek_0324_style deepseek_r1_0528_style;
bool template_deepseek_0324_render(const void *style, const struct chat_request *request,
                                   struct chat_builder *builder, bool *opens_thinking,
                                   struct error *err);

/* template_deepseek_v2.c; without styles */
bool template_deepseek_v2_render(const void *style, const struct chat_request *request,
                                 struct chat_builder *builder, bool *opens_thinking,
                                 struct error *err);

/* template_deepseek_v31.c */
struct deepseek_v31_style;
extern const struct deepseek_v31_style deepseek_v31_style;
extern const struct deepseek_v31_style deepseek_v31_2508_style;
bool template_deepseek_v31_render(const void *style, const struct chat_request *request,
                                  struct chat_builder *builder, bool *opens_thinking,
                                  struct error *err);

/* template_llama3.c */
struct llama3_style;
extern const struct llama3_style llama31_style;
extern const struct llama3_style llama32_style;
bool template_llama3_render(const void *style, const struct chat_request *request,
                            struct chat_builder *builder, bool *opens_thinking, struct error *err);

/* template_qwen.c */
struct qwen_style;
extern const struct qwen_style qwen25_style;
extern const struct qwen_style qwen3_style;
extern const struct qwen_style qwen3_v2_style;
bool template_qwen_render(const void *style, const struct chat_request *request,
                          struct chat_builder *builder, bool *opens_thinking, struct error *err);

#endif
