/* fuzz_profile.c - any bytes as the file of --profile: what is taken is within its bounds, and
 * comes back from its own JSON. */
#include "common/plan/profile.h"

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void bounds_check(const struct profile *profile)
{
    for (uint32_t w = 0; w < profile->worker_count; w++) {
        for (uint32_t i = 0; i < profile->workers[w].record_count; i++) {
            const struct operation_record *record = &profile->workers[w].records[i];

            ASSERT(record->operation < OPERATION_COUNT && record->phase < OPERATION_PHASE_COUNT &&
                   record->row_class < OPERATION_CLASS_COUNT);
            ASSERT(record->layer == OPERATION_NO_LAYER || record->layer <= profile->layer_count);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct profile_sum sums[PROFILE_SUMS_MAX];
    struct arena arena;
    struct error err = {0};
    struct profile *profile;

    arena_init(&arena, 4096);
    profile = profile_parse((const char *)data, size, "fuzz", &arena, &err);
    ASSERT(profile != NULL || err.message[0] != '\0');
    if (profile != NULL) {
        bounds_check(profile);
        profile_sums(profile, sums);
        json_decref(profile_json(profile));
    }
    arena_deinit(&arena);
    return 0;
}
