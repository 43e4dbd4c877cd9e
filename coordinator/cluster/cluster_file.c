/* cluster_file.c - a described cluster, from YAML to workers and ports.
 *
 * cluster_words.c holds the text to its schema; here words become amounts, and groups machines.
 */
#include "coordinator/cluster/cluster_file.h"

#include "common/base/file.h"
#include "common/base/mem.h"
#include "common/base/units.h"
#include "coordinator/cluster/cluster_words.h"
#include "coordinator/cluster/yaml_place.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define FILE_BYTES_MAX      ((size_t)256 << 10)
#define NUMBER_MAX          4096 /* machines, workers, cores */
#define WORKERS_MACHINE_MAX 64

/* --- from words to amounts --- */

struct group {
    char name[CLUSTER_NAME_CHARACTERS_MAX + 1];
    uint32_t count, workers, cores;
    uint64_t memory_bytes;
    double read_bytes_per_s;
    struct plan_port port; /* bytes_per_s 0: none given */
};

/* Stands at one field, which messages name. */
struct reader {
    const char *text; /* of the file */
    size_t length;
    struct yaml_path path;
    char what[96]; /* "nodes[0].memory" */
    struct error *err;
};

static void reader_at(struct reader *reader, const char *field, const char *inner)
{
    char entry[32] = "";

    reader->path.field = field;
    reader->path.inner = inner;
    if (reader->path.list != NULL) {
        (void)snprintf(entry, sizeof(entry), "%s[%zu].", reader->path.list, reader->path.index);
    }
    (void)snprintf(reader->what, sizeof(reader->what), "%s%s%s%s", entry, field,
                   inner != NULL ? "." : "", inner != NULL ? inner : "");
}

/* Puts the line in front of what is wrong. */
static bool reader_fail(struct reader *reader)
{
    struct yaml_place place = yaml_place_of_value(reader->text, reader->length, &reader->path);

    reader->err->code = ERROR_INPUT;
    return error_wrap(reader->err, "line %" PRIu32, place.line);
}

static bool network_read(struct reader *reader, const struct network_words *words,
                         struct plan_port *port)
{
    int64_t latency_ns;

    reader_at(reader, "network", "bandwidth");
    if (!units_parse_rate(words->bandwidth, reader->what, &port->bytes_per_s, reader->err)) {
        return reader_fail(reader);
    }
    reader_at(reader, "network", "latency");
    if (!units_parse_duration(words->latency, reader->what, &latency_ns, reader->err)) {
        return reader_fail(reader);
    }
    port->latency_s = (double)latency_ns * 1e-9;
    return true;
}

static bool name_read(struct reader *reader, const char *words, struct group *group)
{
    reader_at(reader, "name", NULL);
    if (words == NULL) {
        (void)snprintf(group->name, sizeof(group->name), "node%zu", reader->path.index + 1);
        return true;
    }
    for (const char *c = words; *c != '\0'; c++) {
        if (!isalnum((unsigned char)*c) && strchr("._-", *c) == NULL) {
            (void)error_set(reader->err, ERROR_INPUT,
                            "%s: \"%s\" must be of letters, digits and . _ -", reader->what, words);
            return reader_fail(reader);
        }
    }
    (void)snprintf(group->name, sizeof(group->name), "%s", words);
    return true;
}

static bool number_read(struct reader *reader, const char *field, const uint32_t *number,
                        uint32_t most, uint32_t *out)
{
    *out = number != NULL ? *number : 1;
    if (*out >= 1 && *out <= most) {
        return true;
    }
    reader_at(reader, field, NULL);
    (void)error_set(reader->err, ERROR_INPUT, "%s: %" PRIu32 " must be from 1 to %" PRIu32,
                    reader->what, *out, most);
    return reader_fail(reader);
}

static bool numbers_read(struct reader *reader, const struct group_words *words,
                         struct group *group)
{
    return number_read(reader, "count", words->count, NUMBER_MAX, &group->count) &&
           number_read(reader, "cores", &words->cores, NUMBER_MAX, &group->cores) &&
           number_read(reader, "workers", words->workers, /* each needs a core */
                       group->cores < WORKERS_MACHINE_MAX ? group->cores : WORKERS_MACHINE_MAX,
                       &group->workers);
}

static bool amounts_read(struct reader *reader, const struct group_words *words,
                         struct group *group)
{
    reader_at(reader, "memory", NULL);
    if (!units_parse_bytes(words->memory, reader->what, &group->memory_bytes, reader->err)) {
        return reader_fail(reader);
    }
    if (group->memory_bytes < group->workers) {
        (void)error_set(reader->err, ERROR_INPUT, "%s: without memory a worker holds nothing",
                        reader->what);
        return reader_fail(reader);
    }
    reader_at(reader, "read_bandwidth", NULL);
    return units_parse_rate(words->read_bandwidth, reader->what, &group->read_bytes_per_s,
                            reader->err) ||
           reader_fail(reader);
}

static bool group_read(struct reader *reader, const struct group_words *words, struct group *group)
{
    return name_read(reader, words->name, group) && numbers_read(reader, words, group) &&
           amounts_read(reader, words, group) &&
           (words->network == NULL || network_read(reader, words->network, &group->port));
}

