#ifndef SHOAL_CLI_INSPECT_H
#define SHOAL_CLI_INSPECT_H

/* `shoal inspect`: what it found, and the two ways to show it. */
#include "common/model/catalog.h"
#include "common/model/missing_files.h"
#include "common/model/summary.h"

#include <jansson.h>

struct inspection {
    const char *model;
    struct catalog *catalog; /* NULL: it could not be opened; `problem` says why */
    struct summary *summary;
    struct error problem;
    struct missing_files files;    /* looked for only then */
    uint32_t missing_draft_layers; /* that config.json announces and no file holds */
};

const char *inspect_layer_kind(const struct arch *arch, uint32_t layer); /* "experts" */
json_t *inspect_json(const struct inspection *inspection);               /* the caller drops it */
/* To standard output; of a model that could not be opened what is missing, to standard error. */
void inspect_print(const struct inspection *inspection);

#endif
