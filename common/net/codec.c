/* codec.c - one control message to bytes and back.
 *
 * protobuf-c unpacks into the caller's arena through an allocator with a budget, so that a short
 * message cannot claim much memory, and nothing has to be freed. A registration of another protocol
 * major may look different beyond its version fields, so those are read by a schema of their own.
 */
#include "common/net/codec.h"

#include "common/net/control.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* What unpacking may take beyond the bytes themselves: an empty sub-message of two bytes becomes a
 * struct and a pointer. */
#define UNPACK_FACTOR     ((size_t)96)
#define UNPACK_BYTES_MIN  ((size_t)1 << 16)
#define UNPACK_BYTES_MAX  ((size_t)1 << 30)
#define ENCODE_CHUNK_SIZE ((size_t)32 << 10)

bool codec_check_count(const char *field, uint64_t count, uint64_t count_max, struct error *err)
{
    if (count > count_max) {
        return error_set(err, ERROR_INPUT, "%s: %" PRIu64 ", %" PRIu64 " is the limit", field,
                         count, count_max);
    }
    return true;
}

bool codec_check_text(const char *field, const char *text, struct error *err)
{
    return codec_check_count(field, strnlen(text, CODEC_TEXT_BYTES_MAX + 1), CODEC_TEXT_BYTES_MAX,
                             err);
}

bool codec_check_amount(const char *field, double value, struct error *err)
{
    if (!isfinite(value) || value < 0) {
        return error_set(err, ERROR_INPUT, "%s: %g is no amount", field, value);
    }
    return true;
}

char *codec_text(const char *text)
{
    return (char *)(uintptr_t)(text != NULL ? text : "");
}

uint32_t *codec_array(const uint32_t *values)
{
    return (uint32_t *)(uintptr_t)values;
}

float *codec_floats(const float *values)
{
    return (float *)(uintptr_t)values;
}

void **codec_list(struct arena *arena, size_t count, size_t item_bytes)
{
    void **pointers = arena_new_array(arena, void *, count);
    char *items = arena_alloc_array(arena, count, item_bytes);

    for (size_t i = 0; i < count; i++) {
        pointers[i] = items + i * item_bytes;
    }
    return pointers;
}

/* --- encode --- */

#define BODY(field, type, init)                                                                    \
    out->field = arena_new(arena, type);                                                           \
    init(out->field)

static void member_encode(const struct message *in, struct arena *arena, Shoal__Message *out)
{
    switch (in->kind) {
    case MESSAGE_REGISTER:
        out->registration = arena_new(arena, Shoal__Registration);
        codec_register_encode(&in->reg, out->registration);
        break;
    case MESSAGE_WELCOME:
        BODY(welcome, Shoal__Welcome, shoal__welcome__init);
        out->welcome->worker = in->welcome.worker;
        out->welcome->protocol_major = in->welcome.protocol_major;
        out->welcome->protocol_minor = in->welcome.protocol_minor;
        out->welcome->heartbeat_ns = in->welcome.heartbeat_ns;
        break;
    case MESSAGE_HEARTBEAT:
        out->heartbeat = arena_new(arena, Shoal__Heartbeat);
        codec_heartbeat_encode(&in->heartbeat, arena, out->heartbeat);
        break;
    case MESSAGE_DRAIN:
        BODY(drain, Shoal__Drain, shoal__drain__init);
        break;
    case MESSAGE_LINK_LOST:
        out->link_lost = arena_new(arena, Shoal__LinkLost);
        codec_link_lost_encode(&in->link_lost, out->link_lost);
        break;
    case MESSAGE_ATTEMPT:
        out->attempt = arena_new(arena, Shoal__Attempt);
        codec_attempt_encode(&in->attempt, out->attempt);
        break;
    default:
        ASSERT(in->kind == MESSAGE_ERROR);
        out->failure = arena_new(arena, Shoal__Failure);
        codec_failure_encode(&in->error, out->failure);
        break;
    }
}

