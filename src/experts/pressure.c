#include "experts/pressure.h"

#include "base/clock.h"
#include "experts/cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

static const uint64_t INTERVAL_NS = 1000000000;
static const double STALLED = 10; /* percent of the last ten seconds */
static const long FAULTS = 100;   /* between two looks */

double xp_pressure_parse_psi(const char *text)
{
    const char *some = strstr(text, "some avg10=");
    return some ? strtod(some + strlen("some avg10="), NULL) : 0;
}

uint64_t xp_pressure_parse_events(const char *text)
{
    uint64_t sum = 0;
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (!strncmp(line, "high ", 5)) sum += strtoull(line + 5, NULL, 10);
        if (!strncmp(line, "max ", 4)) sum += strtoull(line + 4, NULL, 10);
    }
    return sum;
}

/* At most n - 1 bytes of a small file; "" when it is not there. */
static void read_text(const char *path, char *out, size_t n)
{
    FILE *f = fopen(path, "re");
    size_t got = f ? fread(out, 1, n - 1, f) : 0;
    out[got] = 0;
    if (f) fclose(f);
}

/* The file `name` of this process's own cgroup (v2). */
static void read_own_cgroup(const char *name, char *out, size_t n)
{
    char text[512], path[700];
    read_text("/proc/self/cgroup", text, sizeof text);
    *out = 0;
    const char *own = strstr(text, "0::/");
    if (!own) return;
    snprintf(path, sizeof path, "/sys/fs/cgroup/%.*s/%s", (int)strcspn(own + 4, "\n"), own + 4,
             name);
    read_text(path, out, n);
}

bool xp_pressure_look(xp_pressure *p)
{
    uint64_t now = bs_now_ns();
    if (p->done || now < p->next_look_ns) return false;
    p->next_look_ns = now + INTERVAL_NS;
    char text[1024];
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    read_own_cgroup("memory.events", text, sizeof text);
    uint64_t events = xp_pressure_parse_events(text);
    bool hit_limit = events > p->limit_events,
         faulting = usage.ru_majflt > p->major_faults + FAULTS;
    bool first = !p->started;
    p->started = true;
    p->major_faults = usage.ru_majflt;
    p->limit_events = events;
    if (first || !(hit_limit || faulting)) return false;
    read_own_cgroup("memory.pressure", text, sizeof text);
    if (!*text) read_text("/proc/pressure/memory", text, sizeof text);
    return xp_pressure_parse_psi(text) > STALLED;
}

int xp_shrink(xp_cache *c, double share)
{
    int want = (int)(share * c->n_slots), given = 0;
    for (; given < want; given++) {
        int s = xp_res_retire(c->residency);
        if (s < 0) break;
        xp_slot *slot = &c->slots[s];
        slot->loaded = false;
        if (slot->guess) c->stats.prefetch_wasted++;
        slot->guess = false;
        /* Whole pages only: slots are multiples of a block, which is one. */
        madvise(slot->memory, slot->bytes, MADV_DONTNEED);
        slot->touched = false;
        c->given_back += slot->bytes;
    }
    c->stats.shrunk_slots += given;
    return given;
}
