/* What a hub says: header lines, names, a shard index. A name that is accepted must not lead out of
 * its folder. */
#include "hub/http.h"
#include "hub/index.h"
#include "hub/names.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_name(const char *name)
{
    hb_id id;
    if (hb_is_safe_path(name) &&
        (name[0] == '/' || strstr(name, "/../") || !strncmp(name, "../", 3) || !strcmp(name, "..")))
        abort();
    if (hb_is_blob_name(name) && strchr(name, '/')) abort();
    if (hb_parse_id(name, &id, NULL)) return;
    char *folder = hb_repo_folder(id.repo), *repo = folder ? hb_repo_of_folder(folder) : NULL;
    if (!repo || strcmp(repo, id.repo) || strchr(folder, '/')) abort();
    bs_free(folder);
    bs_free(repo);
}

static bool take_shard(void *arg, const char *shard)
{
    (void)arg;
    check_name(shard);
    return true;
}

static void headers(char *text)
{
    hb_headers h = {0};
    for (char *line = text, *next; line; line = next) {
        next = strchr(line, '\n');
        hb_header_line(line, 1, next ? (size_t)(++next - line) : strlen(line), &h);
    }
    if (memchr(h.etag, 0, sizeof h.etag) == NULL) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1), path[64];
    if (!text) return 0;
    memcpy(text, data, size);
    text[size] = 0;
    check_name(text);
    headers(text);
    int fd = memfd_create("index", MFD_CLOEXEC);
    if (fd >= 0 && write(fd, data, size) == (ssize_t)size) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        hb_index_each_shard(path, take_shard, NULL, NULL);
    }
    if (fd >= 0) close(fd);
    free(text);
    return 0;
}
