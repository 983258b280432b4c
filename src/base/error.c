#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *fm_status_name(fm_status status)
{
    switch (status) {
    case FM_OK: return "ok";
    case FM_E_ARGUMENT: return "wrong argument";
    case FM_E_NOMEM: return "out of memory";
    case FM_E_IO: return "I/O error";
    case FM_E_FORMAT: return "malformed data";
    case FM_E_UNSUPPORTED: return "not supported";
    case FM_E_BUDGET: return "memory budget too small";
    case FM_E_LIMIT: return "limit reached";
    case FM_E_NUMERIC: return "not a finite number";
    case FM_E_CANCELLED: return "cancelled";
    case FM_E_NOT_FOUND: return "not found";
    case FM_E_STALE: return "stale or foreign file";
    case FM_E_NETWORK: return "network error";
    case FM_E_BUSY: return "busy";
    }
    return "unknown status";
}

fm_status fm_fail(fm_error *err, fm_status code, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        err->code = code;
        vsnprintf(err->message, sizeof err->message, format, args);
        va_end(args);
    }
    return code;
}

static fm_status status_of_errno(int saved_errno)
{
    if (saved_errno == ENOENT) return FM_E_NOT_FOUND;
    if (saved_errno == ENOMEM) return FM_E_NOMEM;
    return FM_E_IO;
}

fm_status fm_fail_errno(fm_error *err, int saved_errno, const char *format, ...)
{
    fm_status code = status_of_errno(saved_errno);
    if (!err) return code;
    va_list args;
    va_start(args, format);
    err->code = code;
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof err->message)
        snprintf(err->message + n, sizeof err->message - (size_t)n, ": %s", strerror(saved_errno));
    return code;
}

fm_status fm_fail_nomem(fm_error *err, const char *what)
{
    return fm_fail(err, FM_E_NOMEM, "out of memory while %s", what);
}

fm_status fm_prefix(fm_error *err, const char *format, ...)
{
    if (!err) return FM_E_FORMAT;
    char tail[sizeof err->message];
    memcpy(tail, err->message, sizeof tail);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof err->message) {
        size_t room = sizeof err->message - (size_t)n;
        snprintf(err->message + n, room, ": %.*s", (int)(room > 3 ? room - 3 : 0), tail);
    }
    return err->code;
}
