#ifndef SHOAL_BASE_CHECK_H
#define SHOAL_BASE_CHECK_H

/* Assertions and the attributes that make the compiler check our contracts. */

#define MUST_CHECK __attribute__((warn_unused_result))
#define FORMAT_PRINTF(format_index, first_arg)                                                     \
    __attribute__((format(printf, format_index, first_arg)))
#define NO_RETURN __attribute__((noreturn))

/* Stays on in release builds. Foreign bytes never reach an assertion. */
#define ASSERT(condition)                                                                          \
    ((condition) ? (void)0 : check_failed(#condition, __FILE__, __LINE__, __func__))

/* For inner loops; on in debug and sanitizer builds (SHOAL_DEBUG_ASSERT=1). */
#if SHOAL_DEBUG_ASSERT
#define DEBUG_ASSERT(condition) ASSERT(condition)
#else
#define DEBUG_ASSERT(condition) ((void)sizeof(condition))
#endif

#define ARRAY_LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* Prints the failed condition and its place to standard error, then aborts. */
NO_RETURN void check_failed(const char *condition, const char *file, int line,
                            const char *function);

#endif
