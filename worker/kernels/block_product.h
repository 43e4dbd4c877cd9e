#ifndef SHOAL_KERNELS_BLOCK_PRODUCT_H
#define SHOAL_KERNELS_BLOCK_PRODUCT_H

/* What is done with the blocks of a panel, over any block type: unpack a chunk and multiply it with
 * rows of codes, or widen a block to floats. What a type is made of comes as a form (constants), a
 * function that unpacks one sub-block and one that reads the block's float scales; all are
 * constants at each use, so that everything is inlined into one leaf. Products know the form alone.
 * Written over a lanes and a words header. */
#include "worker/kernels/block_kernel.h"

#include <stdbool.h>

/* Plain C gains nothing from it, and would fill a page for each type. */
#if BLOCK_PLAIN
#define BLOCK_INLINE static inline
#else
#define BLOCK_INLINE static inline __attribute__((always_inline))
#endif

enum block_codes {
    CODES_UNSIGNED, /* bytes 0 … 127, of which `bias` is taken off */
    CODES_SIGNED,
};
enum block_mins { MINS_NONE, MINS_TAKEN, MINS_ADDED };
enum block_scales { SCALES_ONE, SCALES_INTEGER };

struct block_form {
    uint32_t sub_count;  /* sub-blocks with a scale of their own */
    uint32_t word_count; /* of codes in a sub-block: 4 or 8, four values each */
    enum block_codes codes;
    uint32_t bias;
    enum block_scales scales;
    enum block_mins mins;
    uint32_t short_words; /* so many words' products sum up to an int16; 0: to be scaled as int32 */
    float factor;         /* a power of two; multiplies d */
};

#define SUB_WORDS_MAX 8
struct sub_block {
    struct words codes[SUB_WORDS_MAX]; /* word i: values 4 i … 4 i + 3 */
    struct words scale;                /* int32 */
    struct words min;                  /* int32 */
};
struct block_floats {
    struct lanes d;
    struct lanes min;
};

typedef void (*sub_unpack_fn)(const char *block, uint32_t sub, struct sub_block *out);
typedef void (*block_floats_fn)(const char *block, struct block_floats *out);

struct block_type {
    struct block_form form;
    sub_unpack_fn unpack;
    block_floats_fn floats;
    uint32_t bytes; /* of one block of a panel */
};

BLOCK_INLINE struct words block_word(const char *block, uint32_t index)
{
    return words_load(block + index * (sizeof(uint32_t) * PANEL_ROWS));
}

/* The f16 that follows `word_count` words. */
BLOCK_INLINE struct lanes block_half(const char *block, uint32_t word_count)
{
    return lanes_load_f16(block + word_count * (sizeof(uint32_t) * PANEL_ROWS));
}

BLOCK_INLINE struct words words_four(const uint8_t *codes)
{
    uint32_t four;

    memcpy(&four, codes, sizeof(four));
    return words_set(four);
}

/* How many words are summed before a scale is applied. A bias must be taken off such a sum; levels
 * that take it off the weights may sum any number, others know the sums of sub-blocks only. */
BLOCK_INLINE bool form_is_short(const struct block_form *form)
{
    return form->short_words != 0 &&
           (WORDS_ACTIVATION_BIAS != 0 || form->bias == 0 || form->short_words == form->word_count);
}

BLOCK_INLINE uint32_t form_group_words(const struct block_form *form)
{
    return form_is_short(form) ? form->short_words : form->word_count;
}

/* Puts the codes and the scale of one sub-block, the `index`th of its chunk, where rows find them.
 */
BLOCK_INLINE void sub_store(const struct block_form *form, const struct sub_block *sub,
                            uint32_t index, struct block_chunk *out)
{
    const uint32_t group_words = form_group_words(form);
    const uint32_t groups = form->word_count / group_words;
    const struct words bias = words_set(form->bias * 0x01010101);
    const struct words activation_bias = words_set(WORDS_ACTIVATION_BIAS * 0x01010101);

    for (uint32_t group = 0; group < groups; group++) {
        struct words begin = words_set(0);

        for (uint32_t i = group * group_words; i < (group + 1) * group_words; i++) {
            struct words codes = sub->codes[i];

            if (WORDS_ACTIVATION_BIAS != 0) {
                codes = form->bias != 0 ? words_sub_bytes(codes, bias) : codes;
                begin = words_dot(begin, codes, activation_bias);
            }
            words_store(out->codes[index * form->word_count + i], codes);
        }
        if (WORDS_ACTIVATION_BIAS != 0) {
            words_store(out->begins[index * groups + group], words_sub(words_set(0), begin));
        }
    }
    if (form->scales == SCALES_INTEGER) {
        words_store(out->scales[index],
                    form_is_short(form) ? words_and(sub->scale, words_set(0xffff)) : sub->scale);
    }
}

