/* keygen.c - `shoal keygen`: the key that lets machines join a cluster. */
#include "common/net/keys.h"
#include "coordinator/cli/cli.h"

#include <stdio.h>

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    const char **path = state->input;

    switch (key) {
    case ARGP_KEY_ARG:
        if (*path != NULL) {
            argp_error(state, "one file, not two: \"%s\"", arg);
        }
        *path = arg;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "a FILE for the key is needed");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int command_keygen(int argc, char **argv)
{
    static const struct argp argp = {
        NULL,
        parse_option,
        "FILE",
        "Makes a cluster key: whoever holds the file may join the cluster.\v"
        "Copy it to every machine over a safe way, readable by its user only:\n"
        "  shoal keygen cluster.key\n"
        "  shoal serve --model DIR --workers 3 --control tcp://0.0.0.0:5555 \\\n"
        "    --key cluster.key\n"
        "  shoal-worker --coordinator tcp://HOST:5555 --key cluster.key",
        NULL,
        NULL,
        NULL};
    const char *path = NULL;
    struct error err = {0};

    argp_parse(&argp, argc, argv, 0, NULL, &path);
    if (!keys_generate(path, &err)) {
        return cli_fail(argv[0], &err);
    }
    (void)printf("wrote %s: copy it to every machine of the cluster, show it to nobody else\n",
                 path);
    return CLI_OK;
}
