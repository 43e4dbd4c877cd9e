/* local_workers.c - starts, watches and ends the worker processes of this machine.
 *
 * Between fork and exec only async-signal-safe calls are made, since the coordinator has several
 * threads: arguments and environment are put together before. Whether exec succeeded comes back
 * through a pipe that closes itself, so a missing program is an error here and not a silent child.
 *
 * mpirun puts its ranks into process groups of their own but not into another session; so the
 * session of a child names all that belongs to it, and nothing survives local_workers_destroy.
 */
#include "coordinator/cluster/local_workers.h"

#include "common/base/arena.h"
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGUMENTS_MAX 48
#define TOKEN_BYTES   40

#define PAUSE_FIRST_NS (100 * NS_PER_MS)
#define PAUSE_LAST_NS  (10 * NS_PER_S)
#define HEALTHY_NS     (10 * NS_PER_S)

extern char **environ;

struct child {
    pid_t pid; /* also its session; 0: ended and reaped */
    int pidfd; /* -1: none */
    uint32_t worker_begin, worker_end;
    char token[TOKEN_BYTES];
    int64_t start_ns;
    int64_t pause_ns;   /* before the next restart */
    int64_t restart_ns; /* when it is due; INT64_MAX: it runs */
};

struct local_workers {
    struct arena arena;
    struct local_workers_config config;
    char **environment;
    struct poller *poller;
    uint32_t child_count;
    struct child *children;
};

/* A command line under construction; NULL-terminated at every moment. */
struct command {
    char *arguments[ARGUMENTS_MAX + 1];
    uint32_t count;
};

static void command_add(struct command *command, const char *argument)
{
    ASSERT(command->count < ARGUMENTS_MAX);
    command->arguments[command->count++] = (char *)argument; /* execve wants it so */
}

static void command_add_pair(struct command *command, const char *flag, const char *value)
{
    command_add(command, flag);
    command_add(command, value);
}

static uint32_t core_count(void)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) != 0 || CPU_COUNT(&set) < 1) {
        return 1;
    }
    return (uint32_t)CPU_COUNT(&set);
}

static uint32_t threads_of(const struct local_workers_config *config)
{
    uint32_t share = core_count() / config->count;

    if (config->threads > 0) {
        return config->threads;
    }
    return share > 0 ? share : 1;
}

/* A number that stands alone or behind `label` in a file of the kernel's; 0 if there is none. */
static uint64_t kernel_number(const char *path, const char *label)
{
    FILE *file = fopen(path, "re");
    char line[256];
    uint64_t number = 0;

    while (file != NULL && number == 0 && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, label, strlen(label)) == 0) {
            number = strtoull(line + strlen(label), NULL, 10);
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return number;
}

/* Each worker sees the whole machine; together they may not plan with more than nine tenths of what
 * is there, so the share of each is said. 0: unknown, the worker finds its limit alone. */
static uint64_t memory_of(const struct local_workers_config *config)
{
    uint64_t available = kernel_number("/proc/meminfo", "MemAvailable:") * 1024;
    uint64_t group_limit = kernel_number("/sys/fs/cgroup/memory.max", "");

    if (config->memory_bytes > 0) {
        return config->memory_bytes;
    }
    if (group_limit > 0 && group_limit < available) {
        available = group_limit;
    }
    return available / 10 * 9 / config->count;
}

/* --- programs --- */

static const char *worker_program(struct arena *arena, const struct local_workers_config *config,
                                  struct error *err)
{
    char path[PATH_MAX];
    const char *program = config->program;

    if (program == NULL) {
        ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);
        char *slash;

        if (length < 0) {
            error_set_errno(err, "/proc/self/exe");
            return NULL;
        }
        path[length] = '\0';
        slash = strrchr(path, '/');
        program =
            arena_printf(arena, "%.*s/shoal-worker", slash == NULL ? 0 : (int)(slash - path), path);
    }
    if (access(program, X_OK) != 0) {
        error_set_errno(err, "worker program %s (--worker-program names another)", program);
        return NULL;
    }
    return program;
}

static const char *mpirun_program(struct arena *arena, struct error *err)
{
    const char *path = getenv("PATH");
    const char *at = path != NULL ? path : "/usr/local/bin:/usr/bin:/bin";

    while (*at != '\0') {
        size_t length = strcspn(at, ":");
        const char *program = arena_printf(arena, "%.*s/mpirun", (int)length, at);

        if (length > 0 && access(program, X_OK) == 0) {
            return program;
        }
        at += length + (at[length] == ':');
    }
    error_set(err, ERROR_SYSTEM, "mpirun is not in PATH; install Open MPI or use --link zmq");
    return NULL;
}

