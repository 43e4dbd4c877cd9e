/* combine.c - the one tree in which expert outputs are added.
 *
 * Every layout adds in this order, so that where an expert was computed never shows: the chosen
 * experts of a router group in id order, the groups in order, the shared expert, then the residual.
 * A group's sum that a peer sent stands for its rows. Works in short segments on the stack: no
 * shared buffer, so a caller may spread rows over the team.
 */
#include "worker/layers/forward_state.h"

#include <string.h>

#define SEGMENT_VALUES 512

/* A sum whose first part is copied, not added to zero. */
struct segment_sum {
    float values[SEGMENT_VALUES];
    bool started;
};

static void segment_add(const struct kernels *kernels, struct segment_sum *sum, const float *part,
                        size_t count)
{
    if (sum->started) {
        kernels->add(sum->values, part, count);
        return;
    }
    memcpy(sum->values, part, count * sizeof(float));
    sum->started = true;
}

/* Values [begin, begin + count) of a row. */
static void segment_combine(const struct kernels *kernels, const struct combine_part *parts,
                            uint32_t part_count, size_t begin, size_t count,
                            struct segment_sum *total)
{
    total->started = false;
    for (uint32_t i = 0; i < part_count;) {
        struct segment_sum group;
        uint32_t id = parts[i].group;

        group.started = false;
        for (; i < part_count && parts[i].group == id; i++) {
            segment_add(kernels, &group, parts[i].values + begin, count);
        }
        segment_add(kernels, total, group.values, count);
    }
}

void forward_combine_row(struct forward *forward, const struct combine_part *parts,
                         uint32_t part_count, const float *shared, float *x)
{
    const struct kernels *kernels = forward->config.kernels;
    size_t hidden = forward->config.arch->hidden;

    for (size_t begin = 0; begin < hidden; begin += SEGMENT_VALUES) {
        size_t count = hidden - begin < SEGMENT_VALUES ? hidden - begin : SEGMENT_VALUES;
        struct segment_sum total;

        segment_combine(kernels, parts, part_count, begin, count, &total);
        segment_add(kernels, &total, shared + begin, count);
        kernels->add(x + begin, total.values, count);
    }
}

void forward_group_sum(struct forward *forward, const float *const *rows, uint32_t row_count,
                       float *out)
{
    size_t hidden = forward->config.arch->hidden;

    ASSERT(row_count > 0);
    memcpy(out, rows[0], hidden * sizeof(float));
    for (uint32_t i = 1; i < row_count; i++) {
        forward->config.kernels->add(out, rows[i], hidden);
    }
}
