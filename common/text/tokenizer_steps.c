/* tokenizer_steps.c - what tokenizer.json does to text before and after merging: normalizer,
 * pre_tokenizer, post_processor.
 *
 * A step that we do not know is refused by its name: passing it over would give other tokens than
 * the model was trained on.
 */
#include "common/text/tokenizer_internal.h"

#include "common/base/json.h"
#include "common/base/mem.h"

#include <string.h>

#define SEQUENCE_DEPTH_MAX 4

/* The pattern of GPT-2, which ByteLevel applies itself unless told otherwise. */
static const char byte_level_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

struct step_reader {
    struct tokenizer *tokenizer;
    int depth;       /* of sequences inside sequences */
    bool byte_level; /* the last step was there: bytes are no text any more */
};

typedef bool step_fn(struct step_reader *reader, const json_t *step, struct error *err);

static bool sequence_read(struct step_reader *reader, const json_t *sequence, const char *field,
                          step_fn *read_step, struct error *err)
{
    json_t *steps = NULL;

    if (reader->depth == SEQUENCE_DEPTH_MAX) {
        return error_set(err, ERROR_INPUT, "sequences inside sequences go deeper than %d",
                         SEQUENCE_DEPTH_MAX);
    }
    if (!json_get_array_or_null(sequence, field, &steps, err)) {
        return false;
    }
    reader->depth++;
    for (size_t i = 0; i < json_array_size(steps); i++) {
        if (!read_step(reader, json_array_get(steps, i), err)) {
            return error_wrap(err, "%s[%zu]", field, i);
        }
    }
    reader->depth--;
    return true;
}

static bool normalizer_read(struct step_reader *reader, const json_t *step, struct error *err)
{
    const char *type = NULL;

    if (!json_get_string(step, "type", &type, err)) {
        return false;
    }
    if (strcmp(type, "NFC") == 0) {
        reader->tokenizer->form = TEXT_NFC;
        return true;
    }
    if (strcmp(type, "Sequence") == 0) {
        return sequence_read(reader, step, "normalizers", normalizer_read, err);
    }
    return error_set(err, ERROR_INPUT, "normalizer \"%.40s\" is not supported, only NFC", type);
}

static bool behavior_read(const json_t *step, enum split_keep *keep, struct error *err)
{
    const char *behavior = NULL;
    bool invert = false;

    if (!json_get_string(step, "behavior", &behavior, err) ||
        !json_get_bool_or(step, "invert", false, &invert, err)) {
        return false;
    }
    if (strcmp(behavior, "Isolated") == 0) {
        *keep = SPLIT_KEEP_BOTH; /* inverted, too */
        return true;
    }
    if (strcmp(behavior, "Removed") == 0) {
        *keep = invert ? SPLIT_KEEP_MATCHES : SPLIT_KEEP_GAPS;
        return true;
    }
    return error_set(err, ERROR_INPUT,
                     "behavior \"%.40s\" is not supported, only Isolated and Removed", behavior);
}

static bool split_read(struct step_reader *reader, const json_t *step, struct error *err)
{
    const json_t *pattern = json_object_get(step, "pattern");
    const json_t *regex = json_object_get(pattern, "Regex");
    const json_t *literal = json_object_get(pattern, "String");
    const json_t *text = regex != NULL ? regex : literal;
    enum split_keep keep = SPLIT_KEEP_BOTH;

    if (!json_is_string(text)) {
        return error_set(err, ERROR_INPUT,
                         "pattern must be {\"Regex\": …} or {\"String\": …}, got %s",
                         json_type_word(pattern));
    }
    return behavior_read(step, &keep, err) &&
           splitter_add(&reader->tokenizer->splitter, json_string_value(text),
                        regex != NULL ? SPLIT_REGEX : SPLIT_LITERAL, keep, err);
}

static bool digits_read(struct step_reader *reader, const json_t *step, struct error *err)
{
    bool individual = false;

    return json_get_bool_or(step, "individual_digits", false, &individual, err) &&
           splitter_add(&reader->tokenizer->splitter, individual ? "\\p{N}" : "\\p{N}+",
                        SPLIT_REGEX, SPLIT_KEEP_BOTH, err);
}