/* --- command lines --- */

static void worker_arguments(struct command *command, struct arena *arena,
                             const struct local_workers_config *config, const struct child *child)
{
    uint64_t memory = memory_of(config);

    command_add_pair(command, "--coordinator", config->endpoint);
    command_add_pair(command, "--threads", arena_printf(arena, "%u", threads_of(config)));
    if (memory > 0) {
        command_add_pair(command, "--memory", arena_printf(arena, "%" PRIu64, memory));
    }
    if (config->key_path != NULL) {
        command_add_pair(command, "--key", config->key_path);
    }
    if (config->keys_policy == KEYS_INSECURE_ALLOWED) {
        command_add(command, "--insecure");
    }
    command_add_pair(command, "--launch-token", child->token);
}

static bool command_make(struct command *command, struct arena *arena,
                         const struct local_workers_config *config, const struct child *child,
                         struct error *err)
{
    const char *worker = worker_program(arena, config, err);
    const char *mpirun;

    memset(command, 0, sizeof(*command));
    if (worker == NULL) {
        return false;
    }
    if (config->link == CLUSTER_LINK_ZMQ) {
        command_add(command, worker);
        worker_arguments(command, arena, config, child);
        return true;
    }
    mpirun = mpirun_program(arena, err);
    if (mpirun == NULL) {
        return false;
    }
    command_add(command, mpirun);
    command_add_pair(command, "--quiet", "--oversubscribe");
    command_add_pair(command, "--bind-to", "none");
    command_add(command, "--mca");
    command_add_pair(command, "mpi_yield_when_idle", "1");
    command_add_pair(command, "-n",
                     arena_printf(arena, "%u", child->worker_end - child->worker_begin));
    command_add(command, worker);
    worker_arguments(command, arena, config, child);
    return true;
}

/* What a launcher left in our own environment would make a plain worker think it is a rank. */
static bool environment_is_launcher(const char *variable)
{
    return strncmp(variable, "OMPI_COMM_WORLD_", 16) == 0 || strncmp(variable, "PMIX_", 5) == 0 ||
           strncmp(variable, "PMI_", 4) == 0;
}

static char **environment_make(struct arena *arena, enum cluster_link link)
{
    size_t count = 0;
    size_t used = 0;
    char **made;

    while (environ[count] != NULL) {
        count++;
    }
    made = arena_new_array(arena, char *, count + 4);
    for (size_t i = 0; i < count; i++) {
        if (!environment_is_launcher(environ[i])) {
            made[used++] = environ[i];
        }
    }
    if (getenv("SHOAL_LOG") == NULL) {
        made[used++] = (char *)(log_enabled(LOG_INFO) ? "SHOAL_LOG=info" : "SHOAL_LOG=warn");
    }
    if (link != CLUSTER_LINK_ZMQ && geteuid() == 0) {
        made[used++] = (char *)"OMPI_ALLOW_RUN_AS_ROOT=1";
        made[used++] = (char *)"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1";
    }
    return made;
}

/* --- fork and exec --- */

/* In the child, between fork and exec: async-signal-safe calls only. */
NO_RETURN static void child_run(const struct command *command, char **environment, pid_t parent,
                                int report_fd)
{
    sigset_t none;
    int problem;
    int input = open("/dev/null", O_RDONLY);

    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)setsid();
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent) {
        _exit(1); /* it ended before the line above */
    }
    if (input >= 0) {
        (void)dup2(input, STDIN_FILENO);
    }
    /* Results go to the coordinator's standard output, a worker's words never. */
    (void)dup2(STDERR_FILENO, STDOUT_FILENO);
    (void)execve(command->arguments[0], command->arguments, environment);
    problem = errno;
    (void)!write(report_fd, &problem, sizeof(problem));
    _exit(127);
}

/* Waits until exec succeeded (the pipe closes) or failed (it carries errno). */
static bool exec_wait(int fd, const char *program, struct error *err)
{
    int problem = 0;
    ssize_t got;

    do {
        got = read(fd, &problem, sizeof(problem));
    } while (got < 0 && errno == EINTR);
    if (got == 0) {
        return true;
    }
    errno = got == (ssize_t)sizeof(problem) ? problem : EIO;
    return error_set_errno(err, "%s", program);
}

static bool child_spawn(struct child *child, const struct command *command, char **environment,
                        struct error *err)
{
    pid_t parent = getpid();
    int report[2];
    pid_t pid;
    bool started;

