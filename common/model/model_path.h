#ifndef SHOAL_MODEL_MODEL_PATH_H
#define SHOAL_MODEL_MODEL_PATH_H

/* What a path given as --model stands for: a Hugging Face directory, or a GGUF file, which is
 * known by its first bytes, whatever its name. Any thread. */
#include "common/base/error.h"

enum model_format {
    MODEL_SAFETENSORS, /* a directory with config.json */
    MODEL_GGUF,        /* the only file or the first split */
};

const char *model_format_name(enum model_format format); /* "safetensors", "GGUF" */

/* err says what the path is instead, and what a model is. */
bool model_path_format(const char *path, enum model_format *out, struct error *err) MUST_CHECK;

/* What to call the model: "/models/R1/" gives "R1", "R1-Q4_K_M-00001-of-00009.gguf" gives
 * "R1-Q4_K_M". The caller owns it: mem_free. */
char *model_path_name(const char *path);

#endif
