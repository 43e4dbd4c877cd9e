/* options_sampling.c - how tokens are chosen, from the command line. */
#include "coordinator/cli/options_sampling.h"

#include "coordinator/api/generation.h"
#include "coordinator/api/sampling_defaults.h"
#include "coordinator/cli/options.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_TEMPERATURE = 0x1a00,
    KEY_TOP_P,
    KEY_TOP_K,
    KEY_MIN_P,
    KEY_REPETITION,
    KEY_PRESENCE,
    KEY_FREQUENCY,
    KEY_BIAS,
    KEY_SEED,
    KEY_STOP,
};

static const struct argp_option options[] = {
    {NULL, 0, NULL, 0,
     "Sampling (defaults: the model's generation_config.json, else 1 for temperature and all else "
     "off):",
     3},
    {"temperature", KEY_TEMPERATURE, "T", 0, "0: always the likeliest token", 3},
    {"top-p", KEY_TOP_P, "P", 0, "Only the likeliest tokens that make up probability P", 3},
    {"top-k", KEY_TOP_K, "K", 0, "Only the K likeliest tokens; 0: off", 3},
    {"min-p", KEY_MIN_P, "P", 0, "Only tokens at least P times as likely as the likeliest", 3},
    {"repetition-penalty", KEY_REPETITION, "R", 0,
     "Make tokens that have occurred, in the prompt too, less likely by this factor; 1: off", 3},
    {"presence-penalty", KEY_PRESENCE, "X", 0,
     "Taken off the logit of tokens that were generated (-2 to 2)", 3},
    {"frequency-penalty", KEY_FREQUENCY, "X", 0,
     "Taken off a token's logit for each time that it was generated (-2 to 2)", 3},
    {"logit-bias", KEY_BIAS, "ID:VALUE", 0,
     "Added to this token's logit (-100 to 100); may be repeated", 3},
    {"seed", KEY_SEED, "S", 0, "The same seed, the same answer (a random one)", 3},
    {"stop", KEY_STOP, "TEXT", 0, "End before this text; may be repeated", 3},
    {0},
};

static void bias_add(struct sampling_options *own, struct token_bias bias, struct argp_state *state)
{
    uint32_t at = own->bias_count;

    if (own->bias_count == SAMPLING_OPTIONS_BIASES_MAX) {
        argp_error(state, "--logit-bias: at most %d tokens", SAMPLING_OPTIONS_BIASES_MAX);
        return;
    }
    while (at > 0 && own->biases[at - 1].token > bias.token) {
        at--;
    }
    if (at > 0 && own->biases[at - 1].token == bias.token) {
        own->biases[at - 1] = bias; /* the last word counts, as with other options */
        return;
    }
    memmove(&own->biases[at + 1], &own->biases[at], (own->bias_count - at) * sizeof(bias));
    own->biases[at] = bias;
    own->bias_count++;
}

static void bias_parse(struct sampling_options *own, const char *text, struct argp_state *state)
{
    char *colon;
    unsigned long long token = strtoull(text, &colon, 10);

    if (!isdigit((unsigned char)text[0]) || *colon != ':' || token >= UINT32_MAX) {
        argp_error(state, "--logit-bias must be ID:VALUE, like 42:-100, not \"%s\"", text);
        return;
    }
    bias_add(own,
             (struct token_bias){
                 .token = (uint32_t)token,
                 .bias = (float)option_number(colon + 1, "--logit-bias", -100, 100, state)},
             state);
}

static void stop_add(struct sampling_options *own, const char *text, struct argp_state *state)
{
    if (text[0] == '\0' || own->stop_count == SAMPLING_OPTIONS_STOP_MAX) {
        argp_error(state, "--stop: %s",
                   text[0] == '\0' ? "an empty text would end every answer" : "at most 16 texts");
        return;
    }
    own->stop[own->stop_count++] = text;
}

