/* A frame is taken as it was sent or not at all; pools get every frame back. */
#include "common/net/frame.h"

#include "common/base/mem.h"
#include "common/net/inbound.h"
#include "tests/support/random.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define PAYLOAD_BYTES ((size_t)96)
#define WIRE_BYTES    (FRAME_HEADER_BYTES + PAYLOAD_BYTES)

static struct frame_pool *pool_make(uint32_t count)
{
    struct error err;
    struct frame_pool *pool = frame_pool_create(count, PAYLOAD_BYTES, &err);

    assert_non_null(pool);
    return pool;
}

/* A frame of random values, encoded in its wire bytes. */
static struct frame *frame_make(struct frame_pool *pool, struct random *random)
{
    struct frame *frame = frame_pool_take(pool);

    assert_non_null(frame);
    random_fill(random, frame->payload, PAYLOAD_BYTES);
    frame->header = (struct frame_header){
        .epoch = random_u64(random),
        .step = random_u64(random),
        .link_sequence = random_u64(random),
        .attempt = (uint32_t)random_u64(random),
        .layer = (uint32_t)random_u64(random),
        .source = (uint32_t)random_u64(random),
        .rows = 3,
        .columns = 8,
        .payload_bytes = PAYLOAD_BYTES,
        .kind = (uint8_t)random_below(random, FRAME_KIND_COUNT),
        .dtype = FRAME_F32,
    };
    frame_encode_header(frame, frame->wire);
    return frame;
}

static void a_header_comes_back_as_it_was(void **state)
{
    struct frame_pool *pool = pool_make(1);
    struct random random;

    (void)state;
    random_init(&random, 1);
    for (int i = 0; i < 100; i++) {
        struct frame *frame = frame_make(pool, &random);
        struct frame_header got;
        struct error err;

        assert_true(frame_decode(frame->wire, WIRE_BYTES, &got, &err));
        frame->header.crc = got.crc;
        assert_memory_equal(&got, &frame->header, offsetof(struct frame_header, dtype) + 1);
        frame_release(frame);
    }
    frame_pool_destroy(pool);
}

static void the_layout_is_little_endian_and_fixed(void **state)
{
    struct frame_pool *pool = pool_make(1);
    struct frame *frame = frame_pool_take(pool);
    static const uint8_t expected[48] = {'S',       'O',  'A',  'L', 1, 0, FRAME_HIDDEN,
                                         FRAME_RAW, 8,    7,    6,   5, 4, 3,
                                         2,         1,    9,    0,   0, 0, 0,
                                         0,         0,    0,    1,   0, 0, 0,
                                         0,         0,    0,    0,   2, 0, 0,
                                         0,         0x34, 0x12, 0,   0, 7, 0,
                                         0,         0,    3,    0,   0, 0};

    (void)state;
    frame->header = (struct frame_header){.epoch = 0x0102030405060708,
                                          .step = 9,
                                          .link_sequence = 1,
                                          .attempt = 2,
                                          .layer = 0x1234,
                                          .source = 7,
                                          .rows = 3,
                                          .kind = FRAME_HIDDEN};
    frame_encode_header(frame, frame->wire);
    assert_memory_equal(frame->wire, expected, sizeof(expected));
    frame_release(frame);
    frame_pool_destroy(pool);
}

static void a_frame_cut_at_any_byte_is_refused(void **state)
{
    struct frame_pool *pool = pool_make(1);
    struct random random;
    struct frame *frame;
    struct frame_header got;
    struct error err;

    (void)state;
    random_init(&random, 2);
    frame = frame_make(pool, &random);
    for (size_t length = 0; length < WIRE_BYTES; length++) {
        uint8_t *exact = mem_alloc_zeroed(length, 1);

        memcpy(exact, frame->wire, length);
        assert_false(frame_decode(exact, length, &got, &err));
        assert_int_equal(err.code, ERROR_INPUT);
        mem_free(exact);
    }
    frame_release(frame);
    frame_pool_destroy(pool);
}

