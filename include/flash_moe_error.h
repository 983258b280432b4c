/* flash_moe_error.h - how every flash-moe function reports failure.
 *
 * A function that can fail returns an fm_status (0 is success, negative is an error) and takes an
 * fm_error as its last parameter. On failure the error holds the same code and one English
 * sentence that names the file, tensor or field and, where there is one, the way out. The pointer
 * may be NULL when the caller does not want the message. On success the error is not touched.
 * The library never prints, exits or aborts. */
#ifndef FLASH_MOE_ERROR_H
#define FLASH_MOE_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum fm_status {
    FM_OK = 0,
    FM_E_ARGUMENT = -1,    /* the caller passed something that cannot be meant */
    FM_E_NOMEM = -2,       /* an allocation failed */
    FM_E_IO = -3,          /* a read, write, open or system call failed */
    FM_E_FORMAT = -4,      /* a file or message is malformed, truncated or contradicts itself */
    FM_E_UNSUPPORTED = -5, /* well-formed, but this build does not know it */
    FM_E_BUDGET = -6,      /* the memory budget is below the floor */
    FM_E_LIMIT = -7,       /* a limit on size, depth, steps or length was reached */
    FM_E_NUMERIC = -8,     /* NaN or infinity where a number is needed */
    FM_E_CANCELLED = -9,   /* stopped on request */
    FM_E_NOT_FOUND = -10,  /* no such file, model, tensor or name */
    FM_E_STALE = -11,      /* a saved file belongs to another model, version or source */
    FM_E_NETWORK = -12,    /* a remote side refused, broke off or cannot be reached */
    FM_E_BUSY = -13,       /* a queue is full or another process holds the resource */
} fm_status;

typedef struct fm_error {
    fm_status code;
    char message[500];
} fm_error;

/* "out of memory", "I/O error", ...: a fixed English name, never NULL. */
const char *fm_status_name(fm_status status);

#ifdef __cplusplus
}
#endif
#endif
