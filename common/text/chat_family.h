#ifndef SHOAL_TEXT_CHAT_FAMILY_H
#define SHOAL_TEXT_CHAT_FAMILY_H

/* A family of chat templates: one row of the table in chat_template.c, one function in a file of
 * its own (template_<family>.c). Static data. */
#include "common/text/chat_builder.h"
#include "common/text/chat_template.h"

#define CHAT_FRAGMENTS_MAX 12

struct chat_template {
    const char *name;
    /* Parts of the Jinja text, NULL at the end. The template is of this family when it has all of
     * `fragments` and none of `foreign`: enough of them that a template which would render
     * differently is not taken for this one. */
    const char *fragments[CHAT_FRAGMENTS_MAX];
    const char *foreign[CHAT_FRAGMENTS_MAX];
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
extern const struct deepseek_r1_style deepseek_r1_distill_llama_style;
bool template_deepseek_r1_render(const void *style, const struct chat_request *request,
                                 struct chat_builder *builder, bool *opens_thinking,
                                 struct error *err);

#endif
