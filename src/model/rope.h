/* rope.h - rotary positions: reading the config's two places, and the tables. */
#ifndef MODEL_ROPE_H
#define MODEL_ROPE_H

#include "model/config.h"
#include "model/fields.h"

/* Fill c->rope, and fold what a scaling does to MLA's softmax into c->attention_scale. Fields may
 * stand at the top level, in rope_scaling or in rope_parameters. */
void md_rope_read(md_arch *c, md_fields *f);

/* The angle a position adds to pair i, for i < r->dims / 2. */
void md_rope_frequencies(const md_rope_config *r, double *out);

/* cos and sin [dims / 2] of a position, times the scaling's factor. */
void md_rope_angles(const md_rope_config *r, const double *frequencies, int position,
                    float *cos_out, float *sin_out);

#endif
