/* bpe_long.c - merging a long piece window by window, with the ids that the whole would give.
 *
 * Let u and v be texts whose ids end with p and begin with q. If the bytes of p and q together
 * merge to p, q again, then the ids of uv are those of u followed by those of v. For suppose that a
 * merge crosses the border, and take the first one that does. Until then the bytes of p and q have
 * merged as they would alone: which pair of theirs is next depends on none outside. So the same
 * crossing merge comes when p and q are alone, and they would not stay two.
 *
 * So windows are merged by themselves and joined where this holds. Where it does not, tokens around
 * the border are taken back and their bytes merged again, twice as many each time, until both ends
 * hold. In text, that is a few tokens; a row of one letter may move all tokens of a window. The
 * left side hardly ever moves far: of equal merges the leftmost is first, so what is settled on the
 * left gives way only to lower ranks, one after the other.
 *
 * Windows fit the cache, and their heap stays small: that is faster too.
 */
#include "common/text/bpe.h"

struct join {
    const struct bpe *bpe;
    struct bpe_scratch *scratch;
    const char *bytes;      /* the piece */
    size_t border;          /* bytes before it are in `out`, after it in the window */
    struct token_list *out; /* tokens from `first` on are the piece's */
    size_t first;
};

static size_t token_length(const struct join *join, uint32_t id)
{
    return join->bpe->vocab->entries[id].model.length;
}

static size_t tokens_length(const struct join *join, const uint32_t *ids, size_t count)
{
    size_t length = 0;

    for (size_t i = 0; i < count; i++) {
        length += token_length(join, ids[i]);
    }
    return length;
}

/* Do two neighbours stay two, with the border between them at `border`? */
static bool stay_two(const struct join *join, uint32_t left, uint32_t right, size_t border)
{
    struct token_list *pair = &join->scratch->pair;
    size_t left_length = token_length(join, left);

    pair->count = 0;
    bpe_merge_bytes(join->bpe, join->scratch, join->bytes + border - left_length,
                    left_length + token_length(join, right), pair);
    return pair->count == 2 && pair->ids[0] == left && pair->ids[1] == right;
}

static size_t twice(size_t count, size_t most)
{
    return count == 0 ? 1 : count > most / 2 ? most : 2 * count;
}

/* Merges the last `left` tokens of out and the first `right` of the window anew, more and more of
 * them, until the result holds at both ends. */
static void rejoin(const struct join *join)
{
    const struct token_list *window = &join->scratch->window;
    struct token_list *joint = &join->scratch->joint;
    struct token_list *out = join->out;
    size_t left_most = out->count - join->first;
    size_t left = 1;
    size_t right = 1;

    for (;;) {
        const uint32_t *taken = out->ids + out->count - left;
        size_t begin = join->border - tokens_length(join, taken, left);
        size_t end = join->border + tokens_length(join, window->ids, right);

        joint->count = 0;
        bpe_merge_bytes(join->bpe, join->scratch, join->bytes + begin, end - begin, joint);
        bool left_holds = left == left_most || stay_two(join, taken[-1], joint->ids[0], begin);
        bool right_holds = right == window->count ||
                           stay_two(join, joint->ids[joint->count - 1], window->ids[right], end);
        if (left_holds && right_holds) {
            break;
        }
        left = left_holds ? left : twice(left, left_most);
        right = right_holds ? right : twice(right, window->count);
    }
    out->count -= left;
    token_list_extend(out, joint->ids, joint->count);
    token_list_extend(out, window->ids + right, window->count - right);
}

void bpe_merge_long(const struct bpe *bpe, struct bpe_scratch *scratch, const char *bytes,
                    size_t length, struct token_list *out)
{
    struct join join = {
        .bpe = bpe, .scratch = scratch, .bytes = bytes, .out = out, .first = out->count};
    struct token_list *window = &scratch->window;

    while (join.border < length) {
        size_t left = length - join.border;
        size_t taken = left < BPE_WINDOW_BYTES ? left : BPE_WINDOW_BYTES;

        window->count = 0;
        bpe_merge_bytes(bpe, scratch, bytes + join.border, taken, window);
        if (out->count == join.first ||
            stay_two(&join, out->ids[out->count - 1], window->ids[0], join.border)) {
            token_list_extend(out, window->ids, window->count);
        } else {
            rejoin(&join);
        }
        join.border += taken;
    }
}