static bool byte_level_read(struct step_reader *reader, const json_t *step, struct error *err)
{
    bool prefix_space = true;
    bool use_regex = true;

    if (!json_get_bool_or(step, "add_prefix_space", true, &prefix_space, err) ||
        !json_get_bool_or(step, "use_regex", true, &use_regex, err)) {
        return false;
    }
    if (prefix_space) {
        return error_set(err, ERROR_INPUT, "add_prefix_space is not supported");
    }
    reader->byte_level = true;
    return !use_regex || splitter_add(&reader->tokenizer->splitter, byte_level_pattern, SPLIT_REGEX,
                                      SPLIT_KEEP_BOTH, err);
}

static bool pre_tokenizer_read(struct step_reader *reader, const json_t *step, struct error *err)
{
    const char *type = NULL;

    if (!json_get_string(step, "type", &type, err)) {
        return false;
    }
    if (strcmp(type, "Sequence") == 0) {
        return sequence_read(reader, step, "pretokenizers", pre_tokenizer_read, err);
    }
    if (reader->byte_level) {
        return error_set(err, ERROR_INPUT, "\"%.40s\" after ByteLevel is not supported", type);
    }
    if (strcmp(type, "Split") == 0) {
        return split_read(reader, step, err);
    }
    if (strcmp(type, "Digits") == 0) {
        return digits_read(reader, step, err);
    }
    if (strcmp(type, "ByteLevel") == 0) {
        return byte_level_read(reader, step, err);
    }
    return error_set(err, ERROR_INPUT,
                     "\"%.40s\" is not supported, only Sequence, Split, Digits and ByteLevel",
                     type);
}

bool tokenizer_read_steps(struct tokenizer *tokenizer, const json_t *root, struct error *err)
{
    struct step_reader reader = {.tokenizer = tokenizer};
    json_t *normalizer = NULL;
    json_t *pre_tokenizer = NULL;

    if (!json_get_object_or_null(root, "normalizer", &normalizer, err) ||
        !json_get_object_or_null(root, "pre_tokenizer", &pre_tokenizer, err)) {
        return false;
    }
    if (normalizer != NULL && !normalizer_read(&reader, normalizer, err)) {
        return error_wrap(err, "normalizer");
    }
    if (pre_tokenizer != NULL && !pre_tokenizer_read(&reader, pre_tokenizer, err)) {
        return error_wrap(err, "pre_tokenizer");
    }
    if (!reader.byte_level) {
        return error_set(err, ERROR_INPUT,
                         "pre_tokenizer has no ByteLevel step: only byte-level BPE is supported");
    }
    return true;
}

/* TemplateProcessing whose `single` begins with a special token: that one is <bos>. */
static bool template_bos_read(struct tokenizer *tokenizer, const json_t *template,
                              struct error *err)
{
    const json_t *first = json_array_get(json_object_get(template, "single"), 0);
    const char *bos =
        json_string_value(json_object_get(json_object_get(first, "SpecialToken"), "id"));

    if (bos == NULL) {
        return true;
    }
    tokenizer->bos.id = vocab_find_added(&tokenizer->vocab, bos, strlen(bos));
    if (tokenizer->bos.id == VOCAB_NO_TOKEN) {
        return error_set(err, ERROR_INPUT, "single names \"%.60s\", which is no added token", bos);
    }
    mem_free(tokenizer->bos.text);
    tokenizer->bos.text = mem_strdup(bos);
    tokenizer->adds_bos = true;
    return true;
}

/* Others than TemplateProcessing (ByteLevel trims offsets) add no tokens that we would add. */
static bool post_step_read(struct step_reader *reader, const json_t *step, struct error *err)
{
    const char *type = NULL;

    if (!json_get_string(step, "type", &type, err)) {
        return false;
    }
    if (strcmp(type, "Sequence") == 0) {
        return sequence_read(reader, step, "processors", post_step_read, err);
    }
    return strcmp(type, "TemplateProcessing") != 0 ||
           template_bos_read(reader->tokenizer, step, err);
}

bool tokenizer_read_post_processor(struct tokenizer *tokenizer, const json_t *root,
                                   struct error *err)
{
    struct step_reader reader = {.tokenizer = tokenizer};
    json_t *processor = NULL;

    if (!json_get_object_or_null(root, "post_processor", &processor, err)) {
        return false;
    }
    return processor == NULL || post_step_read(&reader, processor, err) ||
           error_wrap(err, "post_processor");
}
