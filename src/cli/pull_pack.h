/* pull_pack.h - packing a model while it is downloaded, without ever holding it twice.
 *
 * The headers of all shards are fetched first: they tell where every expert lies. Then shard by
 * shard: what is no expert is copied to a small safetensors file, each MoE layer whose shards are
 * all there is packed, and a shard that has nothing left to give is deleted. What results is a
 * model folder that runs from its packed store alone. Killed at any moment it goes on from there.
 */
#ifndef CLI_PULL_PACK_H
#define CLI_PULL_PACK_H

#include "hub/hub.h"

typedef struct cli_packer cli_packer;

/* config and survey are borrowed until cli_packer_close. */
fm_status cli_packer_open(const hb_config *config, const hb_survey *survey, const hb_hooks *hooks,
                          cli_packer **out, fm_error *err);
void cli_packer_close(cli_packer *p);

/* The folder that results. */
const char *cli_packer_folder(const cli_packer *p);

/* For hb_pull. */
hb_sink cli_packer_sink(cli_packer *p);

/* After hb_pull: close the store and put the small files beside it. */
fm_status cli_packer_finish(cli_packer *p, fm_error *err);

#endif
