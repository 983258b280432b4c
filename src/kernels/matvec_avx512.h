/* matvec_avx512.h - float32 products with one vector: codes become floats in registers and are
 * multiplied at once. VEC_ROWS rows side by side share the loads of x. */

enum { VEC_ROWS = 8 };

/* Eight rows on their way through the columns. */
typedef struct row_set {
    const kn_mat *m;
    const taker *t;
    const uint8_t *w[VEC_ROWS];
    int index[VEC_ROWS]; /* row numbers; the last repeats where rows are missing */
    float scale[VEC_ROWS][SPAN_GROUPS], bias[VEC_ROWS][SPAN_GROUPS];
} row_set;

static void begin_rows(row_set *s, const kn_mat *m, const taker *t, int row, int n_rows)
{
    s->m = m;
    s->t = t;
    for (int r = 0; r < VEC_ROWS; r++) {
        s->index[r] = row + (r < n_rows ? r : n_rows - 1);
        s->w[r] = (const uint8_t *)m->w + (size_t)s->index[r] * m->row_bytes;
    }
}

/* sum[r] += row r times x over n_chunks chunks of 64 columns from column c on, with `per` groups a
 * chunk (1: the group is 64 or wider). */
INLINE void chunks(kind kind, int per, const row_set *s, int c, int n_chunks, const float *x,
                   v16 *sum)
{
    int bits = bits_of(s->m), chunk_bytes = 8 * bits;
    int shift = per == 1 && kn_group_of(s->m) == 128;
    v16 total[VEC_ROWS];
    const taker t = *s->t;
    const char *ahead = (const char *)s->w[0] + s->m->row_bytes * VEC_ROWS;
    UNROLL for (int r = 0; r < VEC_ROWS; r++) total[r] = sum[r];
    for (int i = 0; i < n_chunks; i++) {
        size_t offset = (size_t)(c / 64 + i) * (size_t)chunk_bytes;
        const char *next = ahead + offset * VEC_ROWS;
        for (int b = 0; b < chunk_bytes * VEC_ROWS; b += 64) _mm_prefetch(next + b, _MM_HINT_T0);
        v16 v[4];
        UNROLL for (int k = 0; k < 4; k++) v[k] = v_load(x + c + 64 * i + 16 * k);
        UNROLL for (int r = 0; r < VEC_ROWS; r++)
        {
            const uint8_t *p = s->w[r] + offset;
            const float *scale = s->scale[r] + (i * per >> shift),
                        *bias = s->bias[r] + (i * per >> shift);
            __m512i chunk =
                kind == LUT || kind == WIDE ? load_bytes(p, chunk_bytes) : _mm512_setzero_si512();
            group_values g = begin_group(kind, &t, scale[0], bias[0]);
            UNROLL for (int k = 0; k < 4; k++)
            {
                if (k && per == 4) g = begin_group(kind, &t, scale[k], bias[k]);
                if (k == 2 && per == 2) g = begin_group(kind, &t, scale[1], bias[1]);
                total[r] = v_fma(take(kind, &t, p, chunk, k, g), v[k], total[r]);
            }
        }
    }
    UNROLL for (int r = 0; r < VEC_ROWS; r++) sum[r] = total[r];
}

INLINE void codes_rows(kind kind, float *y, row_set *s, int n_rows, const float *x)
{
    const kn_mat *m = s->m;
    int group = kn_group_of(m);
    v16 sum[VEC_ROWS];
    for (int r = 0; r < VEC_ROWS; r++) sum[r] = v_zero();
    for (int c = 0; c < m->cols; c += SPAN) {
        int n = m->cols - c < SPAN ? m->cols - c : SPAN, whole = n / 64;
        for (int r = 0; r < VEC_ROWS; r++)
            row_scales(m, s->index[r], c / group, (n + group - 1) / group, s->scale[r], s->bias[r]);
        if (group >= 64) chunks(kind, 1, s, c, whole, x, sum);
        else if (group == 32) chunks(kind, 2, s, c, whole, x, sum);
        else chunks(kind, 4, s, c, whole, x, sum);
        if (n % 64 == 0) continue;
        for (int r = 0; r < VEC_ROWS; r++) { /* the row's end, by way of memory */
            float w[64];
            dequant_codes(kind, m, s->t, s->index[r], c + 64 * whole, c + n, w);
            for (int i = 0; i < n % 64; i += 16)
                sum[r] = v_fma(v_load(w + i), v_load(x + c + 64 * whole + i), sum[r]);
        }
    }
    for (int r = 0; r < n_rows; r++) y[s->index[r]] = v_sum(sum[r]);
}

INLINE void floats_rows(kn_format format, float *y, const kn_mat *m, int row, int n_rows,
                        const float *x)
{
    size_t width = format == KN_F32 ? 4 : 2;
    const char *w[VEC_ROWS];
    v16 sum[VEC_ROWS];
    for (int r = 0; r < VEC_ROWS; r++) {
        w[r] = (const char *)m->w + (size_t)(row + (r < n_rows ? r : n_rows - 1)) * m->row_bytes;
        sum[r] = v_zero();
    }
    int c = 0;
    for (; c + 16 <= m->cols; c += 16) {
        v16 v = v_load(x + c);
        UNROLL for (int r = 0; r < VEC_ROWS; r++)
        {
            const char *p = w[r] + (size_t)c * width;
            v16 a = format == KN_F32   ? _mm512_loadu_ps(p)
                    : format == KN_F16 ? v_load_f16(p)
                                       : v_load_bf16(p);
            sum[r] = v_fma(a, v, sum[r]);
        }
    }
    for (int r = 0; r < n_rows; r++) {
        if (c < m->cols) {
            float tail[16] = {0};
            dequant_floats(m, (const uint8_t *)w[r], c, m->cols, tail);
            sum[r] = v_fma(v_load(tail), v_load_n(x + c, m->cols - c), sum[r]);
        }
        y[row + r] = v_sum(sum[r]);
    }
}

static void matvec_f32(float *y, const kn_mat *m, const float *x, int row0, int row1)
{
    dequant_plan plan = dequant_plan_of(m);
    row_set s;
    for (int row = row0; row < row1; row += VEC_ROWS) {
        int n = row1 - row < VEC_ROWS ? row1 - row : VEC_ROWS;
        begin_rows(&s, m, &plan.taker, row, n);
        if (m->format == KN_F32) floats_rows(KN_F32, y, m, row, n, x);
        else if (m->format == KN_F16) floats_rows(KN_F16, y, m, row, n, x);
        else if (m->format == KN_BF16) floats_rows(KN_BF16, y, m, row, n, x);
        else if (plan.kind == LUT) codes_rows(LUT, y, &s, n, x);
        else if (plan.kind == LUT4) codes_rows(LUT4, y, &s, n, x);
        else if (plan.kind == FP4) codes_rows(FP4, y, &s, n, x);
        else if (plan.kind == WIDE) codes_rows(WIDE, y, &s, n, x);
        else codes_rows(FP8, y, &s, n, x);
    }
}
