/* cores.c - how many cores this process may use.
 *
 * A container is limited in two ways: by the affinity mask (which cores) and by a CPU quota of its
 * control group (how much time). A team larger than either only makes threads wait for each other,
 * so the count is the smaller of both. A quota may sit on any ancestor of our group: each is asked.
 * Whatever cannot be read counts as no limit; hosts differ too much to call that an error.
 */
#include "worker/team/cores.h"

#include "common/base/file.h"
#include "common/base/mem.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CPUS_MAX       65536 /* far beyond any kernel's NR_CPUS */
#define TEXT_BYTES_MAX ((size_t)64 << 10)

static uint32_t cores_of_affinity(void)
{
    for (size_t cpus = 1024; cpus <= CPUS_MAX; cpus *= 4) {
        cpu_set_t *set = CPU_ALLOC(cpus);
        size_t bytes = CPU_ALLOC_SIZE(cpus);
        int count = 0;

        if (set != NULL && sched_getaffinity(0, bytes, set) == 0) {
            count = CPU_COUNT_S(bytes, set);
        }
        CPU_FREE(set);
        if (count > 0) {
            return (uint32_t)count;
        }
    }
    return 1;
}

static uint32_t cores_of_quota(int64_t quota_us, int64_t period_us)
{
    if (quota_us <= 0 || period_us <= 0 || quota_us / period_us > CPUS_MAX) {
        return 0;
    }
    return (uint32_t)((quota_us + period_us - 1) / period_us);
}

uint32_t cores_of_cpu_max(const char *text)
{
    int64_t quota_us, period_us;

    if (sscanf(text, "%" SCNd64 " %" SCNd64, &quota_us, &period_us) != 2) {
        return 0; /* "max 100000" */
    }
    return cores_of_quota(quota_us, period_us);
}

static bool controllers_contain_cpu(const char *list, size_t length)
{
    while (length > 0) {
        const char *comma = memchr(list, ',', length);
        size_t word_length = comma != NULL ? (size_t)(comma - list) : length;

        if (word_length == 3 && memcmp(list, "cpu", 3) == 0) {
            return true;
        }
        if (comma == NULL) {
            return false;
        }
        list += word_length + 1;
        length -= word_length + 1;
    }
    return false;
}

bool cores_cgroup_path(const char *text, enum cgroup_version version, char *path, size_t path_bytes)
{
    while (*text != '\0') {
        size_t length = strcspn(text, "\n");
        const char *end = text + length;
        const char *list = memchr(text, ':', length);
        const char *name = list == NULL ? NULL : memchr(list + 1, ':', (size_t)(end - list - 1));

        if (name != NULL) {
            size_t list_length = (size_t)(name - list - 1);
            size_t name_length = (size_t)(end - name - 1);
            bool ours = version == CGROUP_V2 ? list_length == 0 && text[0] == '0'
                                             : controllers_contain_cpu(list + 1, list_length);
            if (ours && name_length < path_bytes) {
                memcpy(path, name + 1, name_length);
                path[name_length] = '\0';
                return true;
            }
        }
        text = *end == '\0' ? end : end + 1;
    }
    return false;
}

/* The caller frees the text; NULL when there is no such file. */
static char *read_text(const char *directory, const char *path, const char *name)
{
    char full[4096 + 256];
    char *text = NULL;
    size_t length;
    struct error err;
    int written = snprintf(full, sizeof(full), "%s%s%s", directory, path, name);

    if (written < 0 || (size_t)written >= sizeof(full) ||
        !file_read(full, TEXT_BYTES_MAX, &text, &length, &err)) {
        return NULL;
    }
    return text;
}

static uint32_t quota_v2(const char *path)
{
    char *text = read_text("/sys/fs/cgroup", path, "/cpu.max");
    uint32_t cores = text != NULL ? cores_of_cpu_max(text) : 0;

    mem_free(text);
    return cores;
}

static uint32_t quota_v1(const char *path)
{
    char *quota = read_text("/sys/fs/cgroup/cpu", path, "/cpu.cfs_quota_us");
    char *period = read_text("/sys/fs/cgroup/cpu", path, "/cpu.cfs_period_us");
    uint32_t cores = 0;

    if (quota != NULL && period != NULL) {
        cores = cores_of_quota(strtoll(quota, NULL, 10), strtoll(period, NULL, 10));
    }
    mem_free(quota);
    mem_free(period);
    return cores;
}

/* The smallest quota of the group and its ancestors; 0: none. `path` is cut on the way up. */
static uint32_t quota_of_chain(char *path, uint32_t (*quota)(const char *path))
{
    uint32_t least = 0;

    for (;;) {
        uint32_t cores = quota(strcmp(path, "/") == 0 ? "" : path);
        char *slash = strrchr(path, '/');

        if (cores > 0 && (least == 0 || cores < least)) {
            least = cores;
        }
        if (slash == NULL) {
            return least;
        }
        *slash = '\0';
    }
}

static uint32_t cores_of_cgroup(void)
{
    char path[4096];
    char *text = read_text("", "", "/proc/self/cgroup");
    uint32_t cores = 0;

    if (text == NULL) {
        return 0;
    }
    if (cores_cgroup_path(text, CGROUP_V2, path, sizeof(path))) {
        cores = quota_of_chain(path, quota_v2);
    }
    if (cores == 0 && cores_cgroup_path(text, CGROUP_V1, path, sizeof(path))) {
        cores = quota_of_chain(path, quota_v1);
    }
    mem_free(text);
    return cores;
}

uint32_t cores_available(void)
{
    uint32_t affinity = cores_of_affinity();
    uint32_t quota = cores_of_cgroup();

    return quota > 0 && quota < affinity ? quota : affinity;
}