    if (pipe2(report, O_CLOEXEC) != 0) {
        return error_set_errno(err, "pipe");
    }
    pid = fork();
    if (pid == 0) {
        child_run(command, environment, parent, report[1]);
    }
    (void)close(report[1]);
    if (pid < 0) {
        (void)error_set_errno(err, "fork");
        (void)close(report[0]);
        return false;
    }
    started = exec_wait(report[0], command->arguments[0], err);
    (void)close(report[0]);
    if (!started) {
        (void)waitpid(pid, NULL, 0);
        return false;
    }
    child->pid = pid;
    child->pidfd = pidfd_open(pid, 0); /* without it the loop's tick finds the end */
    return true;
}

/* --- sessions --- */

/* The session of a process from /proc/PID/stat, 0 if it is gone: the fourth field after the
 * parenthesised name, which may hold anything. */
static pid_t session_of(const char *pid_text)
{
    char path[64], line[512];
    FILE *file;
    const char *end;
    int session = 0;

    (void)snprintf(path, sizeof(path), "/proc/%.20s/stat", pid_text);
    file = fopen(path, "re");
    if (file == NULL) {
        return 0;
    }
    if (fgets(line, sizeof(line), file) != NULL) {
        end = strrchr(line, ')');
        if (end == NULL || sscanf(end + 1, " %*c %*d %*d %d", &session) != 1) {
            session = 0;
        }
    }
    (void)fclose(file);
    return session;
}

/* Sends a signal to every process of a session; returns how many there are. */
static uint32_t session_signal(pid_t session, int signal_number)
{
    DIR *processes = opendir("/proc");
    struct dirent *entry;
    uint32_t count = 0;

    if (processes == NULL) {
        (void)kill(-session, signal_number);
        return 0;
    }
    while ((entry = readdir(processes)) != NULL) {
        if (isdigit((unsigned char)entry->d_name[0]) && session_of(entry->d_name) == session) {
            (void)kill((pid_t)strtol(entry->d_name, NULL, 10), signal_number);
            count++;
        }
    }
    (void)closedir(processes);
    return count;
}

/* --- life --- */

static void token_make(char out[TOKEN_BYTES], uint32_t child)
{
    uint64_t bits[2] = {0, 0};

    if (getrandom(bits, sizeof(bits), 0) != (ssize_t)sizeof(bits)) {
        bits[0] ^= hash_mix((uint64_t)getpid()); /* uniqueness is all that is needed */
    }
    (void)snprintf(out, TOKEN_BYTES, "%u-%016" PRIx64, child, bits[0] ^ hash_mix(bits[1]));
}

/* zmq: a child for each worker; mpi: one for all; mixed: two islands, the first not the smaller. */
static void children_plan(struct local_workers *workers, const struct local_workers_config *config)
{
    uint32_t count = config->count;
    uint32_t children = config->link == CLUSTER_LINK_ZMQ   ? count
                        : config->link == CLUSTER_LINK_MPI ? 1
                                                           : (count > 1 ? 2 : 1);
    uint32_t begin = 0;

    workers->child_count = children;
    workers->children = arena_new_array(&workers->arena, struct child, children);
    for (uint32_t i = 0; i < children; i++) {
        struct child *child = &workers->children[i];

        child->pidfd = -1;
        child->restart_ns = INT64_MAX;
        child->worker_begin = begin;
        child->worker_end = begin + (count - begin + (children - i) - 1) / (children - i);
        begin = child->worker_end;
        token_make(child->token, i);
    }
}

static bool child_start(struct local_workers *workers, struct child *child, struct error *err)
{
    struct arena arena;
    struct command command;
    bool started;

    arena_init(&arena, 4096);
    started = command_make(&command, &arena, &workers->config, child, err) &&
              child_spawn(child, &command, workers->environment, err);
    arena_deinit(&arena);
    if (!started) {
        return error_wrap(err, "starting local worker %u", child->worker_begin);
    }
    if (child->pidfd >= 0) {
        poller_add_fd(workers->poller, child->pidfd);
    }
    child->start_ns = clock_monotonic_ns();
    child->restart_ns = INT64_MAX;
    return true;
}

struct local_workers *local_workers_start(const struct local_workers_config *config,
                                          struct poller *poller, struct error *err)
{
    struct local_workers *workers = mem_new(struct local_workers);

    ASSERT(config->count > 0);
    arena_init(&workers->arena, 4096);
    workers->config = *config;
    workers->poller = poller;
    children_plan(workers, config);
    workers->environment = environment_make(&workers->arena, config->link);
    for (uint32_t i = 0; i < workers->child_count; i++) {
        if (!child_start(workers, &workers->children[i], err)) {
            local_workers_destroy(workers);
            return NULL;
        }
    }
    return workers;
}

