/* layout.h - from (layer, expert) to the byte ranges that hold it, and to places in a slot.
 *
 * Direct reads need block-aligned offsets, lengths and memory, and checkpoints are not aligned. So
 * each range is widened to whole blocks, and a section starts inside its slot where it starts
 * inside its first block. Ranges that touch (a packed record, tensors stored side by side) become
 * one read. All of it is arithmetic on the xp_layer: nothing is stored an expert. */
#ifndef EXPERTS_LAYOUT_H
#define EXPERTS_LAYOUT_H

#include "experts/experts.h"

enum {
    XP_BLOCK = 4096, /* a multiple of every logical block size in use */
    XP_MAX_READS = XP_PROJECTIONS * XP_PARTS,
};

/* One read. offset and bytes are multiples of XP_BLOCK; the file must hold `need` bytes from offset
 * on: what is missing after them is padding beyond the end of the file. */
typedef struct xp_range_read {
    int file;
    uint64_t offset;
    size_t bytes, need;
    size_t at; /* where in the slot, a multiple of XP_BLOCK */
} xp_range_read;

typedef struct xp_placement {
    int n_reads;
    xp_range_read read[XP_MAX_READS];
    size_t at[XP_PROJECTIONS][XP_PARTS]; /* start of each part in the slot */
    size_t float_bias[XP_PROJECTIONS];   /* room for the Linear bias as aligned float32 */
    size_t bytes;                        /* of the whole slot */
} xp_placement;

void xp_place(const xp_layer *layer, int expert, xp_placement *out);

/* The expert as views into its slot. Converts Linear biases in place (idempotent). */
void xp_view(const xp_layer *layer, int expert, char *slot, xp_expert *out);

/* Slot size that holds any expert of the layer: exact for packed records; otherwise a bound that is
 * the same for layers of the same shapes, so that they can lend slots to each other. */
size_t xp_layer_slot_bytes(const xp_layer *layer);

/* Refuse parts that lie outside of their files, and impossible counts. */
fm_status xp_check_source(const xp_source *source, fm_error *err);

#endif
