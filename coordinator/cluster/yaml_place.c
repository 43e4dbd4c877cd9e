/* yaml_place.c - line numbers that libcyaml does not keep.
 *
 * It gives values without their places, and names the token before a key that it refuses. So when
 * something is wrong the text is parsed once more, into libyaml's tree of marked nodes.
 */
#include "coordinator/cluster/yaml_place.h"

#include <stdbool.h>
#include <string.h>
#include <yaml.h>

static bool is_word(const yaml_node_t *node, const char *word)
{
    return node != NULL && node->type == YAML_SCALAR_NODE &&
           node->data.scalar.length == strlen(word) &&
           memcmp(node->data.scalar.value, word, node->data.scalar.length) == 0;
}

static yaml_node_t *mapping_value(yaml_document_t *document, const yaml_node_t *mapping,
                                  const char *key)
{
    if (mapping == NULL || mapping->type != YAML_MAPPING_NODE) {
        return NULL;
    }
    for (const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
         pair < mapping->data.mapping.pairs.top; pair++) {
        if (is_word(yaml_document_get_node(document, pair->key), key)) {
            return yaml_document_get_node(document, pair->value);
        }
    }
    return NULL;
}

static yaml_node_t *sequence_entry(yaml_document_t *document, const yaml_node_t *sequence,
                                   size_t index)
{
    if (sequence == NULL || sequence->type != YAML_SEQUENCE_NODE ||
        index >=
            (size_t)(sequence->data.sequence.items.top - sequence->data.sequence.items.start)) {
        return NULL;
    }
    return yaml_document_get_node(document, sequence->data.sequence.items.start[index]);
}

static struct yaml_place place_of(const yaml_node_t *node)
{
    if (node == NULL) {
        return (struct yaml_place){0, 0};
    }
    return (struct yaml_place){(uint32_t)node->start_mark.line + 1,
                               (uint32_t)node->start_mark.column + 1};
}

static bool document_load(const char *text, size_t length, yaml_parser_t *parser,
                          yaml_document_t *document)
{
    if (yaml_parser_initialize(parser) == 0) {
        return false;
    }
    yaml_parser_set_input_string(parser, (const unsigned char *)text, length);
    if (yaml_parser_load(parser, document) == 0) {
        yaml_parser_delete(parser);
        return false;
    }
    return true;
}

struct yaml_place yaml_place_of_value(const char *text, size_t length, const struct yaml_path *path)
{
    struct yaml_place place = {0, 0};
    yaml_parser_t parser;
    yaml_document_t document;
    yaml_node_t *node;

    if (!document_load(text, length, &parser, &document)) {
        return place;
    }
    node = yaml_document_get_root_node(&document);
    if (path->list != NULL) {
        node = sequence_entry(&document, mapping_value(&document, node, path->list), path->index);
    }
    /* What is not there is looked for in vain; then the place of what should have it serves. */
    place = place_of(node);
    for (int i = 0; i < 2; i++) {
        const char *key = i == 0 ? path->field : path->inner;
        yaml_node_t *value = key != NULL ? mapping_value(&document, node, key) : NULL;

        if (value != NULL) {
            node = value;
            place = place_of(node);
        }
    }
    yaml_document_delete(&document);
    yaml_parser_delete(&parser);
    return place;
}

struct yaml_place yaml_place_of_key(const char *text, size_t length, const char *name,
                                    struct yaml_place after)
{
    struct yaml_place found = {0, 0};
    yaml_parser_t parser;
    yaml_document_t document;

    if (!document_load(text, length, &parser, &document)) {
        return found;
    }
    for (yaml_node_t *node = document.nodes.start; node < document.nodes.top; node++) {
        if (node->type != YAML_MAPPING_NODE) {
            continue;
        }
        for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
             pair < node->data.mapping.pairs.top; pair++) {
            const yaml_node_t *key = yaml_document_get_node(&document, pair->key);
            struct yaml_place place = place_of(key);
            bool is_behind = place.line > after.line ||
                             (place.line == after.line && place.column > after.column);
            bool is_first = found.line == 0 || place.line < found.line ||
                            (place.line == found.line && place.column < found.column);

            if (is_word(key, name) && is_behind && is_first) {
                found = place;
            }
        }
    }
    yaml_document_delete(&document);
    yaml_parser_delete(&parser);
    return found;
}