BLOCK_INLINE void chunk_unpack(const struct block_type *type, const char *blocks,
                               uint32_t block_count, struct block_chunk *out)
{
    const struct block_form *form = &type->form;

    for (uint32_t block = 0; block < block_count; block++) {
        struct block_floats floats;
        struct words even_min = words_set(0);

#pragma GCC unroll 16
        for (uint32_t i = 0; i < form->sub_count; i++) {
            struct sub_block sub;

            type->unpack(blocks, i, &sub);
            sub_store(form, &sub, block * form->sub_count + i, out);
            if (form->mins == MINS_TAKEN && i % 2 == 0) {
                even_min = sub.min;
            } else if (form->mins == MINS_TAKEN) {
                words_store(out->min_pairs[i / 2], words_or(even_min, words_left(sub.min, 16)));
            }
        }
        type->floats(blocks, &floats);
        lanes_store(out->d[block], lanes_mul(floats.d, lanes_set(form->factor))); /* exact */
        if (form->mins != MINS_NONE) {
            lanes_store(out->min[block], floats.min);
        }
        blocks += type->bytes;
    }
}

/* Some rows and panels whose sums stay in registers. */
struct row_group {
    const struct block_chunk *chunks;
    const struct int8_chunk *rows;
    float *acc;
    uint32_t row_count, panel_count; /* constants */
};
struct group_words {
    struct words at[WORDS_GROUP_ROWS][TASK_PANELS];
};
/* Unrolled, so that sums stay in registers. */
#define GROUP_EACH(group, row, panel)                                                              \
    _Pragma("GCC unroll 8") for (uint32_t row = 0; row < (group)->row_count; row++)                \
        _Pragma("GCC unroll 2") for (uint32_t panel = 0; panel < (group)->panel_count; panel++)

/* What a sum of products begins with: minus all that biases add to it. */
BLOCK_INLINE struct words sum_begin(const struct block_form *form, const struct row_group *group,
                                    uint32_t row, uint32_t panel, uint32_t index)
{
    const struct int8_chunk *x = &group->rows[row];
    int32_t sum;

    if (WORDS_ACTIVATION_BIAS != 0) {
        return words_load_apart(group->chunks[panel].begins[index]);
    }
    if (form->codes == CODES_SIGNED || form->bias == 0) {
        return words_set(0);
    }
    sum = form->word_count == 8 ? x->sums_32[index] : x->sums_16[index];
    return words_set(-form->bias * (uint32_t)sum);
}

/* The sums of one group of words, the `index`th of the chunk. */
BLOCK_INLINE void group_sum(const struct block_form *form, const struct row_group *group,
                            uint32_t index, struct group_words *out)
{
    const uint32_t words = form_group_words(form);

    GROUP_EACH(group, row, panel)
    {
        out->at[row][panel] = sum_begin(form, group, row, panel, index);
    }
#pragma GCC unroll 8
    for (uint32_t i = 0; i < words; i++) {
        const size_t at = (size_t)index * words + i;

        GROUP_EACH(group, row, panel)
        {
            struct words w = words_load(group->chunks[panel].codes[at]);
            struct words a = words_four(group->rows[row].codes + 4 * at);
            struct words *sum = &out->at[row][panel];

            *sum =
                form->codes == CODES_SIGNED ? words_dot_signed(*sum, w, a) : words_dot(*sum, w, a);
        }
    }
}

