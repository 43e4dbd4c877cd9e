/* fuzz_template.c - any bytes as a client's messages, tools and variables, through every family of
 * templates; and as the text of a template that a model brings. */
#include "common/text/chat_template.h"

#include "common/base/json.h"
#include "common/base/mem.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const names[] = {
    "deepseek-r1",
    "deepseek-v3",
    "deepseek-v3.1",
    "deepseek-v2",
    "deepseek-r1-tojson",
    "deepseek-r1-distill-qwen",
    "deepseek-r1-distill-llama",
    "llama-3.3",
    "llama-3.2",
    "qwen2.5",
    "qwen3",
    "deepseek-v3-2412",
    "deepseek-r1-2501",
    "deepseek-v3-0324",
    "deepseek-r1-0528",
    "deepseek-v3.1-2508",
    "qwen3-v2",
};

static void render(const char *name, const struct chat_request *request)
{
    struct error err = {0};
    struct chat_rendering rendering = {0};
    struct buffer text = {0};
    struct arena arena;
    const struct chat_template *family = chat_template_by_name(name, &err);

    ASSERT(family != NULL);
    arena_init(&arena, 4096);
    if (chat_template_render(family, request, &arena, &rendering, &err)) {
        chat_rendering_text(&rendering, &text);
        ASSERT(text.length > 0);
    } else {
        ASSERT(err.code == ERROR_USAGE && err.message[0] != '\0');
    }
    buffer_deinit(&text);
    arena_deinit(&arena);
}

static void recognise(const uint8_t *data, size_t size)
{
    struct error err = {0};
    char *text = mem_new_array(char, size + 1);

    memcpy(text, data, size);
    text[size] = '\0';
    if (chat_template_recognise(text, &err) == NULL) {
        ASSERT(err.code == ERROR_USAGE);
    }
    mem_free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0};
    json_t *input = json_parse((const char *)data, size, "fuzz", &err);
    struct chat_request request = {
        .messages = input, .add_generation_prompt = true, .bos_text = "<bos>", .eos_text = "<eos>"};
    json_t *tools = json_object_get(input, "tools");
    json_t *kwargs = json_object_get(input, "chat_template_kwargs");

    recognise(data, size);
    if (input == NULL) {
        return 0;
    }
    if (json_is_object(input)) {
        request.messages = json_object_get(input, "messages");
        request.tools = json_is_array(tools) ? tools : NULL;
        request.kwargs = json_is_object(kwargs) ? kwargs : NULL;
    }
    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        request.arguments = CHAT_ARGUMENTS_AS_GIVEN;
        render(names[i], &request);
        request.arguments = CHAT_ARGUMENTS_PARSE;
        render(names[i], &request);
    }
    json_decref(input);
    return 0;
}