/* When the child that ended shall be started again. */
static void restart_plan(struct child *child)
{
    int64_t now_ns = clock_monotonic_ns();

    if (child->pause_ns == 0 || now_ns - child->start_ns >= HEALTHY_NS) {
        child->pause_ns = PAUSE_FIRST_NS;
    } else if (child->pause_ns < PAUSE_LAST_NS / 2) {
        child->pause_ns *= 2;
    } else {
        child->pause_ns = PAUSE_LAST_NS;
    }
    child->restart_ns = now_ns + child->pause_ns;
}

int64_t local_workers_restart_ns(const struct local_workers *workers)
{
    int64_t due_ns = INT64_MAX;

    for (uint32_t i = 0; i < workers->child_count; i++) {
        if (workers->children[i].restart_ns < due_ns) {
            due_ns = workers->children[i].restart_ns;
        }
    }
    return due_ns;
}

void local_workers_restart(struct local_workers *workers, int64_t now_ns)
{
    for (uint32_t i = 0; i < workers->child_count; i++) {
        struct child *child = &workers->children[i];
        struct error err;

        if (child->restart_ns > now_ns) {
            continue;
        }
        if (child_start(workers, child, &err)) {
            log_info("local worker %u starts again: pid=%d", child->worker_begin, (int)child->pid);
        } else {
            log_error("%s", err.message);
            restart_plan(child);
        }
    }
}

static void child_forget(struct local_workers *workers, struct child *child)
{
    if (child->pidfd >= 0) {
        poller_remove_fd(workers->poller, child->pidfd);
        (void)close(child->pidfd);
        child->pidfd = -1;
    }
    /* What mpirun may have left behind. */
    (void)session_signal(child->pid, SIGKILL);
    child->pid = 0;
}

void local_workers_destroy(struct local_workers *workers)
{
    if (workers == NULL) {
        return;
    }
    local_workers_signal(workers, SIGKILL);
    for (uint32_t i = 0; i < workers->child_count; i++) {
        if (workers->children[i].pid > 0) {
            (void)waitpid(workers->children[i].pid, NULL, 0);
            child_forget(workers, &workers->children[i]);
        }
    }
    arena_deinit(&workers->arena);
    mem_free(workers);
}

bool local_workers_identify(const struct local_workers *workers, const char *token, uint32_t rank,
                            uint32_t *worker)
{
    for (uint32_t i = 0; i < workers->child_count; i++) {
        const struct child *child = &workers->children[i];

        if (strcmp(child->token, token) == 0) {
            if (rank >= child->worker_end - child->worker_begin) {
                return false;
            }
            *worker = child->worker_begin + rank;
            return true;
        }
    }
    return false;
}

static void exit_describe(const struct child *child, int status, struct local_exit *out)
{
    bool several = child->worker_end - child->worker_begin > 1;
    char who[64];

    if (several) {
        (void)snprintf(who, sizeof(who), "mpirun of local workers %u to %u", child->worker_begin,
                       child->worker_end - 1);
    } else {
        (void)snprintf(who, sizeof(who), "local worker %u", child->worker_begin);
    }
    out->worker_begin = child->worker_begin;
    out->worker_end = child->worker_end;
    out->orderly = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (WIFSIGNALED(status)) {
        (void)snprintf(out->what, sizeof(out->what), "%s (pid %d) was killed by signal %d (%s)",
                       who, (int)child->pid, WTERMSIG(status), strsignal(WTERMSIG(status)));
    } else {
        (void)snprintf(out->what, sizeof(out->what), "%s (pid %d) ended with exit status %d", who,
                       (int)child->pid, WEXITSTATUS(status));
    }
}

bool local_workers_reap(struct local_workers *workers, struct local_exit *out)
{
    for (uint32_t i = 0; i < workers->child_count; i++) {
        struct child *child = &workers->children[i];
        int status;

        if (child->pid > 0 && waitpid(child->pid, &status, WNOHANG) == child->pid) {
            exit_describe(child, status, out);
            child_forget(workers, child);
            restart_plan(child);
            return true;
        }
    }
    return false;
}

uint32_t local_workers_running(const struct local_workers *workers)
{
    uint32_t running = 0;

    for (uint32_t i = 0; i < workers->child_count; i++) {
        running += workers->children[i].pid > 0;
    }
    return running;
}

void local_workers_signal(struct local_workers *workers, int signal_number)
{
    for (uint32_t i = 0; i < workers->child_count; i++) {
        if (workers->children[i].pid > 0) {
            (void)session_signal(workers->children[i].pid, signal_number);
        }
    }
}