static void epoch_encode(const struct message *in, struct arena *arena, Shoal__Message *out)
{
    switch (in->kind) {
    case MESSAGE_ASSIGN:
        out->assign = arena_new(arena, Shoal__Assign);
        codec_assign_encode(&in->assign, arena, out->assign);
        break;
    case MESSAGE_PROGRESS:
        BODY(progress, Shoal__Progress, shoal__progress__init);
        out->progress->epoch = in->progress.epoch;
        out->progress->done_bytes = in->progress.done_bytes;
        out->progress->total_bytes = in->progress.total_bytes;
        break;
    case MESSAGE_LOADED:
        out->loaded = arena_new(arena, Shoal__Loaded);
        codec_loaded_encode(&in->loaded, arena, out->loaded);
        break;
    case MESSAGE_CONNECT:
        BODY(connect, Shoal__Connect, shoal__connect__init);
        out->connect->epoch = in->connect_epoch;
        break;
    case MESSAGE_READY:
        out->ready = arena_new(arena, Shoal__Ready);
        codec_ready_encode(&in->ready, arena, out->ready);
        break;
    case MESSAGE_START:
        BODY(start, Shoal__Start, shoal__start__init);
        out->start->epoch = in->start_epoch;
        break;
    case MESSAGE_STEP:
        out->step = arena_new(arena, Shoal__Step);
        codec_step_encode(&in->step, arena, out->step);
        break;
    case MESSAGE_STEP_RESULT:
        out->result = arena_new(arena, Shoal__StepResult);
        codec_result_encode(&in->result, arena, out->result);
        break;
    default:
        member_encode(in, arena, out);
        break;
    }
}

/* The oneof has the numbers of enum message_kind. */
_Static_assert((int)SHOAL__MESSAGE__KIND_REGISTRATION == (int)MESSAGE_REGISTER &&
                   (int)SHOAL__MESSAGE__KIND_STEP == (int)MESSAGE_STEP &&
                   (int)SHOAL__MESSAGE__KIND_FAILURE == (int)MESSAGE_ERROR &&
                   (int)SHOAL__MESSAGE__KIND_ATTEMPT == (int)MESSAGE_ATTEMPT,
               "proto/shoal.proto and message.h number the kinds alike");

bool message_encode(const struct message *message, struct buffer *out)
{
    Shoal__Message packed = SHOAL__MESSAGE__INIT;
    struct arena arena;
    size_t bytes;

    arena_init(&arena, ENCODE_CHUNK_SIZE);
    packed.kind_case = (Shoal__Message__KindCase)message->kind;
    epoch_encode(message, &arena, &packed);
    bytes = shoal__message__get_packed_size(&packed);
    if (bytes <= CODEC_BYTES_MAX) {
        buffer_reserve(out, bytes);
        shoal__message__pack(&packed, (uint8_t *)out->data + out->length);
        out->length += bytes;
        out->data[out->length] = '\0';
    }
    arena_deinit(&arena);
    return bytes <= CODEC_BYTES_MAX;
}

/* --- decode --- */

struct budget {
    struct arena *arena;
    size_t bytes_left;
};

static void *budget_alloc(void *context, size_t bytes)
{
    struct budget *budget = context;
    size_t rounded = (bytes + 63) / 64 * 64; /* as the arena does */

    if (bytes > UNPACK_BYTES_MAX || rounded > budget->bytes_left) {
        return NULL;
    }
    budget->bytes_left -= rounded;
    return arena_alloc(budget->arena, bytes);
}

static void budget_free(void *context, void *pointer)
{
    (void)context;
    (void)pointer; /* dies with the arena */
}

static struct budget budget_for(struct arena *arena, size_t length)
{
    size_t bytes = length * UNPACK_FACTOR + UNPACK_BYTES_MIN; /* length ≤ CODEC_BYTES_MAX */

    return (struct budget){.arena = arena,
                           .bytes_left = bytes < UNPACK_BYTES_MAX ? bytes : UNPACK_BYTES_MAX};
}

/* True when the bytes are a registration of another major; its versions are then in out. */
static bool foreign_register_decode(const uint8_t *bytes, size_t length, struct arena *arena,
                                    struct message *out)
{
    struct budget budget = budget_for(arena, length);
    ProtobufCAllocator allocator = {budget_alloc, budget_free, &budget};
    const uint8_t registration_tag = SHOAL__MESSAGE__KIND_REGISTRATION << 3 | 2;
    Shoal__Preamble *preamble;

    if (length == 0 || bytes[0] != registration_tag) {
        return false;
    }
    preamble = shoal__preamble__unpack(&allocator, length, bytes);
    if (preamble == NULL || preamble->registration == NULL ||
        preamble->registration->protocol_major == PROTOCOL_MAJOR) {
        return false;
    }
    memset(out, 0, sizeof(*out));
    out->kind = MESSAGE_REGISTER;
    out->reg = (struct register_message){
        .protocol_major = preamble->registration->protocol_major,
        .protocol_minor = preamble->registration->protocol_minor,
        .build = "",
        .host = "",
        .cpu_level = "",
        .cpu_features = "",
        .cpu_name = "",
        .data_endpoint = "",
        .launch_token = "",
        .fast_numerics = "",
    };
    return true;
}

