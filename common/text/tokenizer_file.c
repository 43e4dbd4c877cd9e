/* tokenizer_file.c - a tokenizer from its files.
 *
 * In a directory, tokenizer.json says how text becomes tokens; tokenizer_config.json says which
 * tokens begin and end a text and carries the chat template, which newer models put into
 * chat_template.jinja instead.
 */
#include "common/text/tokenizer_internal.h"

#include "common/base/file.h"
#include "common/base/json.h"
#include "common/base/mem.h"

#include <string.h>

#define TOKENIZER_BYTES_MAX (256u << 20)
#define CONFIG_BYTES_MAX    (16u << 20)

/* A token of the configuration: "text", {"content": "text"} or null. *out = NULL if none. */
static bool config_token_read(const json_t *config, const char *field, const char **out,
                              struct error *err)
{
    const json_t *value = json_object_get(config, field);

    *out = NULL;
    if (value == NULL || json_is_null(value)) {
        return true;
    }
    if (json_is_object(value)) {
        return json_get_string(value, "content", out, err) || error_wrap(err, "%s", field);
    }
    return json_get_string(config, field, out, err);
}

static bool marker_read(const struct tokenizer *tokenizer, const json_t *config, const char *field,
                        struct marker *marker, struct error *err)
{
    const char *content = NULL;

    if (!config_token_read(config, field, &content, err)) {
        return false;
    }
    if (content == NULL) {
        return true;
    }
    uint32_t id = tokenizer_find(tokenizer, content);
    if (id == VOCAB_NO_TOKEN) {
        return error_set(err, ERROR_INPUT, "%s \"%.60s\" is no token of tokenizer.json", field,
                         content);
    }
    marker->id = id;
    mem_free(marker->text);
    marker->text = mem_strdup(content);
    return true;
}

/* A text, or [{"name": "default", "template": text}, …]. */
static bool template_read(struct tokenizer *tokenizer, const json_t *config, struct error *err)
{
    const json_t *value = json_object_get(config, "chat_template");
    const char *text = json_string_value(value);

    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *entry = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(entry, "name"));

        if (name != NULL && strcmp(name, "default") == 0) {
            text = json_string_value(json_object_get(entry, "template"));
        }
    }
    if (text == NULL && value != NULL && !json_is_null(value) && !json_is_array(value)) {
        return error_set(err, ERROR_INPUT, "chat_template must be a string, got %s",
                         json_type_word(value));
    }
    if (text != NULL) {
        tokenizer->chat_template = mem_strdup(text);
    }
    return true;
}

bool tokenizer_read_config(struct tokenizer *tokenizer, const json_t *config, struct error *err)
{
    if (!json_is_object(config)) {
        return error_set(err, ERROR_INPUT, "must be an object, got %s", json_type_word(config));
    }
    return json_get_bool_or(config, "add_bos_token", tokenizer->adds_bos, &tokenizer->adds_bos,
                            err) &&
           marker_read(tokenizer, config, "bos_token", &tokenizer->bos, err) &&
           marker_read(tokenizer, config, "eos_token", &tokenizer->eos, err) &&
           tokenizer_check_bos(tokenizer, "add_bos_token", err) &&
           template_read(tokenizer, config, err);
}

static bool main_file_read(struct tokenizer *tokenizer, const char *json, size_t json_bytes,
                           const char *name, struct error *err)
{
    json_t *root = json_parse(json, json_bytes, name, err);

    if (root == NULL) {
        return false;
    }
    bool ok = json_is_object(root) ||
              error_set(err, ERROR_INPUT, "must be an object, got %s", json_type_word(root));
    ok = ok && tokenizer_read_vocab(tokenizer, root, err) &&
         tokenizer_read_steps(tokenizer, root, err) &&
         tokenizer_read_post_processor(tokenizer, root, err);
    if (!ok) {
        error_wrap(err, "%s", name);
    }
    json_decref(root);
    return ok;
}

static bool config_file_read(struct tokenizer *tokenizer, const char *config, size_t config_bytes,
                             const char *name, struct error *err)
{
    json_t *root = json_parse(config, config_bytes, name, err);

    if (root == NULL) {
        return false;
    }
    bool ok = tokenizer_read_config(tokenizer, root, err) || error_wrap(err, "%s", name);
    json_decref(root);
    return ok;
}

struct tokenizer *tokenizer_parse(const char *json, size_t json_bytes, const char *config,
                                  size_t config_bytes, const char *name, struct error *err)
{
    struct tokenizer *tokenizer = tokenizer_new();
    char *config_name = mem_printf("%s (tokenizer_config.json)", name);
    bool ok =
        main_file_read(tokenizer, json, json_bytes, name, err) &&
        (config == NULL || config_file_read(tokenizer, config, config_bytes, config_name, err));

    mem_free(config_name);
    if (!ok) {
        tokenizer_close(tokenizer);
        return NULL;
    }
    return tokenizer;
}

typedef bool file_part_fn(struct tokenizer *tokenizer, const char *text, size_t length,
                          const char *path, struct error *err);

static bool part_read(struct tokenizer *tokenizer, const char *path, size_t bytes_max,
                      file_part_fn *read_part, struct error *err)
{
    char *text = NULL;
    size_t length = 0;

    if (!file_read(path, bytes_max, &text, &length, err)) {
        return false;
    }
    bool ok = read_part(tokenizer, text, length, path, err);
    mem_free(text);
    return ok;
}

static bool template_file_read(struct tokenizer *tokenizer, const char *text, size_t length,
                               const char *path, struct error *err)
{
    (void)path; /* what it says is judged when it is used */
    (void)err;
    mem_free(tokenizer->chat_template);
    tokenizer->chat_template = mem_strndup(text, length);
    return true;
}

static bool part_read_if_there(struct tokenizer *tokenizer, const char *path,
                               file_part_fn *read_part, struct error *err)
{
    return !file_exists(path) || part_read(tokenizer, path, CONFIG_BYTES_MAX, read_part, err);
}

static struct tokenizer *directory_open(const char *directory, struct error *err)
{
    struct tokenizer *tokenizer = tokenizer_new();
    char *main_path = mem_printf("%s/tokenizer.json", directory);
    char *config_path = mem_printf("%s/tokenizer_config.json", directory);
    char *template_path = mem_printf("%s/chat_template.jinja", directory);
    bool ok = part_read(tokenizer, main_path, TOKENIZER_BYTES_MAX, main_file_read, err) &&
              part_read_if_there(tokenizer, config_path, config_file_read, err) &&
              part_read_if_there(tokenizer, template_path, template_file_read, err);

    mem_free(main_path);
    mem_free(config_path);
    mem_free(template_path);
    if (!ok) {
        tokenizer_close(tokenizer);
        return NULL;
    }
    return tokenizer;
}

struct tokenizer *tokenizer_open(const char *path, struct error *err)
{
    static const char suffix[] = ".gguf";
    size_t length = strlen(path);
    size_t suffix_length = sizeof suffix - 1;
    bool is_gguf = length >= suffix_length && strcmp(path + length - suffix_length, suffix) == 0;

    return is_gguf ? tokenizer_open_gguf(path, err) : directory_open(path, err);
}
