/* chat_template.c - the families of chat templates we know, and how one is chosen.
 *
 * Templates are programs in Jinja; we don't run them. Each family is C code that was compared with
 * its Jinja text byte for byte, and a text counts as of a family only when its normal form
 * (chat_jinja.h) is that of a text so compared. A template that is nearly one of ours would give a
 * prompt that is nearly right, which nobody would notice: it is unknown, and the user says which
 * family to use.
 */
#include "common/text/chat_template.h"

#include "common/base/buffer.h"
#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"
#include "common/text/chat_family.h"
#include "common/text/chat_jinja.h"

#include <inttypes.h>
#include <string.h>

#define TEMPLATE_BYTES_MAX (1u << 20)

static const struct chat_template families[] = {
    {
        .name = "deepseek-r1",
        .texts = {UINT64_C(0x7f82e988da45f5d1)},
        .style = &deepseek_r1_style,
        .render = template_deepseek_r1_render,
    },
    {
        .name = "deepseek-v3",
        .texts = {UINT64_C(0xb80b0f7e35d32330)},
        .style = &deepseek_v3_style,
        .render = template_deepseek_r1_render,
    },
    {
        .name = "deepseek-v3.1",
        .texts = {UINT64_C(0x72b37367d21756ce)},
        .style = &deepseek_v31_style,
        .render = template_deepseek_v31_render,
    },
    {
        .name = "deepseek-v2",
        .texts = {UINT64_C(0x099cdb0d5d4430ed)},
        .render = template_deepseek_v2_render,
    },
    {
        .name = "deepseek-r1-tojson",
        .texts = {UINT64_C(0x9c647b9933cfeeef)},
        .style = &deepseek_r1_tojson_style,
        .render = template_deepseek_r1_render,
    },
    {
        .name = "deepseek-r1-distill-qwen",
        .texts = {UINT64_C(0x40d18f001d0860bf)},
        .style = &deepseek_r1_distill_qwen_style,
        .render = template_deepseek_r1_render,
    },
    {
        .name = "deepseek-r1-distill-llama",
        .texts = {UINT64_C(0x50adcafcbdf70d49)},
        .style = &deepseek_r1_distill_llama_style,
        .render = template_deepseek_r1_render,
    },
    {
        .name = "llama-3.3",
        .alias = "llama-3.1",
        .texts = {UINT64_C(0xded312ca8cc67e99)},
        .style = &llama31_style,
        .render = template_llama3_render,
    },
    {
        .name = "llama-3.2",
        .texts = {UINT64_C(0x81d7185461dfe189)},
        .style = &llama32_style,
        .render = template_llama3_render,
    },
    {
        .name = "qwen2.5",
        .texts = {UINT64_C(0x2db3444f716036b8)},
        .style = &qwen25_style,
        .render = template_qwen_render,
    },
    {
        .name = "qwen3",
        .texts = {UINT64_C(0x1da6b65c10b3fde2)},
        .style = &qwen3_style,
        .render = template_qwen_render,
    },
    {
        .name = "deepseek-v3-2412",
        .texts = {UINT64_C(0x69d4d4538b5aa78e), UINT64_C(0xddef7298107adba8)},
        .style = &deepseek_v3_2412_style,
        .render = template_deepseek_r1_render,
    },
    {
        .name = "deepseek-r1-2501",
        .texts = {UINT64_C(0x15c33dd9675a8525)},
        .style = &deepseek_r1_2501_style,
        .render = template_deepseek_r1_render,
    },
    {
        .name = "deepseek-v3-0324",
        .texts = {UINT64_C(0x1b051b81f428b75d)},
        .style = &deepseek_v3_0324_style,
        .render = template_deepseek_0324_render,
    },
    {
        .name = "deepseek-r1-0528",
        .texts = {UINT64_C(0xbb0e7a80ee2638fd)},
        .style = &deepseek_r1_0528_style,
        .render = template_deepseek_0324_render,
    },
    {
        .name = "deepseek-v3.1-2508",
        .texts = {UINT64_C(0x4c05047f1e2d92be)},
        .style = &deepseek_v31_2508_style,
        .render = template_deepseek_v31_render,
    },
    {
        .name = "qwen3-v2",
        .texts = {UINT64_C(0x6c0860173d14acb2)},
        .style = &qwen3_v2_style,
        .render = template_qwen_render,
    },
};

