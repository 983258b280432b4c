/* resident.h - the part of a checkpoint that is no expert: which tensors, and a copy of them beside
 * a packed store that holds the rest. */
#ifndef CLI_RESIDENT_H
#define CLI_RESIDENT_H

#include "model/model.h"

/* flag[i]: tensor i of md_store (ts_at) holds experts. The caller frees it with bs_free; NULL: out
 * of memory. */
bool *cli_expert_tensors(const md_model *model);

/* Does a file of the store hold anything else? */
bool cli_has_resident(const md_model *model, const bool *is_expert, int file);

/* Copy what else it holds to `to`. from: where the file's contents lie now. */
fm_status cli_copy_resident(const md_model *model, const bool *is_expert, int file,
                            const char *from, const char *to, fm_error *err);

/* The place of one part of an expert. */
xp_range cli_part_place(const xp_part *part, int expert);

#endif
