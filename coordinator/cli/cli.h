#ifndef SHOAL_CLI_CLI_H
#define SHOAL_CLI_CLI_H

/* What the subcommands share: their entry points, exit codes, messages, signals.
 *
 * A command gets its own argv (argv[0] is "shoal run"), prints results to standard output and
 * everything else to standard error, and returns its exit code. Main thread only, unless a comment
 * says otherwise.
 */
#include "common/base/error.h"

#include <argp.h>
#include <signal.h>
#include <stdbool.h>

enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
};

int command_bench(int argc, char **argv);
int command_chat(int argc, char **argv);
int command_inspect(int argc, char **argv);
int command_keygen(int argc, char **argv);
int command_logits(int argc, char **argv);
int command_plan(int argc, char **argv);
int command_profile(int argc, char **argv);
int command_routing(int argc, char **argv);
int command_run(int argc, char **argv);
int command_serve(int argc, char **argv);
int command_template(int argc, char **argv);
int command_tokenize(int argc, char **argv);
int command_top(int argc, char **argv);

/* Prints "shoal run: <message>" and gives the exit code that belongs to it: 2 for ERROR_USAGE, else
 * 1. `command` is argv[0]. */
int cli_fail(const char *command, const struct error *err);

/* --- signals --- */
/* From here on SIGINT and SIGTERM count up *cli_stop_count() and make cli_stop_fd() readable
 * instead of ending the process; the second one ends it at once (exit code 1; local workers die
 * with it). Call before the first thread is made. SIGPIPE is ignored. */
void cli_signals_install(void);
const volatile int *cli_stop_count(void); /* any thread */
int cli_stop_fd(void);                    /* an eventfd for poll(); -1 before install */

/* RLIMIT_NOFILE to its hard limit. */
void cli_limits_raise(void);

/* --- the terminal --- */
bool cli_stderr_is_terminal(void);
bool cli_stdout_is_terminal(void);

#endif
