/* pre_tokenizer.c - split patterns by the names that GGUF files give them.
 *
 * The patterns are those of the models' own tokenizer.json files. The names are llama.cpp's, with
 * the second names under which the same patterns are found in published files. Files of other
 * families carry other names: taking a near miss would give other tokens than the model was
 * trained on, so they are refused.
 */
#include "common/text/pre_tokenizer.h"

#include <string.h>

/* U+4E00..9FA5 and what stands before it down to U+0800, and Hangul. */
#define CJK "[\\x{4E00}-\\x{9FA5}\\x{0800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"

/* DeepSeek LLM's letters: an explicit list, not \p{L}. */
static const char deepseek_llm_letters[] =
    "\\s?[A-Za-z"
    "\\x{00B5}\\x{00C0}-\\x{00D6}\\x{00D8}-\\x{00F6}\\x{00F8}-\\x{01BA}\\x{01BC}-\\x{01BF}"
    "\\x{01C4}-\\x{0293}\\x{0295}-\\x{02AF}\\x{0370}-\\x{0373}\\x{0376}\\x{0377}"
    "\\x{037B}-\\x{037D}\\x{037F}\\x{0386}\\x{0388}-\\x{038A}\\x{038C}\\x{038E}-\\x{03A1}"
    "\\x{03A3}-\\x{03F5}\\x{03F7}-\\x{0481}\\x{048A}-\\x{052F}\\x{0531}-\\x{0556}"
    "\\x{10A0}-\\x{10C5}\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}"
    "\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}"
    "\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}"
    "\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}"
    "\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}"
    "\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}"
    "\\x{2107}\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}"
    "\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}\\x{2145}-\\x{2149}"
    "\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}"
    "\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}"
    "\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}"
    "\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}\\x{10400}-\\x{1044F}"
    "\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}"
    "\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"
    "]+";

/* DeepSeek LLM, V2 and V2.5. The second class of punctuation: full width forms, quotation marks,
 * and U+3000..3002. */
static const char *const deepseek_llm[] = {
    "[\\r\\n]",
    deepseek_llm_letters,
    "\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+",
    "\\s+$",
    CJK,
    "\\p{N}",
    NULL,
};

static const char *const deepseek_coder[] = {
    "[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, "\\p{N}", NULL,
};

/* DeepSeek V3 and R1: CJK ideographs, hiragana and katakana are cut out before words are. */
static const char *const deepseek_v3[] = {
    "\\p{N}{1,3}",
    "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+"
    "|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+"
    "|\\s+(?!\\S)"
    "|\\s+",
    NULL,
};

/* Llama 3 and Qwen 2 differ in how many digits a number takes. */
#define WORDS(numbers)                                                                             \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)"                                                                 \
    "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"                                                               \
    "|" numbers "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"                                                  \
    "|\\s*[\\r\\n]+"                                                                               \
    "|\\s+(?!\\S)"                                                                                 \
    "|\\s+"

static const char *const llama3[] = {WORDS("\\p{N}{1,3}"), NULL};
static const char *const qwen2[] = {WORDS("\\p{N}"), NULL};

static const struct pre_tokenizer pre_tokenizers[] = {
    {"deepseek-llm", deepseek_llm, BPE_MERGE_ALWAYS, false},
    {"deepseek-coder", deepseek_coder, BPE_MERGE_ALWAYS, false},
    {"deepseek-v3", deepseek_v3, BPE_MERGE_ALWAYS, false},
    {"llama-bpe", llama3, BPE_TAKE_WHOLE, true},
    {"llama3", llama3, BPE_TAKE_WHOLE, true},
    {"llama-v3", llama3, BPE_TAKE_WHOLE, true},
    {"qwen2", qwen2, BPE_MERGE_ALWAYS, false},
    {"deepseek-r1-qwen", qwen2, BPE_MERGE_ALWAYS, false},
};

const struct pre_tokenizer *pre_tokenizer_find(const char *name, size_t length)
{
    for (size_t i = 0; i < ARRAY_LENGTH(pre_tokenizers); i++) {
        const struct pre_tokenizer *row = &pre_tokenizers[i];

        if (strlen(row->name) == length && memcmp(row->name, name, length) == 0) {
            return row;
        }
    }
    return NULL;
}

const char *pre_tokenizer_names(void)
{
    return "deepseek-llm, deepseek-coder, deepseek-v3, llama-bpe (llama3, llama-v3), "
           "qwen2 (deepseek-r1-qwen)";
}