/* acc = fma(d * da, S, acc) of block `block`. */
BLOCK_INLINE struct lanes close_sum(const struct row_group *group, uint32_t row, uint32_t panel,
                                    uint32_t block, struct words sum, struct lanes acc)
{
    const struct lanes da = lanes_set(group->rows[row].scales[block]);

    return lanes_fma(lanes_mul(lanes_load(group->chunks[panel].d[block]), da), words_to_lanes(sum),
                     acc);
}

BLOCK_INLINE struct lanes close_mins(const struct block_form *form, const struct row_group *group,
                                     uint32_t row, uint32_t panel, uint32_t block, struct words sum,
                                     struct lanes acc)
{
    const struct lanes da = lanes_set(group->rows[row].scales[block]);
    struct lanes scale = lanes_mul(lanes_load(group->chunks[panel].min[block]), da);

    scale = form->mins == MINS_TAKEN ? lanes_sub(lanes_set(-0.0f), scale) : scale;
    return lanes_fma(scale, words_to_lanes(sum), acc);
}

/* M of a block of 256, whose mins come as pairs of int16. */
BLOCK_INLINE struct words mins_sum(const struct block_form *form, const struct row_group *group,
                                   uint32_t row, uint32_t panel)
{
    const struct int8_chunk *x = &group->rows[row];
    const int16_t *sums = form->word_count == 8 ? x->sums_32 : x->sums_16;
    struct words sum = words_set(0);

#pragma GCC unroll 8
    for (uint32_t i = 0; i < form->sub_count / 2; i++) {
        struct words pair = words_four((const uint8_t *)(sums + (size_t)2 * i));

        sum = words_dot_pairs(sum, words_load(group->chunks[panel].min_pairs[i]), pair);
    }
    return sum;
}

BLOCK_INLINE void group_multiply_256(const struct block_form *form, const struct row_group *group)
{
    const uint32_t groups = form->word_count / form_group_words(form);
    struct group_words total;

    GROUP_EACH(group, row, panel)
    {
        total.at[row][panel] = words_set(0);
    }
    for (uint32_t i = 0; i < form->sub_count * groups; i++) {
        struct group_words sum;

        group_sum(form, group, i, &sum);
        GROUP_EACH(group, row, panel)
        {
            struct words scale = words_load(group->chunks[panel].scales[i / groups]);
            struct words *to = &total.at[row][panel];

            *to = form_is_short(form) ? words_dot_pairs(*to, sum.at[row][panel], scale)
                                      : words_add(*to, words_mul(sum.at[row][panel], scale));
        }
    }
    GROUP_EACH(group, row, panel)
    {
        float *at = group->acc + (size_t)row * BLOCK_ROW_OUTPUTS + (size_t)panel * PANEL_ROWS;
        struct lanes acc = close_sum(group, row, panel, 0, total.at[row][panel], lanes_load(at));

        if (form->mins != MINS_NONE) {
            struct words mins = mins_sum(form, group, row, panel);

            acc = close_mins(form, group, row, panel, 0, mins, acc);
        }
        lanes_store(at, acc);
    }
}

BLOCK_INLINE void group_multiply_32(const struct block_form *form, const struct row_group *group,
                                    uint32_t block_count)
{
    struct lanes acc[WORDS_GROUP_ROWS][TASK_PANELS];

    GROUP_EACH(group, row, panel)
    {
        acc[row][panel] =
            lanes_load(group->acc + (size_t)row * BLOCK_ROW_OUTPUTS + (size_t)panel * PANEL_ROWS);
    }
    for (uint32_t block = 0; block < block_count; block++) {
        struct group_words sum;

        group_sum(form, group, block, &sum);
        GROUP_EACH(group, row, panel)
        {
            struct lanes *to = &acc[row][panel];

            *to = close_sum(group, row, panel, block, sum.at[row][panel], *to);
            if (form->mins != MINS_NONE) {
                int32_t mins = group->rows[row].sums_32[block];

                *to = close_mins(form, group, row, panel, block, words_set((uint32_t)mins), *to);
            }
        }
    }
    GROUP_EACH(group, row, panel)
    {
        lanes_store(group->acc + (size_t)row * BLOCK_ROW_OUTPUTS + (size_t)panel * PANEL_ROWS,
                    acc[row][panel]);
    }
}