static bool member_decode(const Shoal__Message *in, struct arena *arena, struct message *out,
                          struct error *err)
{
    switch (in->kind_case) {
    case SHOAL__MESSAGE__KIND_REGISTRATION:
        return codec_register_decode(in->registration, &out->reg, err) ||
               error_wrap(err, "register");
    case SHOAL__MESSAGE__KIND_WELCOME:
        out->welcome = (struct welcome_message){.worker = in->welcome->worker,
                                                .protocol_major = in->welcome->protocol_major,
                                                .protocol_minor = in->welcome->protocol_minor,
                                                .heartbeat_ns = in->welcome->heartbeat_ns};
        return codec_check_amount("welcome: heartbeat_ns", (double)in->welcome->heartbeat_ns, err);
    case SHOAL__MESSAGE__KIND_HEARTBEAT:
        return codec_heartbeat_decode(in->heartbeat, arena, &out->heartbeat, err) ||
               error_wrap(err, "heartbeat");
    case SHOAL__MESSAGE__KIND_DRAIN:
        return true;
    case SHOAL__MESSAGE__KIND_FAILURE:
        return codec_failure_decode(in->failure, &out->error, err) || error_wrap(err, "error");
    case SHOAL__MESSAGE__KIND_LINK_LOST:
        return codec_link_lost_decode(in->link_lost, &out->link_lost, err) ||
               error_wrap(err, "link lost");
    case SHOAL__MESSAGE__KIND_ATTEMPT:
        return codec_attempt_decode(in->attempt, &out->attempt, err) || error_wrap(err, "attempt");
    default:
        return error_set(err, ERROR_INPUT, "kind: missing or unknown");
    }
}

static bool kind_decode(const Shoal__Message *in, struct arena *arena, struct message *out,
                        struct error *err)
{
    switch (in->kind_case) {
    case SHOAL__MESSAGE__KIND_ASSIGN:
        return codec_assign_decode(in->assign, arena, &out->assign, err) ||
               error_wrap(err, "assign");
    case SHOAL__MESSAGE__KIND_PROGRESS:
        out->progress = (struct progress_message){.epoch = in->progress->epoch,
                                                  .done_bytes = in->progress->done_bytes,
                                                  .total_bytes = in->progress->total_bytes};
        return true;
    case SHOAL__MESSAGE__KIND_LOADED:
        return codec_loaded_decode(in->loaded, arena, &out->loaded, err) ||
               error_wrap(err, "loaded");
    case SHOAL__MESSAGE__KIND_CONNECT:
        out->connect_epoch = in->connect->epoch;
        return true;
    case SHOAL__MESSAGE__KIND_READY:
        return codec_ready_decode(in->ready, arena, &out->ready, err) || error_wrap(err, "ready");
    case SHOAL__MESSAGE__KIND_START:
        out->start_epoch = in->start->epoch;
        return true;
    case SHOAL__MESSAGE__KIND_STEP:
        return codec_step_decode(in->step, arena, &out->step, err) || error_wrap(err, "step");
    case SHOAL__MESSAGE__KIND_RESULT:
        return codec_result_decode(in->result, arena, &out->result, err) ||
               error_wrap(err, "step result");
    default:
        return member_decode(in, arena, out, err);
    }
}

bool message_decode(const uint8_t *bytes, size_t length, struct arena *arena, struct message *out,
                    struct error *err)
{
    struct message decoded;
    struct budget budget;
    ProtobufCAllocator allocator = {budget_alloc, budget_free, &budget};
    Shoal__Message *packed;

    if (!codec_check_count("message: length", length, CODEC_BYTES_MAX, err)) {
        return false;
    }
    if (foreign_register_decode(bytes, length, arena, out)) {
        return true;
    }
    budget = budget_for(arena, length);
    packed = shoal__message__unpack(&allocator, length, bytes);
    if (packed == NULL) {
        return error_set(err, ERROR_INPUT, "message of %zu bytes: malformed protobuf", length);
    }
    memset(&decoded, 0, sizeof(decoded));
    decoded.kind = (enum message_kind)packed->kind_case;
    if (!kind_decode(packed, arena, &decoded, err)) {
        return error_wrap(err, "message");
    }
    *out = decoded;
    return true;
}
