/* tokenizer.c - text to tokens, and what a tokenizer knows about its tokens.
 *
 * The spans of a prompt are joined, because the patterns must see the text as the model was trained
 * on it: as one string. Added tokens are then looked for where spans allow it, and what lies
 * between two of them is cut into pieces and merged. Bytes that are not UTF-8 never reach a
 * pattern: a run of them is a piece by itself.
 */
#include "common/text/tokenizer_internal.h"

#include "common/base/mem.h"
#include "common/text/utf8.h"

#include <string.h>
#include <utf8proc.h>

#define TEXT_BYTES_MAX ((size_t)1 << 30)

/* Characters below U+0300 are in composed form and combine with nothing before them. */
#define NFC_LEAD_MIN 0xCC

struct encoding {
    const struct tokenizer *tokenizer;
    struct bpe_scratch scratch;
    struct split_run *run;
    const char *text; /* the spans, joined */
    size_t done;      /* bytes of it that are encoded */
    struct token_list *out;
};

static void list_grow(struct token_list *list, size_t count)
{
    while (list->capacity < count) {
        list->capacity = list->capacity == 0 ? 64 : 2 * list->capacity;
    }
    list->ids = mem_resize(list->ids, list->capacity, sizeof *list->ids);
}

void token_list_append(struct token_list *list, uint32_t id)
{
    if (list->count == list->capacity) {
        list_grow(list, list->count + 1);
    }
    list->ids[list->count++] = id;
}

void token_list_extend(struct token_list *list, const uint32_t *ids, size_t count)
{
    if (list->capacity - list->count < count) {
        list_grow(list, list->count + count);
    }
    for (size_t i = 0; i < count; i++) {
        list->ids[list->count++] = ids[i];
    }
}

void token_list_deinit(struct token_list *list)
{
    mem_free(list->ids);
    *list = (struct token_list){0};
}

static void encode_piece(void *context, const char *piece, size_t length)
{
    struct encoding *encoding = context;

    bpe_encode(&encoding->tokenizer->bpe, &encoding->scratch, piece, length, encoding->out);
}

static bool is_composed(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)text[i] >= NFC_LEAD_MIN) {
            return false;
        }
    }
    return true;
}

static bool encode_composed(struct encoding *encoding, const char *text, size_t length,
                            struct error *err)
{
    const utf8proc_uint8_t *in = (const utf8proc_uint8_t *)text;
    const utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    utf8proc_ssize_t count = utf8proc_decompose(in, (utf8proc_ssize_t)length, NULL, 0, options);

    if (count < 0) {
        return error_set(err, ERROR_LIMIT, "composing the text: %s", utf8proc_errmsg(count));
    }
    utf8proc_int32_t *points = mem_try_array(utf8proc_int32_t, (size_t)count + 1, err);
    if (points == NULL) {
        return false;
    }
    utf8proc_decompose(in, (utf8proc_ssize_t)length, points, count, options);
    utf8proc_ssize_t bytes = utf8proc_reencode(points, count, options);
    bool ok = bytes >= 0
                  ? split_run_text(encoding->run, (const char *)points, (size_t)bytes, err)
                  : error_set(err, ERROR_LIMIT, "composing the text: %s", utf8proc_errmsg(bytes));
    mem_free(points);
    return ok;
}

/* Valid UTF-8 without added tokens. */
static bool encode_valid(struct encoding *encoding, const char *text, size_t length,
                         struct error *err)
{
    if (encoding->tokenizer->form == TEXT_NFC && !is_composed(text, length)) {
        return encode_composed(encoding, text, length, err);
    }
    return split_run_text(encoding->run, text, length, err);
}

/* How many bytes from the front are in no character. */
static size_t invalid_length(const char *text, size_t length)
{
    size_t at = 0;

    while (at < length) {
        size_t taken = 0;

        if (utf8_step(text + at, length - at, &taken) == UTF8_CHARACTER) {
            break;
        }
        at += taken;
    }
    return at;
}

static bool encode_plain(struct encoding *encoding, const char *text, size_t length,
                         struct error *err)
{
    size_t at = 0;

    while (at < length) {
        size_t valid = utf8_valid_length(text + at, length - at);

        if (!encode_valid(encoding, text + at, valid, err)) {
            return false;
        }
        at += valid;
        size_t invalid = invalid_length(text + at, length - at);
        encode_piece(encoding, text + at, invalid);
        at += invalid;
    }
    return true;
}

static bool encode_plain_until(struct encoding *encoding, size_t end, struct error *err)
{
    size_t begin = encoding->done;

    encoding->done = end;
    return encode_plain(encoding, encoding->text + begin, end - begin, err);
}