static void a_frame_with_any_bit_flipped_is_refused(void **state)
{
    struct frame_pool *pool = pool_make(1);
    struct random random;
    struct frame *frame;
    struct frame_header got;
    struct error err;

    (void)state;
    random_init(&random, 3);
    frame = frame_make(pool, &random);
    for (size_t bit = 0; bit < WIRE_BYTES * 8; bit++) {
        frame->wire[bit / 8] ^= (uint8_t)(1u << (bit % 8));
        assert_false(frame_decode(frame->wire, WIRE_BYTES, &got, &err));
        frame->wire[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    assert_true(frame_decode(frame->wire, WIRE_BYTES, &got, &err));
    frame_release(frame);
    frame_pool_destroy(pool);
}

static void another_version_is_named(void **state)
{
    uint8_t wire[FRAME_HEADER_BYTES] = {'S', 'O', 'A', 'L', 9, 0};
    struct frame_header got;
    struct error err;

    (void)state;
    assert_false(frame_decode(wire, sizeof(wire), &got, &err));
    assert_string_equal(err.message, "frame: version 9, this program speaks 1");
}

static void more_values_than_payload_are_refused(void **state)
{
    static const uint32_t sides[] = {UINT32_MAX, 1u << 31}; /* the second one's bytes wrap to 0 */
    struct frame_pool *pool = pool_make(1);
    struct frame *frame = frame_pool_take(pool);
    struct frame_header got;
    struct error err;

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(sides); i++) {
        frame->header = (struct frame_header){
            .kind = FRAME_COMBINE, .dtype = FRAME_F32, .rows = sides[i], .columns = sides[i]};
        frame->header.payload_bytes = 16;
        frame_encode_header(frame, frame->wire);
        assert_false(frame_decode(frame->wire, FRAME_HEADER_BYTES + 16, &got, &err));
    }
    frame_release(frame);
    frame_pool_destroy(pool);
}

static void a_pool_gives_what_it_has_and_takes_it_back(void **state)
{
    struct frame_pool *pool = pool_make(3);
    struct frame *frames[3];

    (void)state;
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < 3; i++) {
            frames[i] = frame_pool_take(pool);
            assert_non_null(frames[i]);
            assert_int_equal((uintptr_t)frames[i]->payload % 64, 0);
            assert_true(frames[i]->capacity >= PAYLOAD_BYTES);
            assert_ptr_equal(frames[i]->wire + FRAME_HEADER_BYTES, frames[i]->payload);
        }
        assert_null(frame_pool_take(pool));
        assert_ptr_equal(frame_acquire(frames[1]), frames[1]);
        frame_release(frames[1]);
        assert_null(frame_pool_take(pool)); /* one reference is left */
        for (size_t i = 0; i < 3; i++) {
            frame_release(frames[i]);
        }
    }
    frame_pool_destroy(pool);
}

static void a_pool_lives_until_its_last_frame_is_back(void **state)
{
    struct frame_pool *pool = pool_make(2);
    struct frame *frame = frame_pool_take(pool);

    (void)state;
    frame_pool_destroy(pool);
    memset(frame->payload, 1, PAYLOAD_BYTES); /* still there, says the sanitizer */
    frame_release(frame);
    frame_release(NULL);
    frame_pool_destroy(NULL);
}

struct returner {
    struct ring *ring;
    atomic_bool finished;
};

static void *returner_run(void *argument)
{
    struct returner *returner = argument;
    struct frame *frame;

    while ((frame = ring_pop(returner->ring)) != NULL || !atomic_load(&returner->finished)) {
        frame_release(frame);
    }
    while ((frame = ring_pop(returner->ring)) != NULL) {
        frame_release(frame);
    }
    return NULL;
}

static void frames_return_from_another_thread(void **state)
{
    struct frame_pool *pool = pool_make(8);
    struct returner returner = {.ring = ring_create(16)};
    pthread_t thread;

    (void)state;
    atomic_init(&returner.finished, false);
    assert_int_equal(pthread_create(&thread, NULL, returner_run, &returner), 0);
    for (uint32_t taken = 0; taken < 20000;) {
        struct frame *frame = frame_pool_take(pool);

        if (frame == NULL) {
            continue;
        }
        memset(frame->payload, (int)(taken & 0xff), PAYLOAD_BYTES);
        assert_true(ring_push(returner.ring, frame));
        taken++;
    }
    atomic_store(&returner.finished, true);
    frame_pool_destroy(pool); /* maybe before the last is back */
    assert_int_equal(pthread_join(thread, NULL), 0);
    ring_destroy(returner.ring);
}

static void small_frames_never_take_large_buffers(void **state)
{
    struct inbound_pool *pool = inbound_pool_create();
    struct inbound *small[8];
    const uint8_t *buffer = NULL;
    struct error err;

    (void)state;
    for (size_t i = 0; i < ARRAY_LENGTH(small); i++) {
        small[i] = inbound_take(pool, 128, &err);
        assert_non_null(small[i]);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(small); i++) {
        frame_release(&small[i]->frame);
    }
    for (size_t i = 0; i < ARRAY_LENGTH(small); i++) {
        struct inbound *large = inbound_take(pool, 1 << 20, &err);

        assert_non_null(large);
        assert_true(buffer == NULL || large->buffer == buffer);
        buffer = large->buffer;
        frame_release(&large->frame);
    }
    inbound_pool_destroy(pool);
}

static void a_pool_beyond_reason_is_refused(void **state)
{
    struct error err;

    (void)state;
    assert_null(frame_pool_create(UINT32_MAX, UINT32_MAX - 1000, &err));
    assert_int_equal(err.code, ERROR_LIMIT);
    for (uint64_t n = 1; n <= 2; n++) {
        mem_fail_after(n);
        assert_null(frame_pool_create(4, 4096, &err));
    }
    mem_fail_after(0);
    assert_true(frame_pool_bytes(4, 4096) >= 4 * 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_header_comes_back_as_it_was),
        cmocka_unit_test(the_layout_is_little_endian_and_fixed),
        cmocka_unit_test(a_frame_cut_at_any_byte_is_refused),
        cmocka_unit_test(a_frame_with_any_bit_flipped_is_refused),
        cmocka_unit_test(another_version_is_named),
        cmocka_unit_test(more_values_than_payload_are_refused),
        cmocka_unit_test(a_pool_gives_what_it_has_and_takes_it_back),
        cmocka_unit_test(a_pool_lives_until_its_last_frame_is_back),
        cmocka_unit_test(frames_return_from_another_thread),
        cmocka_unit_test(small_frames_never_take_large_buffers),
        cmocka_unit_test(a_pool_beyond_reason_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
