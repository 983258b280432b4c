/* body_vector.h - element-wise functions, norms, softmax, rope over sixteen lanes. Included once by
 * each table_<isa>.c. Loops run whole lanes first, then one padded tail. */

/* Run `statement` for every block of lanes: i is its first element, m how many are real. */
#define FOR_LANES(n) for (int i = 0, m; m = (n)-i < 16 ? (n)-i : 16, i < (n); i += 16)

static float dot(const float *a, const float *b, int n)
{
    v16 sum = v_zero();
    int i = 0;
    for (; i + 16 <= n; i += 16) sum = v_fma(v_load(a + i), v_load(b + i), sum);
    if (i < n) sum = v_fma(v_load_n(a + i, n - i), v_load_n(b + i, n - i), sum);
    return v_sum(sum);
}

static void axpy(float *y, float a, const float *x, int n)
{
    v16 va = v_set1(a);
    FOR_LANES(n) v_store_n(y + i, v_fma(va, v_load_n(x + i, m), v_load_n(y + i, m)), m);
}

static void scale(float *y, float a, int n)
{
    v16 va = v_set1(a);
    FOR_LANES(n) v_store_n(y + i, v_mul(va, v_load_n(y + i, m)), m);
}

static void add(float *y, const float *x, int n)
{
    FOR_LANES(n) v_store_n(y + i, v_add(v_load_n(y + i, m), v_load_n(x + i, m)), m);
}

static void mul(float *y, const float *x, int n)
{
    FOR_LANES(n) v_store_n(y + i, v_mul(v_load_n(y + i, m), v_load_n(x + i, m)), m);
}

static void rms_norm(float *y, const float *x, const float *w, int n, float eps)
{
    v16 r = v_set1(1.0f / sqrtf(dot(x, x, n) / (float)n + eps));
    FOR_LANES(n)
    {
        v16 t = v_mul(v_load_n(x + i, m), r);
        v_store_n(y + i, w ? v_mul(v_load_n(w + i, m), t) : t, m);
    }
}

static void layer_norm(float *y, const float *x, const float *w, const float *b, int n, float eps)
{
    v16 sum = v_zero(), squares = v_zero();
    FOR_LANES(n) sum = v_add(sum, v_load_n(x + i, m));
    v16 mean = v_set1(v_sum(sum) / (float)n);
    FOR_LANES(n)
    {
        /* Pad with the mean so that the tail adds zeros. */
        float padded[16];
        v_store(padded, mean);
        v_store_n(padded, v_load_n(x + i, m), m);
        v16 d = v_sub(v_load(padded), mean);
        squares = v_fma(d, d, squares);
    }
    v16 r = v_set1(1.0f / sqrtf(v_sum(squares) / (float)n + eps));
    FOR_LANES(n)
    {
        v16 t = v_mul(v_sub(v_load_n(x + i, m), mean), r);
        if (w) t = v_mul(v_load_n(w + i, m), t);
        if (b) t = v_add(v_load_n(b + i, m), t);
        v_store_n(y + i, t, m);
    }
}

/* exp(x - max) in place of x; returns their sum. */
static float exp_below(float *x, int n, float max)
{
    v16 vmax = v_set1(max), sum = v_zero();
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        v16 e = v_exp(v_sub(v_load(x + i), vmax));
        v_store(x + i, e);
        sum = v_add(sum, e);
    }
    if (i < n) {
        v_store_n(x + i, v_exp(v_sub(v_load_n(x + i, n - i), vmax)), n - i);
        sum = v_add(sum, v_load_n(x + i, n - i));
    }
    return v_sum(sum);
}

static float highest(const float *x, int n)
{
    v16 best = v_set1(x[0]);
    int i = 0;
    for (; i + 16 <= n; i += 16) best = v_max(best, v_load(x + i));
    float max = v_highest(best);
    for (; i < n; i++) max = max > x[i] ? max : x[i];
    return max;
}

static void softmax(float *x, int n)
{
    if (n <= 0) return;
    float sum = exp_below(x, n, highest(x, n));
    scale(x, 1.0f / sum, n);
}

static void sigmoid(float *y, const float *x, int n)
{
    FOR_LANES(n) v_store_n(y + i, v_sigmoid(v_load_n(x + i, m)), m);
}

static void silu_mul(float *y, const float *gate, const float *up, int n)
{
    FOR_LANES(n) v_store_n(y + i, v_mul(v_silu(v_load_n(gate + i, m)), v_load_n(up + i, m)), m);
}

static void swiglu_clamped(float *y, const float *gate, const float *up, int n, float alpha,
                           float limit)
{
    v16 high = v_set1(limit), low = v_set1(-limit), one = v_set1(1), va = v_set1(alpha);
    FOR_LANES(n)
    {
        v16 g = v_min(high, v_load_n(gate + i, m));
        v16 u = v_max(low, v_min(high, v_load_n(up + i, m)));
        v16 t = v_mul(g, v_sigmoid(v_mul(va, g)));
        v_store_n(y + i, v_mul(v_add(u, one), t), m);
    }
}

static void gelu_mul(float *y, const float *gate, const float *up, int n)
{
    v16 half = v_set1(0.5f), one = v_set1(1), c = v_set1(0.044715f), root = v_set1(0.79788456f);
    FOR_LANES(n)
    {
        v16 g = v_load_n(gate + i, m);
        v16 inner = v_fma(v_mul(c, v_mul(g, g)), g, g);
        v16 t = v_add(one, v_tanh(v_mul(root, inner)));
        v_store_n(y + i, v_mul(v_mul(v_mul(half, g), t), v_load_n(up + i, m)), m);
    }
}

static void rope(float *x, const float *cos, const float *sin, int dims, kn_rope_layout layout)
{
    int half = dims / 2;
    if (layout == KN_ROPE_INTERLEAVED) {
        for (int i = 0; i < half; i++) {
            float a = x[2 * i], b = x[2 * i + 1];
            x[2 * i] = a * cos[i] - b * sin[i];
            x[2 * i + 1] = a * sin[i] + b * cos[i];
        }
        return;
    }
    FOR_LANES(half)
    {
        v16 a = v_load_n(x + i, m), b = v_load_n(x + half + i, m);
        v16 c = v_load_n(cos + i, m), s = v_load_n(sin + i, m);
        v_store_n(x + i, v_sub(v_mul(a, c), v_mul(b, s)), m);
        v_store_n(x + half + i, v_add(v_mul(a, s), v_mul(b, c)), m);
    }
}
