/* operation.c - the names of what a step is made of. */
#include "common/base/operation.h"

#include "common/base/check.h"

#include <string.h>

static const char *const names[OPERATION_COUNT] = {
    [OPERATION_EMBED] = "embed",
    [OPERATION_ATTENTION_NORM] = "attention_norm",
    [OPERATION_ATTENTION_PROJECT] = "attention_project",
    [OPERATION_ATTENTION_STORE] = "attention_store",
    [OPERATION_ATTENTION_ABSORB] = "attention_absorb",
    [OPERATION_ATTENTION] = "attention",
    [OPERATION_ATTENTION_EXPANDED] = "attention_expanded",
    [OPERATION_ATTENTION_VALUES] = "attention_values",
    [OPERATION_ATTENTION_OUTPUT] = "attention_output",
    [OPERATION_MLP_NORM] = "mlp_norm",
    [OPERATION_MLP_GATE_UP] = "mlp_gate_up",
    [OPERATION_MLP_DOWN] = "mlp_down",
    [OPERATION_ROUTER] = "router",
    [OPERATION_SHARED_GATE_UP] = "shared_gate_up",
    [OPERATION_SHARED_DOWN] = "shared_down",
    [OPERATION_EXPERT_GATE_UP] = "expert_gate_up",
    [OPERATION_EXPERT_DOWN] = "expert_down",
    [OPERATION_EXPERT_DISPATCH] = "expert_dispatch",
    [OPERATION_EXPERT_WAIT] = "expert_wait",
    [OPERATION_COMBINE] = "combine",
    [OPERATION_FINAL_NORM] = "final_norm",
    [OPERATION_LOGITS] = "logits",
    [OPERATION_SAMPLING] = "sampling",
    [OPERATION_DRAFT_INPUT] = "draft_input",
    [OPERATION_RECEIVE] = "receive",
    [OPERATION_SEND] = "send",
    [OPERATION_OTHER] = "other",
    [OPERATION_IDLE] = "idle",
};

static const char *const phase_names[OPERATION_PHASE_COUNT] = {
    [OPERATION_DECODE] = "decode",
    [OPERATION_PROMPT] = "prompt",
};

const char *operation_name(enum operation operation)
{
    ASSERT(operation < OPERATION_COUNT);
    return names[operation];
}

bool operation_find(const char *name, enum operation *out)
{
    for (int i = 0; i < OPERATION_COUNT; i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (enum operation)i;
            return true;
        }
    }
    return false;
}

bool operation_is_work(enum operation operation)
{
    return operation != OPERATION_IDLE && operation != OPERATION_RECEIVE &&
           operation != OPERATION_EXPERT_WAIT;
}

const char *operation_phase_name(enum operation_phase phase)
{
    ASSERT(phase < OPERATION_PHASE_COUNT);
    return phase_names[phase];
}

bool operation_phase_find(const char *name, enum operation_phase *out)
{
    for (int i = 0; i < OPERATION_PHASE_COUNT; i++) {
        if (strcmp(name, phase_names[i]) == 0) {
            *out = (enum operation_phase)i;
            return true;
        }
    }
    return false;
}

uint32_t operation_class_rows(uint32_t row_class)
{
    ASSERT(row_class < OPERATION_CLASS_COUNT);
    return 1u << (2 * row_class);
}

uint32_t operation_class_of(uint32_t row_count)
{
    uint32_t row_class = 0;

    while (row_class + 1 < OPERATION_CLASS_COUNT && row_count > operation_class_rows(row_class)) {
        row_class++;
    }
    return row_class;
}
