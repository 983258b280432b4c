/* error.h - making and passing on errors. See flash_moe_error.h for the contract. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "flash_moe_error.h"

/* Fill err (which may be NULL) and return code, so that a failing path is one line:
 *     return fm_fail(err, FM_E_FORMAT, "%s: header is truncated", path); */
__attribute__((format(printf, 3, 4))) fm_status fm_fail(fm_error *err, fm_status code,
                                                        const char *format, ...);

/* The same with ": <strerror(saved_errno)>" appended; code is FM_E_IO, or FM_E_NOT_FOUND for
 * ENOENT, or FM_E_NOMEM for ENOMEM. */
__attribute__((format(printf, 3, 4))) fm_status fm_fail_errno(fm_error *err, int saved_errno,
                                                              const char *format, ...);

/* Out of memory while doing `what`. */
fm_status fm_fail_nomem(fm_error *err, const char *what);

/* Put "prefix: " before the message of an error that is being passed on; returns its code. */
__attribute__((format(printf, 2, 3))) fm_status fm_prefix(fm_error *err, const char *format, ...);

#endif
