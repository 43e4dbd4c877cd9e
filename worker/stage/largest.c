/* largest.c - the n largest of a row, for top-k and the most likely tokens of log-probabilities.
 *
 * A heap of the n largest so far has the smallest of them on top; what a row holds below that is
 * skipped by a vector search. A later token has a higher id, so to get in it must be strictly
 * larger. Taking the top off again and again sorts the heap from its end.
 */
#include "worker/stage/largest.h"

#include "common/base/check.h"

#include <math.h>

bool largest_is_before(const float *logits, uint32_t a, uint32_t b)
{
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

/* A parent stands after its children. */
static void heap_sink(const float *logits, uint32_t *heap, uint32_t count, uint32_t at)
{
    uint32_t moved = heap[at];

    for (;;) {
        uint32_t child = 2 * at + 1;

        if (child >= count) {
            break;
        }
        if (child + 1 < count && largest_is_before(logits, heap[child], heap[child + 1])) {
            child++;
        }
        if (!largest_is_before(logits, moved, heap[child])) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

static void heap_sort(const float *logits, uint32_t *heap, uint32_t count)
{
    for (uint32_t end = count; end-- > 1;) {
        uint32_t smallest = heap[0];

        heap[0] = heap[end];
        heap[end] = smallest;
        heap_sink(logits, heap, end, 0);
    }
}

void largest_tokens(const struct kernels *kernels, const float *logits, uint32_t vocab,
                    uint32_t count, uint32_t *tokens)
{
    size_t token = count;

    ASSERT(count > 0 && count <= vocab);
    for (uint32_t i = 0; i < count; i++) {
        tokens[i] = i;
    }
    for (uint32_t at = count / 2; at-- > 0;) {
        heap_sink(logits, tokens, count, at);
    }
    for (;;) {
        token = kernels->find_from(logits, token, vocab, nextafterf(logits[tokens[0]], INFINITY));
        if (token == vocab) {
            break;
        }
        tokens[0] = (uint32_t)token++;
        heap_sink(logits, tokens, count, 0);
    }
    heap_sort(logits, tokens, count);
}
