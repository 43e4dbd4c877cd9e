#ifndef SHOAL_TEXT_BPE_H
#define SHOAL_TEXT_BPE_H

/* Byte-pair merging of one piece: the pair with the lowest rank first, the leftmost of equals.
 *
 * Linear in the piece's bytes, also for a megabyte without a space (bpe_long.c). The model is
 * immutable; what an encoding needs besides lies in its scratch.
 */
#include "common/base/error.h"
#include "common/text/tokenizer.h"
#include "common/text/vocab.h"

enum bpe_whole_piece {
    BPE_MERGE_ALWAYS,
    BPE_TAKE_WHOLE, /* ignore_merges: a piece that is a token as a whole is that token */
};

/* What becomes of two neighbours; rank BPE_NO_MERGE: they stay two. */
struct bpe_outcome {
    uint32_t rank;
    uint32_t result;
};
#define BPE_NO_MERGE UINT32_MAX

struct bpe_merge {
    uint64_t pair; /* left id, right id; UINT64_MAX is free */
    struct bpe_outcome outcome;
};

struct bpe {
    const struct vocab *vocab; /* borrowed as long as this lives */
    struct bpe_merge *merges;  /* open addressing */
    size_t mask;
    struct bpe_outcome *byte_merges; /* [256][256]: of two bytes, which is what pieces begin as */
    uint32_t byte_ids[256];          /* VOCAB_NO_TOKEN where the vocabulary lacks the byte */
    enum bpe_whole_piece whole_piece;
};

bool bpe_init(struct bpe *bpe, const struct vocab *vocab, size_t merge_count,
              enum bpe_whole_piece whole_piece, struct error *err) MUST_CHECK;
void bpe_deinit(struct bpe *bpe);
/* The file's next merge; false if the pair is there already. At most merge_count times; ranks are
 * below BPE_NO_MERGE. */
bool bpe_add_merge(struct bpe *bpe, uint32_t left, uint32_t right, struct bpe_outcome outcome);

struct bpe_symbol;
struct bpe_cached;

/* One encoding's memory; zero it to begin. */
struct bpe_scratch {
    struct bpe_symbol *symbols;
    size_t symbol_capacity;
    uint64_t *queue; /* candidates: rank, then place */
    size_t queue_count;
    size_t queue_capacity;
    struct token_list window; /* bpe_long.c's working lists */
    struct token_list joint;
    struct token_list pair;
    struct bpe_cached *cache; /* of short pieces; NULL: none */
    size_t cache_mask;
};
/* `text_bytes` is what will be encoded with it: it sizes the cache. */
void bpe_scratch_init(struct bpe_scratch *scratch, size_t text_bytes);
void bpe_scratch_deinit(struct bpe_scratch *scratch);

/* Appends the piece's ids. Bytes without a token (only bytes that UTF-8 never uses, in the files we
 * know) give none. */
void bpe_encode(const struct bpe *bpe, struct bpe_scratch *scratch, const char *piece,
                size_t length, struct token_list *out);

/* --- for bpe_merge.c and bpe_long.c --- */

/* Appends what the bytes merge to. Time n log n in the length. */
void bpe_merge_bytes(const struct bpe *bpe, struct bpe_scratch *scratch, const char *bytes,
                     size_t length, struct token_list *out);
/* The same ids in linear time, for long pieces; every byte has a token. */
void bpe_merge_long(const struct bpe *bpe, struct bpe_scratch *scratch, const char *bytes,
                    size_t length, struct token_list *out);

#define BPE_WINDOW_BYTES 2048 /* bpe_merge_long cuts pieces so */

#endif