/* Names tell the groups apart, in tables. */
static bool name_is_new(struct reader *reader, const struct group *groups, size_t index)
{
    for (size_t i = 0; i < index; i++) {
        if (strcmp(groups[i].name, groups[index].name) == 0) {
            reader_at(reader, "name", NULL);
            (void)error_set(reader->err, ERROR_INPUT, "%s: nodes[%zu] has the name \"%s\" too",
                            reader->what, i, groups[i].name);
            return reader_fail(reader);
        }
    }
    return true;
}

static bool groups_read(struct reader *reader, const struct cluster_words *words,
                        struct group *groups)
{
    for (size_t i = 0; i < words->nodes_count; i++) {
        reader->path = (struct yaml_path){.list = "nodes", .index = i};
        if (!group_read(reader, &words->nodes[i], &groups[i]) || !name_is_new(reader, groups, i)) {
            return false;
        }
    }
    return true;
}

/* --- from groups to workers --- */

static bool count_all(const struct group *groups, size_t group_count, struct cluster_file *out,
                      struct error *err)
{
    for (size_t i = 0; i < group_count; i++) {
        out->machine_count += groups[i].count;
        out->worker_count += groups[i].count * groups[i].workers;
    }
    return out->worker_count <= NUMBER_MAX ||
           error_set(err, ERROR_LIMIT,
                     "it describes %" PRIu32 " workers, at most %d can be planned",
                     out->worker_count, NUMBER_MAX);
}

/* A group without a network of its own is on the whole cluster's. */
static bool ports_complete(struct group *groups, size_t group_count, const struct plan_port *whole,
                           const struct cluster_file *file, struct error *err)
{
    for (size_t i = 0; i < group_count; i++) {
        if (groups[i].port.bytes_per_s > 0) {
            continue;
        }
        if (whole->bytes_per_s <= 0 && file->machine_count > 1) {
            return error_set(err, ERROR_INPUT,
                             "nodes[%zu] (%s) has no network: \"network\" with bandwidth and "
                             "latency is missing, there or for the whole cluster",
                             i, groups[i].name);
        }
        groups[i].port = *whole;
    }
    return true;
}

static unsigned digits_of(uint32_t number)
{
    return number < 10 ? 1 : 1 + digits_of(number / 10);
}

/* "desktop-03": with as many digits as the last, so that names sort as numbers do. */
static void host_write(const struct group *group, uint32_t number, char *host, size_t host_bytes)
{
    if (group->count == 1) {
        (void)snprintf(host, host_bytes, "%s", group->name);
    } else {
        (void)snprintf(host, host_bytes, "%s-%0*" PRIu32, group->name, (int)digits_of(group->count),
                       number + 1);
    }
}

static void workers_write(const struct group *groups, size_t group_count, struct arena *arena,
                          struct cluster_file *out)
{
    uint32_t next = 0, machine = 0;

    out->workers = arena_new_array(arena, struct planner_worker, out->worker_count);
    out->ports = arena_new_array(arena, struct plan_port, out->worker_count);
    for (const struct group *group = groups; group < groups + group_count; group++) {
        uint32_t threads = (group->cores + group->workers - 1) / group->workers;

        out->thread_count_max = threads > out->thread_count_max ? threads : out->thread_count_max;
        for (uint32_t i = 0; i < group->count * group->workers; i++, next++) {
            struct planner_worker *worker = &out->workers[next];

            out->ports[next] = group->port;
            out->ports[next].machine = machine + i / group->workers;
            *worker = (struct planner_worker){.id = next,
                                              .memory_bytes = group->memory_bytes / group->workers,
                                              .read_bytes_per_s =
                                                  group->read_bytes_per_s / group->workers};
            host_write(group, i / group->workers, worker->host, sizeof(worker->host));
        }
        machine += group->count;
    }
}

static bool cluster_make(struct reader *reader, const struct cluster_words *words,
                         struct arena *arena, struct cluster_file *out)
{
    size_t group_count = words->nodes_count;
    struct group *groups = mem_new_array(struct group, group_count);
    struct plan_port whole = {.bytes_per_s = 0};
    bool good = groups_read(reader, words, groups);

    if (good && words->network != NULL) {
        reader->path = (struct yaml_path){.list = NULL};
        good = network_read(reader, words->network, &whole);
    }
    good = good && count_all(groups, group_count, out, reader->err) &&
           ports_complete(groups, group_count, &whole, out, reader->err);
    if (good) {
        workers_write(groups, group_count, arena, out);
    }
    mem_free(groups);
    return good;
}

struct cluster_file *cluster_file_parse(const char *text, size_t length, const char *name,
                                        struct arena *arena, struct error *err)
{
    struct reader reader = {.text = text, .length = length, .err = err};
    struct cluster_file *file = arena_new(arena, struct cluster_file);
    struct cluster_words *words = cluster_words_load(text, length, err);
    bool good = words != NULL && cluster_make(&reader, words, arena, file);

    cluster_words_free(words);
    if (!good) {
        (void)error_wrap(err, "%s", name);
        return NULL;
    }
    return file;
}

struct cluster_file *cluster_file_read(const char *path, struct arena *arena, struct error *err)
{
    struct cluster_file *file;
    char *text;
    size_t length;

    if (!file_read(path, FILE_BYTES_MAX, &text, &length, err)) {
        return NULL;
    }
    file = cluster_file_parse(text, length, path, arena, err);
    mem_free(text);
    return file;
}
