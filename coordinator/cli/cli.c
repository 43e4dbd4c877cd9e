/* cli.c - what the subcommands share: messages, signals, limits, the terminal. */
#include "coordinator/cli/cli.h"

#include "common/base/clock.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#define ECHO_NS (10 * NS_PER_MS)

static volatile int stop_count;
static int stop_fd = -1;

int cli_fail(const char *command, const struct error *err)
{
    (void)fflush(stdout);
    (void)fprintf(stderr, "%s: %s\n", command, err->message);
    return err->code == ERROR_USAGE ? CLI_USAGE : CLI_FAILED;
}

/* timeout(1) and some shells signal a process and then its group: that is one wish, not two. */
static bool is_echo(void)
{
    static int64_t last_ns;
    int64_t before_ns = last_ns;

    last_ns = clock_monotonic_ns();
    return before_ns != 0 && last_ns - before_ns < ECHO_NS;
}

static void stop_handler(int signal_number)
{
    static const char text[] = "\nstopping at once\n";
    uint64_t one = 1;
    int saved = errno;

    (void)signal_number;
    if (is_echo()) {
        return;
    }
    stop_count++;
    if (stop_count > 1) {
        (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
        _exit(CLI_FAILED); /* local workers get SIGTERM from the kernel */
    }
    (void)!write(stop_fd, &one, sizeof(one));
    errno = saved;
}

void cli_signals_install(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof(action));
    action.sa_handler = stop_handler;
    action.sa_flags = SA_RESTART;
    sigemptyset(&action.sa_mask);
    stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    ASSERT(stop_fd >= 0);
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
}

const volatile int *cli_stop_count(void)
{
    return &stop_count;
}

int cli_stop_fd(void)
{
    return stop_fd;
}

void cli_limits_raise(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* the lower limit serves small clusters as well */
    }
}

bool cli_stderr_is_terminal(void)
{
    return isatty(STDERR_FILENO) == 1;
}

bool cli_stdout_is_terminal(void)
{
    return isatty(STDOUT_FILENO) == 1;
}
