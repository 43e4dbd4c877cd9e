/* Dispatches of a peer: 4 bytes of row count, then the payload. */
#include "worker/stage/dispatch.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static _Alignas(64) uint8_t payload[4096];
    const struct dispatch_limits limits = {.hidden = 4, .rows_max = 64, .chosen_count = 4};
    struct frame frame = {.payload = payload, .capacity = sizeof(payload)};
    struct dispatch out;
    struct error err;
    volatile float sum = 0;

    if (size < 4 || size - 4 > sizeof(payload)) {
        return 0;
    }
    memcpy(&frame.header.rows, data, 4);
    memcpy(payload, data + 4, size - 4);
    frame.header.columns = limits.hidden;
    frame.header.payload_bytes = (uint32_t)(size - 4);
    if (dispatch_read(&frame, &limits, &out, &err)) {
        for (uint32_t i = 0; i < out.part_count; i++) {
            sum = sum + out.parts[i].weight;
        }
        for (uint32_t i = 0; i < out.row_count * limits.hidden; i++) {
            sum = sum + out.values[i];
        }
    }
    return 0;
}
