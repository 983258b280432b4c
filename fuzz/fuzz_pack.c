/* A layer as the manifest of a packed store describes it. What is accepted must be safe to multiply
 * with: all that a product reads lies in the record. */
#include "experts/layout.h"
#include "experts/pack_format.h"

#include "base/mem.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MOST_BYTES = 1 << 20, MOST_COLS = 8192 };

static void multiply(const kn_mat *m)
{
    static float x[MOST_COLS], row[MOST_COLS];
    if (m->cols > MOST_COLS) return;
    kn_dequant_row(m, m->rows - 1, row);
    int first = m->rows > KN_STRIP_ROWS ? (m->rows - 1) / KN_STRIP_ROWS * KN_STRIP_ROWS : 0;
    float *y = bs_calloc((size_t)m->rows, sizeof *y);
    void *scratch = bs_malloc(kn_act_bytes(1, m->cols));
    if (y && scratch) {
        kn_act a;
        kn_act_init(&a, kn_isa_best(), x, MOST_COLS, 1, m->cols, m->group, KN_PRECISION_FAST,
                    scratch);
        kn_act_prepare(&a, 0, 1);
        kn_matmul(y, (size_t)m->rows, m, &a, first, m->rows, 0, 1);
    }
    bs_free(y);
    bs_free(scratch);
}

static void use(const xp_layer *shape)
{
    size_t at[XP_PROJECTIONS][XP_PARTS];
    xp_layer layer;
    xp_expert view;
    if (xp_record_layout(shape, at) > MOST_BYTES) return;
    xp_pack_packed_layer(shape, 0, &layer);
    char *slot = bs_calloc(xp_layer_slot_bytes(&layer), 1);
    if (!slot) return;
    xp_view(&layer, 0, slot, &view);
    for (int p = 0; p < XP_PROJECTIONS; p++) multiply(&view.m[p]);
    bs_free(slot);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *o = json_loadb((const char *)data, size, 0, NULL);
    xp_layer layer;
    if (o && !xp_pack_parse_layer(o, "manifest", &layer, NULL)) use(&layer);
    json_decref(o);
    return 0;
}
