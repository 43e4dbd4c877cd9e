/* fuzz_message.c - any bytes as a control message; what is accepted can be sent on and is accepted
 * again. */
#include "common/net/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool can_be_encoded(const struct message *message)
{
    const struct step_result *result = &message->result;

    /* A foreign register may lack what ours must have; a result may share or skip experts. */
    return (message->kind != MESSAGE_REGISTER || message->reg.protocol_major == PROTOCOL_MAJOR) &&
           (message->kind != MESSAGE_STEP_RESULT || result->routing_count == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct message message;
    struct message again;
    struct buffer bytes = {0};
    struct arena arena;
    struct error err = {0};

    arena_init(&arena, 4096);
    if (!message_decode(data, size, &arena, &message, &err)) {
        ASSERT(err.code != ERROR_NONE && err.message[0] != '\0');
    } else if (can_be_encoded(&message)) {
        ASSERT(message_encode(&message, &bytes));
        ASSERT(message_decode((const uint8_t *)buffer_text(&bytes), bytes.length, &arena, &again,
                              &err));
        ASSERT(again.kind == message.kind);
    }
    buffer_deinit(&bytes);
    arena_deinit(&arena);
    return 0;
}
