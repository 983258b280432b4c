/* quantised.h - a new model folder whose experts have other codes than the source's: everything
 * else is copied, the experts go to a packed store in it. */
#ifndef CLI_QUANTISED_H
#define CLI_QUANTISED_H

#include "model/model.h"

typedef struct cli_quantise {
    const md_model *model;
    const char *from,
        *to; /* folders; `to` is made, or is what an interrupted run of the same left */
    int bits, group;
} cli_quantise;

/* Experts as they are and as they would be, in bytes. */
fm_status cli_quantise_sizes(const cli_quantise *q, uint64_t *now, uint64_t *then, fm_error *err);

fm_status cli_quantise_model(const cli_quantise *q, fm_error *err);

#endif