/* "deepseek-r1, deepseek-v3, …" */
static char *family_names(void)
{
    struct buffer names = {0};

    for (size_t i = 0; i < ARRAY_LENGTH(families); i++) {
        buffer_printf(&names, "%s%s", i == 0 ? "" : ", ", families[i].name);
    }
    return buffer_take(&names);
}

static void set_unknown(struct error *err, const char *what)
{
    char *names = family_names();

    error_set(err, ERROR_USAGE, "%s: choose one with --chat-template (known: %s)", what, names);
    mem_free(names);
}

static bool is_of_family(uint64_t digest, const struct chat_template *family)
{
    for (size_t i = 0; i < CHAT_TEXTS_MAX && family->texts[i] != 0; i++) {
        if (family->texts[i] == digest) {
            return true;
        }
    }
    return false;
}

const struct chat_template *chat_template_recognise(const char *jinja, struct error *err)
{
    uint64_t digest = chat_jinja_digest(jinja);

    for (size_t i = 0; i < ARRAY_LENGTH(families); i++) {
        if (is_of_family(digest, &families[i])) {
            return &families[i];
        }
    }
    char *what =
        mem_printf("the chat template (digest %016" PRIx64 ") is of no family known here", digest);

    set_unknown(err, what);
    mem_free(what);
    return NULL;
}

static const struct chat_template *find_by_name(const char *name)
{
    for (size_t i = 0; i < ARRAY_LENGTH(families); i++) {
        const char *alias = families[i].alias;

        if (strcmp(families[i].name, name) == 0 || (alias != NULL && strcmp(alias, name) == 0)) {
            return &families[i];
        }
    }
    return NULL;
}

const struct chat_template *chat_template_by_name(const char *name, struct error *err)
{
    const struct chat_template *family = find_by_name(name);

    if (family == NULL) {
        char *what = mem_printf("chat template \"%.60s\" is unknown", name);

        set_unknown(err, what);
        mem_free(what);
    }
    return family;
}

static const struct chat_template *recognise_file(const char *path, struct error *err)
{
    const struct chat_template *family = NULL;
    char *text = NULL;
    size_t length = 0;

    if (!file_read(path, TEMPLATE_BYTES_MAX, &text, &length, err)) {
        return NULL;
    }
    family = chat_template_recognise(text, err);
    if (family == NULL) {
        error_wrap(err, "%s", path);
    }
    mem_free(text);
    return family;
}

static bool looks_like_file(const char *option)
{
    size_t length = strlen(option);

    return (length > 6 && strcmp(option + length - 6, ".jinja") == 0) || file_exists(option);
}

const struct chat_template *chat_template_choose(const char *option,
                                                 const struct tokenizer *tokenizer,
                                                 struct error *err)
{
    if (option != NULL) {
        const struct chat_template *family = find_by_name(option);

        if (family == NULL && looks_like_file(option)) {
            return recognise_file(option, err);
        }
        return chat_template_by_name(option, err);
    }
    if (tokenizer == NULL || tokenizer_chat_template(tokenizer) == NULL) {
        set_unknown(err, "the model has no chat template");
        return NULL;
    }
    return chat_template_recognise(tokenizer_chat_template(tokenizer), err);
}

const char *chat_template_name(const struct chat_template *family)
{
    return family->name;
}

bool chat_template_render(const struct chat_template *family, const struct chat_request *request,
                          struct arena *arena, struct chat_rendering *out, struct error *err)
{
    struct chat_builder builder;
    bool opens_thinking = false;

    if (!json_is_array(request->messages)) {
        return error_set(err, ERROR_USAGE, "messages must be an array, got %s",
                         json_type_word(request->messages));
    }
    chat_builder_init(&builder, arena);
    if (!family->render(family->style, request, &builder, &opens_thinking, err)) {
        return false;
    }
    *out = (struct chat_rendering){
        .spans = builder.spans, .span_count = builder.count, .opens_thinking = opens_thinking};
    return true;
}

void chat_rendering_text(const struct chat_rendering *rendering, struct buffer *out)
{
    for (size_t i = 0; i < rendering->span_count; i++) {
        buffer_append(out, rendering->spans[i].text, rendering->spans[i].length);
    }
}
