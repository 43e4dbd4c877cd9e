/* main.c - `shoal`: picks the subcommand. */
#include "coordinator/cli/cli.h"

#include <stdio.h>
#include <string.h>

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
};

static const struct command commands[] = {
    {"serve", command_serve, "serve a model over an OpenAI-compatible HTTP API"},
    {"chat", command_chat, "talk to a running server"},
    {"top", command_top, "watch a running server: what runs where"},
    {"run", command_run, "answer one prompt with a cluster made for it"},
    {"bench", command_bench, "measure prompt and generation speed, and idle stages"},
    {"inspect", command_inspect, "describe a model: architecture, parameters, bytes"},
    {"plan", command_plan, "plan a model for a cluster that need not be there"},
    {"profile", command_profile, "show where the time of a cluster's steps went"},
    {"keygen", command_keygen, "make the key that lets machines join a cluster"},
    {"logits", command_logits, "write the logits of every prompt position to a file"},
    {"routing", command_routing, "write the routed experts of every prompt position to a file"},
    {"template", command_template, "render conversations with a chat template"},
    {"tokenize", command_tokenize, "turn text into token ids, or back"},
};

static void help_print(FILE *out)
{
    (void)fputs("usage: shoal COMMAND [OPTION...]\n"
                "\n"
                "One large language model over many machines: the layers and experts are split\n"
                "across workers, which together serve what fits none of them.\n"
                "\n",
                out);
    for (size_t i = 0; i < ARRAY_LENGTH(commands); i++) {
        (void)fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
    }
    (void)fputs("\n"
                "To begin with, on this machine alone:\n"
                "  shoal run --model DIR --chat \"What is 17 + 25?\"\n"
                "  shoal serve --model DIR --layout 3x1\n"
                "\n"
                "With workers on other machines (shoal-worker --help):\n"
                "  shoal keygen cluster.key\n"
                "  shoal serve --model DIR --workers 3 --control tcp://0.0.0.0:5555 \\\n"
                "    --key cluster.key\n"
                "\n"
                "`shoal COMMAND --help' lists a command's options. Each --some-option can also be\n"
                "set as SHOAL_SOME_OPTION in the environment; SHOAL_LOG=debug shows more.\n"
                "Exit codes: 0 done, 1 failed, 2 wrong usage.\n",
                out);
}

static const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LENGTH(commands); i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Insertions, deletions and replacements that turn one word into the other (Levenshtein). */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[32];
    size_t length_b = strlen(b);

    if (length_b >= ARRAY_LENGTH(row) || strlen(a) >= ARRAY_LENGTH(row)) {
        return ARRAY_LENGTH(row);
    }
    for (size_t j = 0; j <= length_b; j++) {
        row[j] = j;
    }
    for (size_t i = 0; a[i] != '\0'; i++) {
        size_t diagonal = row[0];

        row[0] = i + 1;
        for (size_t j = 0; j < length_b; j++) {
            size_t above = row[j + 1];

            row[j + 1] = least(least(above, row[j]) + 1, diagonal + (a[i] != b[j]));
            diagonal = above;
        }
    }
    return row[length_b];
}

static int unknown_command(const char *name)
{
    const struct command *nearest = NULL;
    size_t nearest_distance = 3; /* further than that is another word */

    for (size_t i = 0; i < ARRAY_LENGTH(commands); i++) {
        size_t distance = edit_distance(name, commands[i].name);

        if (distance < nearest_distance) {
            nearest = &commands[i];
            nearest_distance = distance;
        }
    }
    (void)fprintf(stderr, "shoal: there is no command \"%s\"", name);
    if (nearest != NULL) {
        (void)fprintf(stderr, "; did you mean \"%s\"?", nearest->name);
    }
    (void)fputs("\n`shoal --help' lists the commands.\n", stderr);
    return CLI_USAGE;
}

static int command_run_named(const char *name, int argc, char **argv)
{
    const struct command *command = command_find(name);
    char title[64];

    if (command == NULL) {
        return unknown_command(name);
    }
    (void)snprintf(title, sizeof(title), "shoal %s", command->name);
    argv[0] = title;
    return command->run(argc, argv);
}

int main(int argc, char **argv)
{
    static char help_flag[] = "--help";
    const char *first = argc > 1 ? argv[1] : NULL;

    argp_program_version = "shoal " SHOAL_VERSION;
    argp_err_exit_status = CLI_USAGE;
    if (first == NULL) {
        help_print(stderr);
        return CLI_USAGE;
    }
    if (strcmp(first, "--version") == 0 || strcmp(first, "-V") == 0) {
        (void)puts(argp_program_version);
        return CLI_OK;
    }
    if (strcmp(first, "help") == 0 && argc == 3 && argv[2][0] != '-') {
        char *arguments[] = {argv[0], help_flag, NULL};

        return command_run_named(argv[2], 2, arguments);
    }
    if (strcmp(first, "--help") == 0 || strcmp(first, "-?") == 0 || strcmp(first, "-h") == 0 ||
        strcmp(first, "help") == 0) {
        help_print(stdout);
        return CLI_OK;
    }
    return command_run_named(first, argc - 1, argv + 1);
}
