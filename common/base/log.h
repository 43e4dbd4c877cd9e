#ifndef SHOAL_BASE_LOG_H
#define SHOAL_BASE_LOG_H

/* One line a record on standard error: time, level, who, a sentence, then fields.
 * Prompts, answers and keys are never logged. Thread-safe; one write() a line. */
#include "common/base/check.h"

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE };

/* Reads SHOAL_LOG (error, warn, info, debug, trace); `who` ("coordinator", "worker 3") is copied.
 */
void log_init(const char *who, enum log_level level_default);
void log_set_who(const char *who);
bool log_enabled(enum log_level level);
void log_write(enum log_level level, const char *format, ...) FORMAT_PRINTF(2, 3);

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...) (log_enabled(LOG_DEBUG) ? log_write(LOG_DEBUG, __VA_ARGS__) : (void)0)
#define log_trace(...) (log_enabled(LOG_TRACE) ? log_write(LOG_TRACE, __VA_ARGS__) : (void)0)

#endif
