/* What this machine allows: physical memory, cgroup limits of both versions, and what we hold. */
#include "engine/planner.h"

#include "base/buf.h"
#include "base/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

enum { SMALL_TEXT = 1 << 13 };

/* Files of /proc and /sys have no size to trust: read until the end. False: not there. */
static bool read_text(const char *path, char *out, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    size_t length = 0;
    ssize_t got;
    while (length < size - 1 && (got = read(fd, out + length, size - 1 - length)) > 0)
        length += (size_t)got;
    close(fd);
    out[length] = 0;
    return true;
}

/* The figure after `name` in kB lines of /proc ("MemTotal:  123 kB"), in bytes; 0: absent. */
static uint64_t kb_line(const char *text, const char *name)
{
    const char *at = strstr(text, name);
    return at ? strtoull(at + strlen(name), NULL, 10) * 1024 : 0;
}

static void tighten(en_machine *m, const char *path)
{
    char text[64];
    if (!read_text(path, text, sizeof text) || text[0] < '0' || text[0] > '9') return;
    uint64_t limit = strtoull(text, NULL, 10);
    if (!limit || limit >= m->limit_bytes) return;
    m->limit_bytes = limit;
    snprintf(m->limited_by, sizeof m->limited_by, "%.127s", path);
}

/* Every group from ours up to the root may set a limit. */
static void walk_groups(en_machine *m, const char *mount, const char *group,
                        const char *const files[2])
{
    char path[4096 + 64], here[4096];
    snprintf(here, sizeof here, "%s", group);
    for (;;) {
        for (int i = 0; i < 2 && files[i]; i++) {
            snprintf(path, sizeof path, "%s%s/%s", mount, here, files[i]);
            tighten(m, path);
        }
        char *slash = strrchr(here, '/');
        if (!slash) return;
        *slash = 0;
    }
}

static void read_cgroups(en_machine *m)
{
    static const char *const v1[2] = {"memory.limit_in_bytes", NULL};
    static const char *const v2[2] = {"memory.max", "memory.high"};
    static char const *const v2_mounts[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"};
    char text[8192];
    if (!read_text("/proc/self/cgroup", text, sizeof text)) return;
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *kinds = strchr(line, ':');
        char *group = kinds ? strchr(kinds + 1, ':') : NULL;
        if (!group) continue;
        *group++ = 0;
        kinds++;
        if (!strcmp(group, "/")) group = "";
        if (!*kinds) {
            for (int i = 0; i < 2; i++) walk_groups(m, v2_mounts[i], group, v2);
        } else if (strstr(kinds, "memory")) {
            walk_groups(m, "/sys/fs/cgroup/memory", group, v1);
            walk_groups(m, "/sys/fs/cgroup/memory", "", v1); /* inside a container */
        }
    }
}

void en_machine_read(uint64_t sim_ram, en_machine *out)
{
    static const uint64_t gib = (uint64_t)1 << 30;
    *out = (en_machine){0};
    char text[8192];
    bool known = read_text("/proc/meminfo", text, sizeof text);
    out->ram_bytes = known ? kb_line(text, "MemTotal:") : 0;
    if (!out->ram_bytes)
        out->ram_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    out->available_bytes = known ? kb_line(text, "MemAvailable:") : 0;
    if (sim_ram) out->ram_bytes = out->available_bytes = sim_ram;
    if (!out->available_bytes) out->available_bytes = out->ram_bytes;
    out->limit_bytes = out->ram_bytes;
    snprintf(out->limited_by, sizeof out->limited_by, "%s", sim_ram ? "--sim-ram" : "RAM");
    if (!sim_ram) read_cgroups(out);
    out->reserve_bytes = out->limit_bytes / 16;
    if (out->reserve_bytes > gib + gib / 2) out->reserve_bytes = gib + gib / 2;
    out->ceiling_bytes = out->limit_bytes - out->reserve_bytes;
}

uint64_t en_rss_bytes(void)
{
    char text[SMALL_TEXT];
    return read_text("/proc/self/status", text, sizeof text) ? kb_line(text, "VmRSS:") : 0;
}

uint64_t en_peak_rss_bytes(void)
{
    char text[SMALL_TEXT];
    return read_text("/proc/self/status", text, sizeof text) ? kb_line(text, "VmHWM:") : 0;
}

uint64_t en_process_bytes(int threads)
{
    /* What grows later: stacks, requests, text, the allocator's own needs. */
    enum { SLACK = 3 << 20, THREAD = 64 << 10 };
#ifdef __GLIBC__
    malloc_trim(0); /* parsing leaves free memory that still counts as ours */
#endif
    return en_rss_bytes() + SLACK + (uint64_t)threads * THREAD;
}

fm_status en_parse_size(const char *text, uint64_t *bytes, fm_error *err)
{
    static const char letters[] = "KMGT";
    char *end;
    double value = text && text[0] >= '0' && text[0] <= '9' ? strtod(text, &end) : -1;
    if (value < 0)
        return fm_fail(err, FM_E_ARGUMENT, "'%s' is not a size: give e.g. 8G, 512M or 1.5GB",
                       text ? text : "");
    double unit = 1;
    if (*end) {
        const char *letter = strchr(letters, *end & ~0x20);
        if (!letter || !*letter) goto wrong;
        int power = (int)(letter - letters) + 1;
        end++;
        double base = 1024;
        if ((end[0] == 'i' || end[0] == 'I') && (end[1] == 'B' || end[1] == 'b')) end += 2;
        else if (end[0] == 'B' || end[0] == 'b') end++, base = 1000;
        if (*end) goto wrong;
        while (power--) unit *= base;
    }
    if (!(value * unit < 9e18))
        return fm_fail(err, FM_E_ARGUMENT, "'%s' is more than any machine has", text);
    *bytes = (uint64_t)(value * unit);
    return FM_OK;
wrong:
    return fm_fail(err, FM_E_ARGUMENT,
                   "'%s' is not a size: after the number may stand K M G T (1024) or KB MB GB TB "
                   "(1000)",
                   text);
}
