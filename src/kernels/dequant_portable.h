/* dequant_portable.h - dequant_span() for ISAs that have none of their own. */

typedef struct dequant_plan {
    char nothing;
} dequant_plan;

static dequant_plan dequant_plan_of(const kn_mat *m)
{
    (void)m;
    return (dequant_plan){0};
}

static void dequant_span(const dequant_plan *plan, const kn_mat *m, int row, int c0, int c1,
                         float *out)
{
    (void)plan;
    kn_dequant_span(m, row, c0, c1, out);
}
