/* measure.h - what this machine can do at most: the rates that bound decoding.
 *
 * They are measured the way the engine uses the hardware: the disk by random direct reads of one
 * expert each, through the reader; memory by all threads reading a block that no cache holds, in
 * order as the layers' own weights are read, or whole experts where they lie. */
#ifndef EXPERTS_MEASURE_H
#define EXPERTS_MEASURE_H

#include "base/pool.h"
#include "experts/experts.h"

typedef struct xp_disk_probe {
    const char *path;    /* a file of at least one record; the bigger the better */
    size_t record_bytes; /* rounded up to whole blocks */
    int depth;           /* reads kept in flight */
    int io_threads;      /* 0: as many as depth */
    xp_io io;
    double seconds; /* about how long to read */
} xp_disk_probe;

typedef struct xp_disk_rate {
    double bytes_s;
    double latency_s; /* mean, of one record */
    bool direct_io;   /* false: the page cache took part, the rate means little */
} xp_disk_rate;

fm_status xp_measure_disk(const xp_disk_probe *probe, xp_disk_rate *out, fm_error *err);

/* Bytes a second that the pool's threads read together (the median of some passes). Takes 1 GiB of
 * memory meanwhile. */
fm_status xp_measure_memory(bs_pool *pool, double seconds, double *bytes_s, fm_error *err);

/* The same of the experts that the cache holds, in random order, each read whole by one thread:
 * over many gigabytes that is slower than a block in order, for any program. *bytes_s is 0 where
 * they are fewer than `least` bytes, of which the processor's caches would hold too much. No step
 * may run meanwhile. */
fm_status xp_measure_experts(const xp_cache *cache, bs_pool *pool, double seconds, size_t least,
                             double *bytes_s, fm_error *err);

/* --- what `tune` found, kept between runs ----------------------------------------------------- */

/* Zero means unknown, except prefetch: -1 unknown. */
typedef struct xp_tuning {
    double disk_bytes_s, memory_bytes_s;
    int threads; /* compute */
    int io_threads;
    int prefetch; /* experts a layer; 0 off */
} xp_tuning;

/* What is stored for this machine (CPU, kernel, disk that holds `path`); false, and *out all
 * unknown, when there is nothing or it was measured on another machine. */
bool xp_tuning_load(const char *path, xp_tuning *out);

/* Stored in $XDG_CONFIG_HOME/flash-moe/tune.json (or ~/.config/...). *where, when not NULL, gets
 * the file's name, to be freed with bs_free. */
fm_status xp_tuning_save(const char *path, const xp_tuning *tuning, char **where, fm_error *err);

#endif