/* Rows from `row` on, `rows` at a time as long as there are so many; returns where it stopped. */
BLOCK_INLINE uint32_t groups_multiply(const struct block_form *form, const struct block_task *task,
                                      uint32_t row, uint32_t rows, uint32_t panels)
{
    for (; row + rows <= task->row_count; row += rows) {
        const struct row_group group = {task->chunks, task->rows + row,
                                        task->acc + (size_t)row * BLOCK_ROW_OUTPUTS, rows, panels};

        if (form->sub_count == 1) {
            group_multiply_32(form, &group, task->block_count);
        } else {
            group_multiply_256(form, &group);
        }
    }
    return row;
}

BLOCK_INLINE void panels_multiply(const struct block_form *form, const struct block_task *task,
                                  uint32_t panels)
{
    uint32_t row = 0;

    if (WORDS_GROUP_ROWS >= 6) {
        row = groups_multiply(form, task, row, 6, panels);
        row = groups_multiply(form, task, row, 4, panels);
    }
    if (WORDS_GROUP_ROWS >= 2) {
        row = groups_multiply(form, task, row, 2, panels);
    }
    groups_multiply(form, task, row, 1, panels);
}

BLOCK_INLINE void chunk_multiply(const struct block_form *form, const struct block_task *task)
{
    if (WORDS_GROUP_PANELS == 1) {
        struct block_task one = *task;

        for (uint32_t panel = 0; panel < task->panel_count; panel++) {
            panels_multiply(form, &one, 1);
            one.chunks++;
            one.acc += PANEL_ROWS;
        }
    } else if (task->panel_count == 2) {
        panels_multiply(form, task, 2);
    } else {
        panels_multiply(form, task, 1);
    }
}

/* One of the four codes in each word, times its scale: an exact integer. */
BLOCK_INLINE struct words code_value(const struct block_form *form, const struct sub_block *sub,
                                     uint32_t word, uint32_t byte)
{
    struct words code = words_left(sub->codes[word], 24 - 8 * byte);

    code = form->codes == CODES_SIGNED ? words_right_signed(code, 24)
                                       : words_sub(words_right(code, 24), words_set(form->bias));
    return form->scales == SCALES_ONE ? code : words_mul(code, sub->scale);
}

BLOCK_INLINE void block_widen(const struct block_type *type, const char *block, float *out)
{
    const struct block_form *form = &type->form;
    struct block_floats floats;

    type->floats(block, &floats);
    floats.d = lanes_mul(floats.d, lanes_set(form->factor));
    for (uint32_t i = 0; i < form->sub_count; i++) {
        struct lanes min = lanes_set(0.0f);
        struct sub_block sub;

        type->unpack(block, i, &sub);
        if (form->mins != MINS_NONE) {
            min = lanes_mul(floats.min, words_to_lanes(sub.min));
        }
        for (uint32_t k = 0; k < form->word_count * 4; k++) {
            struct words code = code_value(form, &sub, k / 4, k % 4);
            struct lanes value = lanes_mul(floats.d, words_to_lanes(code));

            value = form->mins == MINS_TAKEN   ? lanes_sub(value, min)
                    : form->mins == MINS_ADDED ? lanes_add(value, min)
                                               : value;
            lanes_store(out, value);
            out += PANEL_ROWS;
        }
    }
}

/* The products of all types of one form, `form_<name>`. */
#define BLOCK_FORM(name)                                                                           \
    static void multiply_##name(const struct block_task *task)                                     \
    {                                                                                              \
        chunk_multiply(&form_##name, task);                                                        \
    }
/* The leaf functions of a type whose struct block_type is `type_<name>`. */
#define BLOCK_LEAVES(name)                                                                         \
    static void unpack_all_##name(const char *blocks, uint32_t block_count,                        \
                                  struct block_chunk *out)                                         \
    {                                                                                              \
        chunk_unpack(&type_##name, blocks, block_count, out);                                      \
    }                                                                                              \
    static void widen_##name(const char *block, float *out)                                        \
    {                                                                                              \
        block_widen(&type_##name, block, out);                                                     \
    }
#define BLOCK_KERNEL(name, form)                                                                   \
    {                                                                                              \
        unpack_all_##name, multiply_##form, widen_##name                                           \
    }

#endif
