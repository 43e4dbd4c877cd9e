/* control_wire.c - rows of floats behind the message that announces them.
 *
 * Logits of a prompt are hundreds of megabytes at times; protobuf would copy them twice and bound
 * them at 2 GB. The machines are little-endian (checked below), so a part is the array itself.
 */
#include "common/net/control_wire.h"

#include "common/net/control.h"

#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "rows of floats travel in little-endian order"
#endif

static uint32_t row_part_count(const struct message *message)
{
    const struct step_result *result = &message->result;

    return message->kind == MESSAGE_STEP_RESULT
               ? result->logits_count + result->hidden_count + result->draft_logits_count
               : 0;
}

/* Logits first, then hidden states, then logits of the draft layer. */
static struct step_rows *row_part(const struct message *message, uint32_t index)
{
    const struct step_result *result = &message->result;

    if (index < result->logits_count) {
        return &result->logits[index];
    }
    index -= result->logits_count;
    if (index < result->hidden_count) {
        return &result->hidden[index];
    }
    return &result->draft_logits[index - result->hidden_count];
}

static size_t row_part_bytes(const struct step_rows *rows)
{
    return (size_t)rows->row_count * rows->columns * sizeof(float);
}

int control_parts_send(void *socket, const struct buffer *packed, const struct message *message)
{
    uint32_t count = row_part_count(message);
    int flags = ZMQ_DONTWAIT | (count > 0 ? ZMQ_SNDMORE : 0);

    if (zmq_send(socket, buffer_text(packed), packed->length, flags) < 0) {
        return zmq_errno();
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct step_rows *rows = row_part(message, i);

        flags = ZMQ_DONTWAIT | (i + 1 < count ? ZMQ_SNDMORE : 0);
        if (zmq_send(socket, rows->values, row_part_bytes(rows), flags) < 0) {
            return zmq_errno();
        }
    }
    return 0;
}

static bool rows_receive(zmq_msg_t *part, struct arena *arena, struct step_rows *rows,
                         struct error *err)
{
    size_t bytes = row_part_bytes(rows);
    float *values;

    if (zmq_msg_size(part) != bytes) {
        return error_set(err, ERROR_INPUT, "rows of entry %u: %u × %u floats in %zu bytes",
                         rows->entry, rows->row_count, rows->columns, zmq_msg_size(part));
    }
    values = arena_alloc(arena, bytes);
    if (bytes > 0) {
        memcpy(values, zmq_msg_data(part), bytes);
    }
    rows->values = values;
    return true;
}

static bool rest_receive(void *socket, bool more, struct arena *arena, struct message *message,
                         struct error *err)
{
    uint32_t count = row_part_count(message);
    zmq_msg_t part;
    bool ok = true;

    for (uint32_t i = 0; ok && i < count; i++) {
        if (!more) {
            return error_set(err, ERROR_INPUT, "step result: %u parts of rows instead of %u", i,
                             count);
        }
        (void)zmq_msg_init(&part);
        if (zmq_msg_recv(&part, socket, ZMQ_DONTWAIT) < 0) {
            ok = error_set(err, ERROR_INPUT, "step result: %s", zmq_strerror(zmq_errno()));
        }
        ok = ok && rows_receive(&part, arena, row_part(message, i), err);
        more = zmq_msg_more(&part) != 0;
        (void)zmq_msg_close(&part);
    }
    return ok && (!more || error_set(err, ERROR_INPUT, "message: a part too many"));
}

bool control_parts_receive(void *socket, zmq_msg_t *first, struct arena *arena, struct message *out,
                           struct error *err)
{
    struct message message;
    bool more = zmq_msg_more(first) != 0;

    if (!message_decode(zmq_msg_data(first), zmq_msg_size(first), arena, &message, err) ||
        !rest_receive(socket, more, arena, &message, err)) {
        return false;
    }
    *out = message;
    return true;
}