/* Cuts the added tokens out of text[begin .. end). What is plain before them may have begun in
 * earlier spans; what follows the last one waits for the next. */
static bool encode_parsed(struct encoding *encoding, size_t begin, size_t end, struct error *err)
{
    const struct added_trie *added = &encoding->tokenizer->added;

    for (;;) {
        struct added_match match = added_trie_find(added, encoding->text, begin, end);

        if (match.id == VOCAB_NO_TOKEN) {
            return true;
        }
        if (!encode_plain_until(encoding, match.begin, err)) {
            return false;
        }
        token_list_append(encoding->out, match.id);
        encoding->done = match.end;
        begin = match.end;
    }
}

static bool encode_joined(struct encoding *encoding, const struct text_span *spans,
                          size_t span_count, struct error *err)
{
    size_t begin = 0;

    for (size_t i = 0; i < span_count;) {
        enum special_mode mode = spans[i].special;
        size_t end = begin;

        while (i < span_count && spans[i].special == mode) {
            end += spans[i++].length;
        }
        if (mode == SPECIAL_PARSE && !encode_parsed(encoding, begin, end, err)) {
            return false;
        }
        begin = end;
    }
    return encode_plain_until(encoding, begin, err);
}

static bool length_of(const struct text_span *spans, size_t span_count, size_t *length,
                      struct error *err)
{
    *length = 0;
    for (size_t i = 0; i < span_count; i++) {
        if (spans[i].length > TEXT_BYTES_MAX - *length) {
            return error_set(err, ERROR_LIMIT, "the text is longer than %zu bytes", TEXT_BYTES_MAX);
        }
        *length += spans[i].length;
    }
    return true;
}

bool tokenizer_encode(const struct tokenizer *tokenizer, const struct text_span *spans,
                      size_t span_count, struct token_list *out, struct error *err)
{
    struct encoding encoding = {.tokenizer = tokenizer, .out = out};
    struct buffer joined = {0};
    size_t count_before = out->count;
    size_t length = 0;

    if (!length_of(spans, span_count, &length, err)) {
        return false;
    }
    if (length == 0) {
        return true;
    }
    if (span_count > 1) {
        buffer_reserve(&joined, length);
        for (size_t i = 0; i < span_count; i++) {
            buffer_append(&joined, spans[i].text, spans[i].length);
        }
    }
    encoding.text = span_count > 1 ? buffer_text(&joined) : spans[0].text;
    bpe_scratch_init(&encoding.scratch, length);
    encoding.run = split_run_create(&tokenizer->splitter, encode_piece, &encoding);
    bool ok = encode_joined(&encoding, spans, span_count, err);
    split_run_destroy(encoding.run);
    bpe_scratch_deinit(&encoding.scratch);
    buffer_deinit(&joined);
    if (!ok) {
        out->count = count_before;
    }
    return ok;
}

uint32_t tokenizer_token_count(const struct tokenizer *tokenizer)
{
    return tokenizer->vocab.count;
}

const char *tokenizer_bytes(const struct tokenizer *tokenizer, uint32_t id, size_t *length)
{
    return vocab_bytes(&tokenizer->vocab, id, length);
}

static bool has_flag(const struct tokenizer *tokenizer, uint32_t id, uint32_t flag)
{
    return id < tokenizer->vocab.count && (tokenizer->vocab.entries[id].flags & flag) != 0;
}

bool tokenizer_is_special(const struct tokenizer *tokenizer, uint32_t id)
{
    return has_flag(tokenizer, id, VOCAB_SPECIAL);
}

bool tokenizer_is_added(const struct tokenizer *tokenizer, uint32_t id)
{
    return has_flag(tokenizer, id, VOCAB_ADDED);
}

uint32_t tokenizer_find(const struct tokenizer *tokenizer, const char *text)
{
    uint32_t id = vocab_find_added(&tokenizer->vocab, text, strlen(text));

    return id != VOCAB_NO_TOKEN ? id : vocab_find_model(&tokenizer->vocab, text, strlen(text));
}

uint32_t tokenizer_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->bos.id;
}

uint32_t tokenizer_eos(const struct tokenizer *tokenizer)
{
    return tokenizer->eos.id;
}

bool tokenizer_adds_bos(const struct tokenizer *tokenizer)
{
    return tokenizer->adds_bos;
}

const char *tokenizer_bos_text(const struct tokenizer *tokenizer)
{
    return tokenizer->bos.text != NULL ? tokenizer->bos.text : "";
}

const char *tokenizer_eos_text(const struct tokenizer *tokenizer)
{
    return tokenizer->eos.text != NULL ? tokenizer->eos.text : "";
}

const char *tokenizer_chat_template(const struct tokenizer *tokenizer)
{
    return tokenizer->chat_template;
}
