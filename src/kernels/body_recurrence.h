/* body_recurrence.h - one token's step of the convolution, the delta rule and the two Mambas. */

static void conv_step(float *out, const float *in, float *state, const float *w, const float *bias,
                      int channels, int kc, int c0, int c1)
{
    for (int c = c0; c < c1; c += 16) {
        int m = c1 - c < 16 ? c1 - c : 16;
        v16 x = v_load_n(in + c, m);
        v16 sum = bias ? v_load_n(bias + c, m) : v_zero();
        for (int j = 0; j < kc; j++) {
            float tap[16] = {0}, *row = state + (size_t)j * (size_t)channels + c;
            for (int l = 0; l < m; l++) tap[l] = w[(size_t)(c + l) * (size_t)kc + (size_t)j];
            v16 past = j + 1 < kc ? v_load_n(row, m) : x;
            sum = v_fma(v_load(tap), past, sum);
            if (j > 0) v_store_n(row - channels, past, m);
        }
        v_store_n(out + c, v_silu(sum), m);
    }
}

/* row <- decay * row; returns row . k */
static float decay_dot(float *row, const float *k, v16 decay, int n)
{
    v16 sum = v_zero();
    FOR_LANES(n)
    {
        v16 s = v_mul(decay, v_load_n(row + i, m));
        v_store_n(row + i, s, m);
        sum = v_fma(s, v_load_n(k + i, m), sum);
    }
    return v_sum(sum);
}

/* row <- row + a * k; returns row . q */
static float update_dot(float *row, float a, const float *k, const float *q, int n)
{
    v16 sum = v_zero(), va = v_set1(a);
    FOR_LANES(n)
    {
        v16 s = v_fma(va, v_load_n(k + i, m), v_load_n(row + i, m));
        v_store_n(row + i, s, m);
        sum = v_fma(s, v_load_n(q + i, m), sum);
    }
    return v_sum(sum);
}

/* A state is read from memory once a token: it is fetched this many floats ahead. */
enum { STATE_AHEAD = 1024 };

static void delta_step(float *out, float *S, const float *q, const float *k, const float *v,
                       float decay, float beta, int dk, int dv)
{
    v16 vdecay = v_set1(decay);
    for (int r = 0; r < dv; r++) {
        float *row = S + (size_t)r * (size_t)dk;
        for (int i = 0; i < dk; i += 16) __builtin_prefetch(row + STATE_AHEAD + i, 1);
        float known = decay_dot(row, k, vdecay, dk);
        out[r] = update_dot(row, (v[r] - known) * beta, k, q, dk);
    }
}

static void mamba1_step(float *out, float *S, const float *x, const float *dt, const float *A,
                        const float *B, const float *C, const float *D, int ds, int c0, int c1)
{
    for (int d = c0; d < c1; d++) {
        size_t at = (size_t)d * (size_t)ds;
        v16 step = v_set1(dt[d]), input = v_set1(dt[d] * x[d]), sum = v_zero();
        FOR_LANES(ds)
        {
            float *s = S + at + i;
            v16 kept = v_mul(v_exp(v_mul(step, v_load_n(A + at + i, m))), v_load_n(s, m));
            v16 now = v_fma(input, v_load_n(B + i, m), kept);
            v_store_n(s, now, m);
            sum = v_fma(v_load_n(s, m), v_load_n(C + i, m), sum);
        }
        out[d] = fmaf(D[d], x[d], v_sum(sum));
    }
}

static void mamba2_step(float *out, float *S, const float *x, const float *B, const float *C,
                        float decay, float dt, float D, int dh, int n)
{
    v16 vdecay = v_set1(decay);
    for (int r = 0; r < dh; r++) {
        float *row = S + (size_t)r * (size_t)n;
        v16 sum = v_zero(), input = v_set1(dt * x[r]);
        FOR_LANES(n)
        {
            v16 s = v_fma(input, v_load_n(B + i, m), v_mul(vdecay, v_load_n(row + i, m)));
            v_store_n(row + i, s, m);
            sum = v_fma(s, v_load_n(C + i, m), sum);
        }
        out[r] = fmaf(D, x[r], v_sum(sum));
    }
}
