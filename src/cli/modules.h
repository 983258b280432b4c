/* modules.h - the modules of a model, those that differ in the layer number alone and are stored
 * alike taken together. */
#ifndef CLI_MODULES_H
#define CLI_MODULES_H

#include "model/model.h"

typedef struct cli_module {
    char pattern[160]; /* "model.layers.*.mlp.gate" */
    char format[64];   /* "affine 4 bit, group 64, bf16" */
    int bits, group;
    int64_t shape[3];
    int n_dims, times;
    uint64_t bytes; /* of all of them together */
} cli_module;

typedef struct cli_modules {
    cli_module *module;
    size_t n;
} cli_modules;

fm_status cli_modules_list(const md_model *model, cli_modules *out, fm_error *err);
void cli_modules_free(cli_modules *m);

#endif
