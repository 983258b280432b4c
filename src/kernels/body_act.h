/* body_act.h - activations as 16-bit integers a group; the numbers are the same on every ISA, their
 * arrangement (store_codes) is not. See quant.h. */

static void prepare_group(const float *x, int n, float *step, float *sum, float *codes)
{
    v16 top = v_zero(), broken = v_zero();
    for (int i = 0; i < n; i += 16) {
        v16 v = v_load(x + i);
        top = v_max(v_abs(v), top);
        broken = v_add(broken, v_sub(v, v)); /* 0, or NaN where v is not finite */
    }
    float max = v_highest(top), bad = v_sum(broken);
    bool usable = bad == 0 && max > 0x1p-100f;
    v16 inverse = v_set1(usable ? (float)KN_ACT_MAX / max : 0), total = v_zero();
    *step = usable ? max / (float)KN_ACT_MAX : bad;
    for (int i = 0; i < n; i += 16) {
        v16 c = usable ? v_round(v_mul(v_load(x + i), inverse)) : v_zero();
        c = v_max(v_set1(-KN_ACT_MAX), v_min(v_set1(KN_ACT_MAX), c));
        total = v_add(total, c);
        v_store(codes + i, c);
    }
    *sum = *step * v_sum(total);
}

static void act_prepare(const kn_act *a, int t0, int t1)
{
    kn_act_layout layout = kn_act_layout_of(a);
    for (int t = t0; t < t1; t++) {
        char *record = (char *)a->prepared + (size_t)t * layout.bytes;
        const float *x = a->x + (size_t)t * a->stride;
        float *step = (float *)record, *sum = (float *)(record + layout.sum), codes[128];
        if (layout.padded_cols > layout.groups * a->group)
            memset(record + layout.codes, 0, layout.bytes - layout.codes);
        for (int g = 0; g < layout.groups; g++) {
            prepare_group(x + g * a->group, a->group, &step[g], &sum[g], codes);
            store_codes(record + layout.codes, g * a->group, codes, a->group);
        }
    }
}

/* Vectors that share what is unpacked: of the first one its integers, and what its first group is
 * worth; `record` bytes from vector to vector. */
typedef struct some_x {
    const char *codes, *step, *sum;
    size_t record;
} some_x;

/* From token t on. */
static inline some_x some_x_of(const kn_act *a, const kn_act_layout *layout, int t)
{
    const char *record = (const char *)a->prepared + (size_t)t * layout->bytes;
    return (some_x){record + layout->codes, record, record + layout->sum, layout->bytes};
}

/* Vector j's step or sum of group g. */
static inline float of_group(const char *first, const some_x *x, int j, int g)
{
    float v;
    memcpy(&v, first + (size_t)j * x->record + (size_t)g * sizeof v, sizeof v);
    return v;
}
