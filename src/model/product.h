/* product.h - matrix products of a layer as one job of the pool.
 *
 * A job is a list of items; each item is one matrix (or a gate and its up projection) applied to
 * some tokens. The rows of all items are cut into tasks of about equal work, so that many small
 * products (the experts of a token) cost one barrier. How the rows are cut changes no bits. */
#ifndef MODEL_PRODUCT_H
#define MODEL_PRODUCT_H

#include "model/inside.h"

struct md_item {
    const kn_mat *w;             /* y = w x */
    const kn_mat *up;            /* given: y = silu(w x) * (up x), or the clamped form */
    const kn_act *x;             /* tokens [t0, t1) of it */
    const float *bias, *up_bias; /* [rows] or NULL */
    float *y, *scratch;          /* token t at y + t * y_stride; scratch: the same for up x */
    size_t y_stride;
    int t0, t1;
    int first_task, rows_each; /* filled in by md_run_items */
};

void md_run_items(md_run *r, md_item *items, int n);

/* Prepare x for products with matrices of a group size, in scratch area 0 or 1 of the run. */
void md_prepare(md_run *r, kn_act *a, int area, const float *x, size_t stride, int n, int cols,
                int group);

/* Products of one x with several matrices; those without rows are skipped. */
typedef struct md_product {
    const kn_mat *w;
    const float *bias;
    float *y;
    size_t y_stride;
    bool exact; /* float32 activations at every precision: for small matrices that steer */
} md_product;

enum { MD_MAX_PRODUCTS = 8 };

void md_products(md_run *r, const float *x, size_t stride, int n, const md_product *p, int count);

/* The group a prepared x must have for this matrix; MD_EXACT_GROUP fits none, and a product whose
 * x was prepared for another group is computed in float32. */
enum { MD_EXACT_GROUP = 0 };
int md_group_of(const kn_mat *w);

#endif
