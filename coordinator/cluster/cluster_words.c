/* cluster_words.c - the schema of cluster files, and what libcyaml makes of them.
 *
 * It says what breaks the schema in lines of log: the complaint, then from the inside out where it
 * stood. They become one message here.
 */
#include "coordinator/cluster/cluster_words.h"

#include "coordinator/cluster/yaml_place.h"

#include <cyaml/cyaml.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define GROUPS_MAX          256
#define TEXT_CHARACTERS_MAX 32

#define MAY_LACK (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)

static const cyaml_schema_field_t network_fields[] = {
    CYAML_FIELD_STRING_PTR("bandwidth", CYAML_FLAG_POINTER, struct network_words, bandwidth, 1,
                           TEXT_CHARACTERS_MAX),
    CYAML_FIELD_STRING_PTR("latency", CYAML_FLAG_POINTER, struct network_words, latency, 1,
                           TEXT_CHARACTERS_MAX),
    CYAML_FIELD_END};

static const cyaml_schema_field_t group_fields[] = {
    CYAML_FIELD_STRING_PTR("name", MAY_LACK, struct group_words, name, 1,
                           CLUSTER_NAME_CHARACTERS_MAX),
    CYAML_FIELD_UINT_PTR("count", MAY_LACK, struct group_words, count),
    CYAML_FIELD_STRING_PTR("memory", CYAML_FLAG_POINTER, struct group_words, memory, 1,
                           TEXT_CHARACTERS_MAX),
    CYAML_FIELD_UINT("cores", CYAML_FLAG_DEFAULT, struct group_words, cores),
    CYAML_FIELD_STRING_PTR("read_bandwidth", CYAML_FLAG_POINTER, struct group_words, read_bandwidth,
                           1, TEXT_CHARACTERS_MAX),
    CYAML_FIELD_UINT_PTR("workers", MAY_LACK, struct group_words, workers),
    CYAML_FIELD_MAPPING_PTR("network", MAY_LACK, struct group_words, network, network_fields),
    CYAML_FIELD_END};

static const cyaml_schema_value_t group_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct group_words, group_fields)};

static const cyaml_schema_field_t cluster_fields[] = {
    CYAML_FIELD_SEQUENCE("nodes", CYAML_FLAG_POINTER, struct cluster_words, nodes, &group_value, 1,
                         GROUPS_MAX),
    CYAML_FIELD_MAPPING_PTR("network", MAY_LACK, struct cluster_words, network, network_fields),
    CYAML_FIELD_END};

static const cyaml_schema_value_t cluster_value = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct cluster_words, cluster_fields)};

/* --- what libcyaml complains about --- */

struct complaint {
    char text[160]; /* its first line */
    char field[64]; /* innermost of the backtrace; "" */
    struct yaml_place place;
};

static const char backtrace_word[] = "Backtrace:";

/* "  in mapping field 'cores' (line: 3, column: 12)" */
static void complaint_locate(struct complaint *complaint, const char *line)
{
    const char *at = strstr(line, "(line: ");
    const char *name = strchr(line, '\'');
    const char *name_end = name != NULL ? strchr(name + 1, '\'') : NULL;

    if (at == NULL || complaint->place.line != 0 ||
        sscanf(at, "(line: %" SCNu32 ", column: %" SCNu32 ")", &complaint->place.line,
               &complaint->place.column) != 2) {
        return;
    }
    if (name_end != NULL && strstr(line, "mapping field") != NULL) {
        (void)snprintf(complaint->field, sizeof(complaint->field), "%.*s",
                       (int)(name_end - name - 1), name + 1);
    }
}

FORMAT_PRINTF(3, 0)
static void complaint_log(cyaml_log_t level, void *context, const char *format, va_list args)
{
    struct complaint *complaint = context;
    char line[256];
    const char *text = line;

    (void)level;
    (void)vsnprintf(line, sizeof(line), format, args);
    line[strcspn(line, "\n")] = '\0';
    text += strncmp(text, "Load: ", 6) == 0 ? 6 : 0;
    if (text[0] == ' ') {
        complaint_locate(complaint, text);
    } else if (strcmp(text, backtrace_word) != 0 && complaint->text[0] == '\0') {
        (void)snprintf(complaint->text, sizeof(complaint->text), "%.150s", text);
    }
}

/* What follows the prefix, if `text` begins with it; else NULL. */
static const char *after(const char *text, const char *prefix)
{
    size_t length = strlen(prefix);

    return strncmp(text, prefix, length) == 0 ? text + length : NULL;
}

static const char *refused_key(const struct complaint *complaint)
{
    const char *key = after(complaint->text, "Unexpected key: ");

    return key != NULL ? key : after(complaint->text, "Mapping field already seen: ");
}

static bool complaint_report(const struct complaint *complaint, const char *text, size_t length,
                             cyaml_err_t result, struct error *err)
{
    const char *key = refused_key(complaint);
    const char *what = complaint->text[0] != '\0' ? complaint->text : cyaml_strerror(result);
    struct yaml_place place = complaint->place;
    /* These name their field themselves. */
    bool is_named = key != NULL || after(what, "Missing required mapping field: ") != NULL ||
                    complaint->field[0] == '\0';
    char line[32] = "";

    if (key != NULL) {
        struct yaml_place found = yaml_place_of_key(text, length, key, place);

        place = found.line != 0 ? found : place;
    }
    if (place.line != 0) {
        (void)snprintf(line, sizeof(line), "line %" PRIu32 ": ", place.line);
    }
    return error_set(err, ERROR_INPUT, "%s%s%s%s%s", line, is_named ? "" : "field \"",
                     is_named ? "" : complaint->field, is_named ? "" : "\": ", what);
}

static const cyaml_config_t loading = {.log_fn = complaint_log,
                                       .mem_fn = cyaml_mem,
                                       .log_level = CYAML_LOG_WARNING,
                                       .flags = CYAML_CFG_NO_ALIAS};

struct cluster_words *cluster_words_load(const char *text, size_t length, struct error *err)
{
    struct complaint complaint = {.text = ""};
    cyaml_config_t config = loading;
    struct cluster_words *words = NULL;
    cyaml_err_t result;

    config.log_ctx = &complaint;
    result = cyaml_load_data((const uint8_t *)text, length, &config, &cluster_value,
                             (cyaml_data_t **)&words, NULL);
    if (result != CYAML_OK) {
        (void)complaint_report(&complaint, text, length, result, err);
        return NULL;
    }
    if (words == NULL) {
        (void)error_set(err, ERROR_INPUT, "it is empty; \"nodes\" must list the machines");
    }
    return words;
}

void cluster_words_free(struct cluster_words *words)
{
    (void)cyaml_free(&loading, &cluster_value, words, 0);
}
