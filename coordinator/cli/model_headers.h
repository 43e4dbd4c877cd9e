#ifndef SHOAL_CLI_MODEL_HEADERS_H
#define SHOAL_CLI_MODEL_HEADERS_H

/* A model as far as its description goes, for commands that read no weights. */
#include "common/model/catalog.h"

/* The catalog of a directory or GGUF file. Of a config.json, or a directory in which there is
 * nothing else of the model yet, the one that the model would have, its tensors in the types that
 * such models are published in; weights.source is WEIGHTS_DUMMY then. */
struct catalog *model_headers_open(const char *path, struct error *err) MUST_CHECK;

#endif
