#ifndef SHOAL_KERNELS_BLOCK_PRODUCT_H
#define SHOAL_KERNELS_BLOCK_PRODUCT_H

/* The two things that are done with a block of a panel, over any block type: multiply it with rows
 * of codes, or widen it to floats. What a type is made of comes as a form (constants), a function
 * that unpacks one sub-block and one that reads the block's float scales; all are constants at each
 * use, so that everything is inlined into one leaf. Written over a lanes and a words header. */
#include "worker/kernels/block_kernel.h"

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
    float factor; /* a power of two; multiplies d */
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

BLOCK_INLINE struct words words_four(const int8_t *codes)
{
    uint32_t four;

    memcpy(&four, codes, sizeof(four));
    return words_set(four);
}

/* What the codes' bias, in the type or in the product, adds to a sum. */
BLOCK_INLINE struct words sum_begin(const struct block_form *form, int32_t activations)
{
    uint32_t bias = form->codes == CODES_SIGNED ? WORDS_SIGNED_BIAS : form->bias;

    return words_set(-bias * (uint32_t)activations);
}

BLOCK_INLINE struct words sub_sum(const struct block_form *form, const struct sub_block *sub,
                                  const int8_t *codes, int32_t activations)
{
    struct words sum = sum_begin(form, activations);

    for (uint32_t i = 0; i < form->word_count; i++) {
        struct words a = words_four(codes + 4 * i);

        sum = form->codes == CODES_SIGNED ? words_dot_signed(sum, sub->codes[i], a)
                                          : words_dot(sum, sub->codes[i], a);
    }
    return form->scales == SCALES_ONE ? sum : words_mul(sum, sub->scale);
}

/* Exact sums of one block, for each row. */
struct block_sums {
    struct words s[BLOCK_ROWS];
    struct words m[BLOCK_ROWS];
};

BLOCK_INLINE void block_sum(const struct block_type *type, const char *block, uint32_t rows,
                            const struct int8_view *x, struct block_sums *out)
{
    const struct block_form *form = &type->form;

    for (uint32_t row = 0; row < rows; row++) {
        out->s[row] = words_set(0);
        out->m[row] = words_set(0);
    }
    for (uint32_t i = 0; i < form->sub_count; i++) {
        struct sub_block sub;

        type->unpack(block, i, &sub);
        for (uint32_t row = 0; row < rows; row++) {
            const int8_t *codes = x->codes + row * x->code_stride + i * form->word_count * 4;
            int32_t activations = x->sums[row * x->sum_stride + i];

            out->s[row] = words_add(out->s[row], sub_sum(form, &sub, codes, activations));
            if (form->mins != MINS_NONE) {
                struct words m = words_mul(sub.min, words_set((uint32_t)activations));

                out->m[row] = words_add(out->m[row], m);
            }
        }
    }
}

BLOCK_INLINE void block_close(const struct block_type *type, const char *block, uint32_t rows,
                              const struct block_task *task, const struct block_sums *sums)
{
    const struct block_form *form = &type->form;
    struct block_floats floats;

    type->floats(block, &floats);
    floats.d = lanes_mul(floats.d, lanes_set(form->factor)); /* exact */
    for (uint32_t row = 0; row < rows; row++) {
        const struct lanes da = lanes_set(task->x.scales[row * task->x.scale_stride]);
        float *at = task->acc + row * PANEL_ROWS;
        struct lanes acc = lanes_load(at);

        acc = lanes_fma(lanes_mul(floats.d, da), words_to_lanes(sums->s[row]), acc);
        if (form->mins != MINS_NONE) {
            struct lanes scale = lanes_mul(floats.min, da);

            scale = form->mins == MINS_TAKEN ? lanes_sub(lanes_set(-0.0f), scale) : scale;
            acc = lanes_fma(scale, words_to_lanes(sums->m[row]), acc);
        }
        lanes_store(at, acc);
    }
}

/* `rows` is task->row_count, or a constant that equals it. */
BLOCK_INLINE void blocks_multiply_rows(const struct block_type *type, uint32_t rows,
                                       const struct block_task *task)
{
    const uint32_t values = type->form.sub_count * type->form.word_count * 4;
    struct block_task at = *task;

    for (uint32_t block = 0; block < task->block_count; block++) {
        struct block_sums sums;

        __builtin_prefetch(at.blocks + 2 * type->bytes);
        block_sum(type, at.blocks, rows, &at.x, &sums);
        block_close(type, at.blocks, rows, &at, &sums);
        at.blocks += type->bytes;
        at.x.codes += values;
        at.x.scales++;
        at.x.sums += type->form.sub_count;
    }
}

BLOCK_INLINE void blocks_multiply(const struct block_type *type, const struct block_task *task)
{
    if (task->row_count == 1) {
        blocks_multiply_rows(type, 1, task);
    } else {
        blocks_multiply_rows(type, task->row_count, task);
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

/* The leaf functions of a type whose struct block_type is `type_<name>`. */
#define BLOCK_LEAVES(name)                                                                         \
    static void multiply_##name(const struct block_task *task)                                     \
    {                                                                                              \
        blocks_multiply(&type_##name, task);                                                       \
    }                                                                                              \
    static void widen_##name(const char *block, float *out)                                        \
    {                                                                                              \
        block_widen(&type_##name, block, out);                                                     \
    }
#define BLOCK_KERNEL(name, sub_values)                                                             \
    {                                                                                              \
        multiply_##name, widen_##name, sub_values                                                  \
    }

#endif
