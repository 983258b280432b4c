/* cpu_count.c - how many threads are worth starting: physical cores within the affinity mask, and
 * no more than the cgroup's CPU quota pays for. What cannot be read does not limit. */
#include "base/pool.h"

#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The start of a small text file (files in /sys and /proc have no size to go by); false: none. */
static bool read_text(const char *path, char *out, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    ssize_t n = read(fd, out, size - 1);
    close(fd);
    if (n <= 0) return false;
    out[n] = 0;
    return true;
}

#if defined(__linux__)

/* Is `cpu` the first allowed one of its core? */
static bool leads_its_core(int cpu, const cpu_set_t *allowed)
{
    char path[100], list[256];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    if (!read_text(path, list, sizeof list)) return true;
    for (const char *p = list; *p >= '0' && *p <= '9';) { /* "0-1,8" */
        char *end;
        long first = strtol(p, &end, 10), last = first;
        if (*end == '-') last = strtol(end + 1, &end, 10);
        for (long i = first; i <= last && i < CPU_SETSIZE; i++)
            if (CPU_ISSET(i, allowed)) return i == cpu;
        p = *end == ',' ? end + 1 : end;
    }
    return true;
}

static int allowed_cores(void)
{
    cpu_set_t allowed;
    int n = 0;
    if (sched_getaffinity(0, sizeof allowed, &allowed)) return (int)sysconf(_SC_NPROCESSORS_ONLN);
    for (int i = 0; i < CPU_SETSIZE; i++)
        n += CPU_ISSET(i, &allowed) && leads_its_core(i, &allowed);
    return n;
}

/* Quota in CPUs of the group at `dir` itself, version 2 or 1; 0: no limit. */
static double quota_at(const char *dir)
{
    char path[4200], text[64];
    double quota = 0, period = 0;
    snprintf(path, sizeof path, "%s/cpu.max", dir);
    if (read_text(path, text, sizeof text))
        return sscanf(text, "%lf %lf", &quota, &period) == 2 && period > 0 ? quota / period : 0;
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", dir);
    if (!read_text(path, text, sizeof text)) return 0;
    quota = atof(text);
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir);
    if (!read_text(path, text, sizeof text)) return 0;
    period = atof(text);
    return quota > 0 && period > 0 ? quota / period : 0;
}

/* The smallest quota from root/group up to root. */
static double smallest_quota(const char *root, const char *group)
{
    char dir[4096];
    double least = 0;
    if (snprintf(dir, sizeof dir, "%s%s", root, group) >= (int)sizeof dir) return 0;
    for (size_t stop = strlen(root);;) {
        double q = quota_at(dir);
        if (q > 0 && (least == 0 || q < least)) least = q;
        char *slash = strrchr(dir, '/');
        if (!slash || (size_t)(slash - dir) < stop) return least;
        *slash = 0;
    }
}

/* Lines of /proc/self/cgroup are "id:controllers:path"; version 2 has no controllers. */
static double cpu_quota(void)
{
    char text[8192];
    double least = 0;
    if (!read_text("/proc/self/cgroup", text, sizeof text)) return 0;
    for (char *save, *line = strtok_r(text, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save)) {
        char *controllers = strchr(line, ':'),
             *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (!path) continue;
        *path++ = 0;
        double q = 0;
        if (!controllers[1]) q = smallest_quota("/sys/fs/cgroup", path);
        else if (strstr(controllers, "cpu")) q = smallest_quota("/sys/fs/cgroup/cpu", path);
        if (q > 0 && (least == 0 || q < least)) least = q;
    }
    return least;
}

#else

static int allowed_cores(void)
{
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

static double cpu_quota(void)
{
    return 0;
}

#endif

int bs_default_threads(void)
{
    int n = allowed_cores();
    double quota = cpu_quota();
    if (quota > 0 && quota < n) n = (int)quota; /* a part of a CPU is not worth a thread */
    return n < 1 ? 1 : n > 1024 ? 1024 : n;
}