static error_t parse_penalty(int key, const char *arg, struct argp_state *state)
{
    struct sampling_options *own = state->input;

    switch (key) {
    case KEY_REPETITION:
        own->repetition_penalty = option_number(arg, "--repetition-penalty", 1e-6, 10, state);
        return 0;
    case KEY_PRESENCE:
        own->presence_penalty = option_number(arg, "--presence-penalty", -2, 2, state);
        return 0;
    case KEY_FREQUENCY:
        own->frequency_penalty = option_number(arg, "--frequency-penalty", -2, 2, state);
        return 0;
    case KEY_BIAS:
        bias_parse(own, arg, state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct sampling_options *own = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        options_from_environment(options, parse_option, state);
        return 0;
    case KEY_TEMPERATURE:
        own->temperature = option_number(arg, "--temperature", 0, 100, state);
        return 0;
    case KEY_TOP_P:
        own->top_p = option_number(arg, "--top-p", 1e-6, 1, state);
        return 0;
    case KEY_TOP_K:
        own->top_k = option_u32(arg, "--top-k", 0, UINT32_MAX, state);
        return 0;
    case KEY_MIN_P:
        own->min_p = option_number(arg, "--min-p", 0, 1, state);
        return 0;
    case KEY_SEED:
        own->seed = option_u64(arg, "--seed", state);
        own->seed_given = true;
        return 0;
    case KEY_STOP:
        stop_add(own, arg, state);
        return 0;
    default:
        return parse_penalty(key, arg, state);
    }
}

const struct argp sampling_options_argp = {.options = options, .parser = parse_option};

void sampling_options_init(struct sampling_options *own)
{
    *own = (struct sampling_options){.temperature = NAN,
                                     .top_p = NAN,
                                     .min_p = NAN,
                                     .repetition_penalty = NAN,
                                     .presence_penalty = NAN,
                                     .frequency_penalty = NAN,
                                     .top_k = -1};
}

static void number_apply(double given, float *out)
{
    *out = isnan(given) ? *out : (float)given;
}

bool sampling_options_apply(const struct sampling_options *own, const char *model,
                            struct sampling_params *out, struct error *err)
{
    if (!sampling_defaults_read(model, out, err)) {
        return false;
    }
    number_apply(own->temperature, &out->temperature);
    number_apply(own->top_p, &out->top_p);
    number_apply(own->min_p, &out->min_p);
    number_apply(own->repetition_penalty, &out->repetition_penalty);
    number_apply(own->presence_penalty, &out->presence_penalty);
    number_apply(own->frequency_penalty, &out->frequency_penalty);
    if (own->top_k >= 0) {
        out->top_k = (uint32_t)own->top_k;
    }
    out->biases = own->biases;
    out->bias_count = own->bias_count;
    out->seed = own->seed_given ? own->seed : generation_random_seed();
    return true;
}

static void number_request(json_t *body, const char *field, double given)
{
    if (!isnan(given)) {
        json_object_set_new(body, field, json_real(given));
    }
}

static json_t *biases_json(const struct sampling_options *own)
{
    json_t *biases = json_object();
    char key[16];

    for (uint32_t i = 0; i < own->bias_count; i++) {
        (void)snprintf(key, sizeof(key), "%u", own->biases[i].token);
        json_object_set_new(biases, key, json_real((double)own->biases[i].bias));
    }
    return biases;
}

static json_t *stop_json(const struct sampling_options *own)
{
    json_t *stop = json_array();

    for (size_t i = 0; i < own->stop_count; i++) {
        json_array_append_new(stop, json_string(own->stop[i]));
    }
    return stop;
}

void sampling_options_request(const struct sampling_options *own, json_t *body)
{
    number_request(body, "temperature", own->temperature);
    number_request(body, "top_p", own->top_p);
    number_request(body, "min_p", own->min_p);
    number_request(body, "repetition_penalty", own->repetition_penalty);
    number_request(body, "presence_penalty", own->presence_penalty);
    number_request(body, "frequency_penalty", own->frequency_penalty);
    if (own->top_k >= 0) {
        json_object_set_new(body, "top_k", json_integer(own->top_k));
    }
    if (own->seed_given) {
        json_object_set_new(body, "seed", json_integer((json_int_t)own->seed));
    }
    if (own->bias_count > 0) {
        json_object_set_new(body, "logit_bias", biases_json(own));
    }
    if (own->stop_count > 0) {
        json_object_set_new(body, "stop", stop_json(own));
    }
}
