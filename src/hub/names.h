/* names.h - which names may become paths and URLs. Every name that comes from a user, a server or
 * a file goes through here before it touches the file system. */
#ifndef HUB_NAMES_H
#define HUB_NAMES_H

#include "hub/hub.h"

/* A relative path of one or more components, none empty, "." or "..", no control characters or
 * backslashes, none over 255 bytes: it cannot leave the folder it is joined to. */
bool hb_is_safe_path(const char *path);

/* 40 lower-case hexadecimal digits. */
bool hb_is_commit(const char *text);

/* What may name a blob: letters, digits, '-', '_' and inner dots, 1 to 128 of them. */
bool hb_is_blob_name(const char *text);

/* "org/name" of the hub's alphabet. */
bool hb_is_repo(const char *text);

/* "models--org--name", allocated; and back: NULL when it is no such name. */
char *hb_repo_folder(const char *repo);
char *hb_repo_of_folder(const char *folder);

/* Percent-encode for a URL path, allocated; slashes stay when keep_slashes. */
char *hb_url_encode(const char *text, bool keep_slashes);

#endif
