/* fuzz_template.c - any bytes as a client's messages, through every family of templates. */
#include "common/text/chat_template.h"

#include "common/base/json.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void render(const char *name, const json_t *messages, enum chat_arguments arguments)
{
    struct error err = {0};
    struct chat_rendering rendering = {0};
    struct buffer text = {0};
    struct arena arena;
    const struct chat_template *family = chat_template_by_name(name, &err);
    struct chat_request request = {.messages = messages,
                                   .add_generation_prompt = true,
                                   .arguments = arguments,
                                   .bos_text = "<bos>",
                                   .eos_text = "<eos>"};

    ASSERT(family != NULL);
    arena_init(&arena, 4096);
    if (chat_template_render(family, &request, &arena, &rendering, &err)) {
        chat_rendering_text(&rendering, &text);
        ASSERT(text.length >= 5);
    } else {
        ASSERT(err.code == ERROR_USAGE && err.message[0] != '\0');
    }
    buffer_deinit(&text);
    arena_deinit(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    json_t *messages = json_parse((const char *)data, size, "fuzz", &err);

    if (messages != NULL) {
        render("deepseek-r1", messages, CHAT_ARGUMENTS_AS_GIVEN);
        render("deepseek-v3", messages, CHAT_ARGUMENTS_PARSE);
        render("deepseek-r1-distill-llama", messages, CHAT_ARGUMENTS_AS_GIVEN);
        render("deepseek-r1-tojson", messages, CHAT_ARGUMENTS_AS_GIVEN);
        render("deepseek-r1-tojson", messages, CHAT_ARGUMENTS_PARSE);
    }
    json_decref(messages);
    return 0;
}
