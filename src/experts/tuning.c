/* tuning.c - the file that `tune` writes: one entry a disk, all for one machine. */
#include "experts/measure.h"

#include "base/file.h"
#include "base/mem.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { MAX_FILE = 1 << 20 };

/* The first "model name" of /proc/cpuinfo; macOS and others: the machine type of uname. */
static void cpu_name(char *out, size_t n)
{
    struct utsname u;
    snprintf(out, n, "%s", uname(&u) ? "unknown" : u.machine);
    FILE *f = fopen("/proc/cpuinfo", "re");
    if (!f) return;
    char line[256];
    while (fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon) continue;
        snprintf(out, n, "%s", colon + 2);
        out[strcspn(out, "\n")] = 0;
        break;
    }
    fclose(f);
}

static void machine_identity(char *out, size_t n)
{
    char cpu[200];
    struct utsname u;
    cpu_name(cpu, sizeof cpu);
    const char *release = uname(&u) ? "unknown" : u.release;
    snprintf(out, n, "%s, %ld CPUs, kernel %s", cpu, sysconf(_SC_NPROCESSORS_ONLN), release);
}

/* Device number and size of the block device that holds path. */
static void disk_identity(const char *path, char *out, size_t n)
{
    struct stat st;
    snprintf(out, n, "unknown");
    if (stat(path, &st)) return;
    char name[80];
    snprintf(name, sizeof name, "/sys/dev/block/%u:%u/size", major(st.st_dev), minor(st.st_dev));
    unsigned long long sectors = 0;
    FILE *f = fopen(name, "re");
    if (f && fscanf(f, "%llu", &sectors) != 1) sectors = 0;
    if (f) fclose(f);
    snprintf(out, n, "%u:%u, %llu sectors", major(st.st_dev), minor(st.st_dev), sectors);
}

static char *config_dir(void)
{
    const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    if (xdg && *xdg == '/') return bs_path_join(xdg, "flash-moe");
    return bs_sprintf("%s/.config/flash-moe", home && *home ? home : "/tmp");
}

static char *tuning_path(void)
{
    char *dir = config_dir();
    char *path = dir ? bs_path_join(dir, "tune.json") : NULL;
    bs_free(dir);
    return path;
}

/* The stored object if it is of this machine, else NULL. */
static json_t *load_own(const char *file)
{
    bs_buf text = {0};
    json_t *root = NULL;
    if (!bs_read_file(file, MAX_FILE, &text, NULL))
        root = json_loadb(text.data, text.length, JSON_REJECT_DUPLICATES, NULL);
    bs_buf_free(&text);
    char machine[400];
    machine_identity(machine, sizeof machine);
    const char *stored = json_string_value(json_object_get(root, "machine"));
    if (stored && !strcmp(stored, machine)) return root;
    json_decref(root);
    return NULL;
}

static double number(const json_t *o, const char *key)
{
    double x = json_number_value(json_object_get(o, key));
    return x > 0 && x < 1e15 ? x : 0;
}

static int small(const json_t *o, const char *key, int otherwise)
{
    const json_t *v = json_object_get(o, key);
    json_int_t i = json_integer_value(v);
    return json_is_integer(v) && i >= 0 && i <= 1024 ? (int)i : otherwise;
}

bool xp_tuning_load(const char *path, xp_tuning *out)
{
    *out = (xp_tuning){.prefetch = -1};
    char *file = tuning_path();
    json_t *root = file ? load_own(file) : NULL;
    bs_free(file);
    char disk[100];
    disk_identity(path, disk, sizeof disk);
    const json_t *o = json_object_get(json_object_get(root, "disks"), disk);
    bool found = json_is_object(o);
    if (found)
        *out = (xp_tuning){
            .disk_bytes_s = number(o, "disk_bytes_s"),
            .memory_bytes_s = number(o, "memory_bytes_s"),
            .threads = small(o, "threads", 0),
            .io_threads = small(o, "io_threads", 0),
            .prefetch = small(o, "prefetch", -1),
        };
    json_decref(root);
    return found;
}

static json_t *to_json(const xp_tuning *t)
{
    json_t *o = json_pack("{s:f, s:f, s:i, s:i}", "disk_bytes_s", t->disk_bytes_s, "memory_bytes_s",
                          t->memory_bytes_s, "threads", t->threads, "io_threads", t->io_threads);
    if (o && t->prefetch >= 0) json_object_set_new(o, "prefetch", json_integer(t->prefetch));
    return o;
}

static fm_status store(const char *file, const char *disk, const xp_tuning *tuning, fm_error *err)
{
    json_t *root = load_own(file);
    if (!root) {
        char machine[400];
        machine_identity(machine, sizeof machine);
        root = json_pack("{s:s, s:{}}", "machine", machine, "disks");
    }
    json_object_set_new(json_object_get(root, "disks"), disk, to_json(tuning));
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    if (!text) return fm_fail_nomem(err, file);
    fm_status status = bs_write_file(file, text, strlen(text), err);
    free(text);
    return status;
}

fm_status xp_tuning_save(const char *path, const xp_tuning *tuning, char **where, fm_error *err)
{
    char *dir = config_dir(), *file = tuning_path();
    char disk[100];
    disk_identity(path, disk, sizeof disk);
    fm_status status = dir && file ? bs_make_dirs(dir, err) : fm_fail_nomem(err, "tuning");
    if (!status) status = store(file, disk, tuning, err);
    bs_free(dir);
    if (where && !status) *where = file;
    else bs_free(file);
    return status;
}
