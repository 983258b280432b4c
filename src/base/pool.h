/* pool.h - the compute thread pool. One pool runs one job at a time; the calling thread works too.
 *
 * A job is n_tasks calls of fn(arg, index, worker), each index once, in any order and on any
 * worker (0 <= worker < threads; worker 0 is the caller). Results must not depend on which worker
 * ran what: that is how output bits stay independent of --threads. Idle workers spin for a
 * moment, then sleep: between requests they use no CPU. */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include "base/error.h"

typedef struct bs_pool bs_pool;
typedef void bs_task(void *arg, int index, int worker);

/* threads >= 1 counts the caller. */
fm_status bs_pool_create(int threads, bs_pool **out, fm_error *err);
void bs_pool_destroy(bs_pool *pool);
int bs_pool_threads(const bs_pool *pool);

/* Run the job and return when all tasks are done. pool may be NULL: the caller does it all. Not
 * reentrant: a task must not run a job on its own pool. */
void bs_pool_run(bs_pool *pool, bs_task *fn, void *arg, int n_tasks);

/* Physical cores this process may use: affinity, SMT siblings and the cgroup's CPU quota counted.
 */
int bs_default_threads(void);

#endif
