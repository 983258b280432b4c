/* mlp.c - the dense feed-forward block: down(silu(gate x) * up x). Of r->work, a token: hidden,
 * scratch. */
#include "model/product.h"

void md_dense_mlp(md_run *r, int layer)
{
    const md_layer *l = &r->model->layers[layer];
    const md_weights *w = &l->w;
    size_t hidden = (size_t)r->model->config.hidden;
    const kn_mat *gate = &w->mat[MD_DENSE_GATE];
    kn_act act;
    md_prepare(r, &act, 0, r->h, hidden, r->n, (int)hidden, md_group_of(gate));
    md_item item = {.w = gate,
                    .up = &w->mat[MD_DENSE_UP],
                    .x = &act,
                    .bias = w->bias[MD_DENSE_GATE],
                    .up_bias = w->bias[MD_DENSE_UP],
                    .y = r->work,
                    .scratch = r->work + l->c->dense_width,
                    .y_stride = r->work_width,
                    .t1 = r->n};
    md_run_items(r, &item, 1);
    md_product down = {&w->mat[MD_DENSE_DOWN], w->bias[MD_DENSE_DOWN], r->y, hidden, false};
    md_products(r, r->work, r->work_width, r->n, &down, 1);
}
