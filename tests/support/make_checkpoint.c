/* make_checkpoint.c - the command line of checkpoint_write.
 *
 * The result is opened as a catalog before the program says that it is done.
 */
#include "common/base/units.h"
#include "common/model/catalog.h"
#include "common/model/summary.h"
#include "tests/support/checkpoint_write.h"

#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const struct {
    const char *flag;
    uint32_t preset;
} numbers[NUMBER_COUNT] = {
    [NUMBER_LAYERS] = {"layers", 4},
    [NUMBER_DENSE] = {"dense", 1},
    [NUMBER_DRAFT] = {"draft", 0},
    [NUMBER_HIDDEN] = {"hidden", 1024},
    [NUMBER_HEADS] = {"heads", 16},
    [NUMBER_Q_LORA] = {"q-lora", 384},
    [NUMBER_KV_LORA] = {"kv-lora", 128},
    [NUMBER_NOPE] = {"nope", 64},
    [NUMBER_ROPE] = {"rope", 32},
    [NUMBER_V] = {"v", 64},
    [NUMBER_WIDTH] = {"width", 2048},
    [NUMBER_EXPERT_WIDTH] = {"expert-width", 512},
    [NUMBER_EXPERTS] = {"experts", 32},
    [NUMBER_CHOSEN] = {"chosen", 4},
    [NUMBER_SHARED] = {"shared", 1},
    [NUMBER_GROUPS] = {"groups", 4},
    [NUMBER_GROUPS_CHOSEN] = {"groups-chosen", 2},
    [NUMBER_VOCAB] = {"vocab", 4096},
    [NUMBER_CONTEXT] = {"context", 8192},
};

enum option_key {
    OPTION_SEED = 1000,
    OPTION_SHARD_BYTES,
    OPTION_SHARDS,
    OPTION_TOKENIZER,
    OPTION_CONFIG,
    OPTION_SPARSE,
    OPTION_NUMBERS
};
#define OPTIONS_BEFORE_NUMBERS 6

static bool report(const char *directory, struct error *err)
{
    struct catalog *catalog = catalog_open(directory, err);
    struct summary *summary;
    struct units_text text;

    if (catalog == NULL) {
        return false;
    }
    summary = summary_create(catalog);
    printf("%s: %s in %u files, %u tensors, %.3f G parameters, %.3f G active, experts %s each\n",
           directory, units_bytes(&text, summary->total_bytes), catalog->file_count,
           catalog->tensor_count, (double)summary->parameters.total * 1e-9,
           (double)summary->parameters.active * 1e-9,
           units_bytes(&(struct units_text){{0}}, summary->expert_bytes_max));
    summary_destroy(summary);
    catalog_close(catalog);
    return true;
}

static uint64_t parse_number(struct argp_state *state, const char *arg, uint64_t max)
{
    char *end;
    unsigned long long value;

    errno = 0;
    value = strtoull(arg, &end, 10);
    if (errno != 0 || end == arg || *end != '\0' || arg[0] == '-' || value > max) {
        argp_error(state, "\"%s\" is not a number up to %" PRIu64, arg, max);
    }
    return value;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct checkpoint_settings *settings = state->input;
    struct error err = {0};

    if (key >= OPTION_NUMBERS && key < OPTION_NUMBERS + NUMBER_COUNT) {
        settings->numbers[key - OPTION_NUMBERS] = (uint32_t)parse_number(state, arg, UINT32_MAX);
        return 0;
    }
    switch (key) {
    case OPTION_SEED:
        settings->seed = parse_number(state, arg, UINT64_MAX);
        return 0;
    case OPTION_SHARD_BYTES:
        if (!units_parse_bytes(arg, "--shard-bytes", &settings->shard_bytes, &err)) {
            argp_error(state, "%s", err.message);
        }
        return 0;
    case OPTION_SHARDS:
        settings->shard_count = (uint32_t)parse_number(state, arg, 99999);
        return 0;
    case OPTION_CONFIG:
        settings->config = arg;
        return 0;
    case OPTION_SPARSE:
        settings->data = CHECKPOINT_HOLES;
        return 0;
    case OPTION_TOKENIZER:
        settings->tokenizer = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (settings->directory != NULL) {
            argp_error(state, "one directory, please");
        }
        settings->directory = arg;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "where to?");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    struct argp_option options[NUMBER_COUNT + OPTIONS_BEFORE_NUMBERS + 1] = {
        {"seed", OPTION_SEED, "N", 0, "another seed, other weights (1)", 0},
        {"shard-bytes", OPTION_SHARD_BYTES, "BYTES", 0, "largest file (2G)", 0},
        {"shards", OPTION_SHARDS, "N", 0, "so many files instead, about equally large", 0},
        {"tokenizer", OPTION_TOKENIZER, "DIR", 0, "copy the tokenizer of this model", 0},
        {"config", OPTION_CONFIG, "FILE", 0, "the model of this config.json", 0},
        {"sparse", OPTION_SPARSE, NULL, 0, "headers only: all values are zeros in holes", 0},
    };
    struct argp argp = {
        options,
        parse_option,
        "DIRECTORY",
        "Writes a checkpoint into DIRECTORY: random BF16 weights of the DeepSeek-V3 "
        "architecture, or any --config as sparse files.",
        NULL,
        NULL,
        NULL};
    struct checkpoint_settings settings = {.seed = 1, .shard_bytes = UINT64_C(2000000000)};
    struct error err = {0};

    for (int i = 0; i < NUMBER_COUNT; i++) {
        settings.numbers[i] = numbers[i].preset;
        options[OPTIONS_BEFORE_NUMBERS + i] = (struct argp_option){
            numbers[i].flag, OPTION_NUMBERS + i, "N", 0, checkpoint_fields[i], 1};
    }
    argp_parse(&argp, argc, argv, 0, NULL, &settings);
    if (!checkpoint_write(&settings, &err) || !report(settings.directory, &err)) {
        fprintf(stderr, "make-checkpoint: %s\n", err.message);
        return err.code == ERROR_USAGE ? 2 : 1;
    }
    return 0;
}
