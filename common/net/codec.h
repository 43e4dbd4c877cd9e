#ifndef SHOAL_NET_CODEC_H
#define SHOAL_NET_CODEC_H

/* Inside of the codec: between the generated protobuf types and our structs.
 *
 * encode: builds generated structs in the arena, which point into the message (borrowed until the
 * bytes are packed). decode: checks every count, enum and number, and points into what protobuf-c
 * unpacked into the same arena. Errors name the field. Only codec*.c include this.
 */
#include "common/net/message.h"
#include "proto/shoal.pb-c.h"

#define CODEC_BYTES_MAX      ((size_t)64 << 20) /* of the protobuf part */
#define CODEC_TEXT_BYTES_MAX ((size_t)8192)
#define CODEC_LAYERS_MAX     4096u
#define CODEC_EXPERTS_MAX    65536u
#define CODEC_OWNERS_MAX     ((size_t)1 << 22) /* layers × experts × replicas */
#define CODEC_WORKERS_MAX    65536u
#define CODEC_LANES_MAX      65536u
#define CODEC_ENTRIES_MAX    65536u
#define CODEC_ROWS_MAX       ((size_t)1 << 20) /* tokens of a step, blocks of an entry */

/* --- codec.c: checks --- */
bool codec_check_count(const char *field, uint64_t count, uint64_t count_max, struct error *err);
bool codec_check_text(const char *field, const char *text, struct error *err);
bool codec_check_amount(const char *field, double value, struct error *err); /* finite, ≥ 0 */
/* protobuf-c wants char *; it only reads. NULL becomes "". */
char *codec_text(const char *text);
/* Likewise, arrays that packing only reads. */
uint32_t *codec_array(const uint32_t *values);
float *codec_floats(const float *values);

/* --- codec_member.c: what workers and coordinator say about themselves --- */
void codec_register_encode(const struct register_message *in, Shoal__Registration *out);
bool codec_register_decode(const Shoal__Registration *in, struct register_message *out,
                           struct error *err) MUST_CHECK;
void codec_loaded_encode(const struct loaded_message *in, struct arena *arena, Shoal__Loaded *out);
bool codec_loaded_decode(const Shoal__Loaded *in, struct arena *arena, struct loaded_message *out,
                         struct error *err) MUST_CHECK;
void codec_ready_encode(const struct ready_message *in, struct arena *arena, Shoal__Ready *out);
bool codec_ready_decode(const Shoal__Ready *in, struct arena *arena, struct ready_message *out,
                        struct error *err) MUST_CHECK;
void codec_heartbeat_encode(const struct heartbeat_message *in, struct arena *arena,
                            Shoal__Heartbeat *out);
bool codec_heartbeat_decode(const Shoal__Heartbeat *in, struct arena *arena,
                            struct heartbeat_message *out, struct error *err) MUST_CHECK;
void codec_failure_encode(const struct error_message *in, Shoal__Failure *out);
bool codec_failure_decode(const Shoal__Failure *in, struct error_message *out,
                          struct error *err) MUST_CHECK;

void codec_link_lost_encode(const struct link_lost_message *in, Shoal__LinkLost *out);
bool codec_link_lost_decode(const Shoal__LinkLost *in, struct link_lost_message *out,
                            struct error *err) MUST_CHECK;
void codec_attempt_encode(const struct attempt_message *in, Shoal__Attempt *out);
bool codec_attempt_decode(const Shoal__Attempt *in, struct attempt_message *out,
                          struct error *err) MUST_CHECK;

/* --- codec_placement.c --- */
void codec_assign_encode(const struct assign_message *in, struct arena *arena, Shoal__Assign *out);
bool codec_assign_decode(const Shoal__Assign *in, struct arena *arena, struct assign_message *out,
                         struct error *err) MUST_CHECK;

/* --- codec_step.c --- */
void codec_step_encode(const struct step *in, struct arena *arena, Shoal__Step *out);
bool codec_step_decode(const Shoal__Step *in, struct arena *arena, struct step *out,
                       struct error *err) MUST_CHECK;

/* --- codec_result.c --- */
void codec_result_encode(const struct step_result *in, struct arena *arena, Shoal__StepResult *out);
bool codec_result_decode(const Shoal__StepResult *in, struct arena *arena, struct step_result *out,
                         struct error *err) MUST_CHECK;

/* protobuf-c wants a list as pointers to its items: lays both out in the arena, items zeroed. */
void **codec_list(struct arena *arena, size_t count, size_t item_bytes);

#endif
