/*
 * The log: one line a call, to standard error or wherever cli/ points it. The level is the
 * project's only mutable global. What a guest does wrong is never logged above LOG_DEBUG: a guest
 * must not be able to fill the host's disk.
 */
#pragma once

#include "base/types.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG, LOG_TRACE };

void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* "error" .. "trace"; -1 if `name` is none of them. */
int log_level_from_name(const char *name);

/* Writes one line, "gnomon: LEVEL: text", when `level` is at or below the current one. */
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_trace(...) log_write(LOG_TRACE, __VA_ARGS__)
