#ifndef SHOAL_TEXT_CHAT_JSON_H
#define SHOAL_TEXT_CHAT_JSON_H

/* JSON as Python's json.dumps(value, ensure_ascii=False) writes it: models were trained on that. */
#include "common/base/buffer.h"

#include <jansson.h>

/* `indent` spaces a level, each item on a line of its own; 0: all on one line. */
void chat_json_append(struct buffer *out, const json_t *value, int indent);

#endif
