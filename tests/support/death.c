/* death.c - lets a child die instead of the test. */
#include "tests/support/death.h"

#include "common/base/check.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

NO_RETURN static void child_run(death_fn fn, void *context)
{
    struct rlimit no_core = {0, 0};
    int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

    (void)setrlimit(RLIMIT_CORE, &no_core);
    (void)dup2(null, STDERR_FILENO);
    (void)signal(SIGABRT, SIG_DFL);
    fn(context);
    _exit(0);
}

bool death_by_abort(death_fn fn, void *context)
{
    int status = 0;
    pid_t child = fork();

    ASSERT(child >= 0);
    if (child == 0) {
        child_run(fn, context);
    }
    ASSERT(waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}
