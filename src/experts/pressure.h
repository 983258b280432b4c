/* pressure.h - giving memory back when the machine runs out of it at run time.
 *
 * More cache past the point where the system reclaims costs five to ten times the speed. So about
 * once a second, between steps, the cache looks at the kernel's own signs: time lost to memory
 * stalls (PSI) together with major faults of this process or a cgroup limit that was hit. When they
 * say that memory is short, an eighth of the slots is given back, once; xp_stats.shrunk_slots says
 * so. */
#ifndef EXPERTS_PRESSURE_H
#define EXPERTS_PRESSURE_H

#include "experts/experts.h"

typedef struct xp_pressure {
    uint64_t next_look_ns;
    long major_faults;     /* of this process when last looked */
    uint64_t limit_events; /* memory.events: max + high, when last looked */
    bool started, done;
} xp_pressure;

/* "some avg10=1.23 avg60=..." -> 1.23 (percent of time in which something stalled); 0: unknown. */
double xp_pressure_parse_psi(const char *text);

/* Sum of the lines "high N" and "max N" of a cgroup's memory.events. */
uint64_t xp_pressure_parse_events(const char *text);

/* Look, if it is time; true when memory is short. */
bool xp_pressure_look(xp_pressure *p);

/* Give back about this share of the slots (never below top_k a layer); how many were. Their memory
 * returns to the system at once. Not while tickets are held. */
int xp_shrink(xp_cache *cache, double share);

#endif
