/* small_avx512.h - integer products of two to sixteen vectors, as when few sequences decode
 * together, SMALL_TOKENS at a time: bound by reading weights, but for their multiplications.
 *
 * The one-vector kernel for several: codes of four rows are taken apart once and stay in registers
 * while every token is multiplied with them. A panel (gemm_avx512.h) is not worth its turning
 * here. */

enum { SMALL_TOKENS = 8, SMALL_SUMS = 64, JOIN_TOKENS = 2 };

/* With more vectors the panel is faster; it is with fewer where rows are long. */
static inline int small_batch(const kn_mat *w)
{
    enum { LONG_ROW = 2048 };
    return w->cols > LONG_ROW ? SMALL_TOKENS : 2 * SMALL_TOKENS;
}

/* The sums of sixteen rows: [chunk * tokens + token][k] as turn_sums() takes them. */
typedef __m512i small_sums[SMALL_SUMS][4];

/* The tokens of a product: their records and how far they lie apart. */
typedef struct records {
    const char *first;
    const kn_act_layout *layout;
    int n;
} records;

/* Four rows at a time: their codes lie side by side, so memory is read nearly in order. They are
 * taken apart once for all tokens. */
INLINE void small_four_rows(const uint8_t *const *rows, int k, int n_chunks, int bytes, int bits,
                            const unpacker *u, const char *x, const records *tokens,
                            const char **next, __m512i (*out)[4])
{
    int at = 0;
    for (int c = 0; c < n_chunks; c++, x += X_CHUNK_BYTES) {
        __m512i a[4], b[4];
        present there = present_of(bytes - c * 16 * bits, bits);
        UNROLL for (int i = 0; i < 4; i++)
        {
            const uint8_t *codes = rows[i] + (size_t)c * 16 * (size_t)bits;
            unpack_chunk(codes, there, bits, u, &a[i], &b[i]);
        }
        const char *token = x;
        for (int t = 0; t < tokens->n; t++, at++, token += tokens->layout->bytes) {
            __m512i xa[2], xb[2], v[4];
            load_x(token, xa, xb);
            UNROLL for (int i = 0; i < 4; i++) v[i] = row_sum(a[i], b[i], xa, xb);
            out[at][k] = sum_lanes(v[0], v[1], v[2], v[3]);
        }
        fetch(next, 3 * 16 * bits);
    }
}

/* Add the groups of the chunks [c, end) of a block for `n` tokens from t on, side by side because
 * each is one chain of additions. g0: the block's first group, scales: from chunk c on. */
INLINE void join_tokens(__m512 *totals, const small_sums s, int c, int end, int t, int n, int g0,
                        const records *tokens, const turned *scales, int group)
{
    int per_chunk = CHUNK / group;
    const kn_act_layout *layout = tokens->layout;
    const char *record = tokens->first + (size_t)t * layout->bytes;
    __m512 total[JOIN_TOKENS];
    UNROLL for (int i = 0; i < n; i++) total[i] = totals[t + i];
    for (int g = g0 + c * per_chunk, k = 0; c < end; c++, g += per_chunk, k += per_chunk) {
        UNROLL for (int i = 0; i < n; i++)
        {
            const char *at = record + (size_t)i * layout->bytes;
            const float *step = (const float *)(const void *)at;
            const float *sum = (const float *)(const void *)(at + layout->sum);
            __m512i sums[4];
            turn_sums(s[c * tokens->n + t + i], sums);
            total[i] = chunk_groups(total[i], sums, group, layout->groups - g, scales->scale + k,
                                    scales->bias + k, step + g, sum + g);
        }
    }
    UNROLL for (int i = 0; i < n; i++) totals[t + i] = total[i];
}

/* Sixteen rows for all tokens. */
INLINE void small_vector_rows(float *y, size_t y_stride, const kn_mat *w, const unpacker *u,
                              int row, int n_rows, const records *tokens, int bits)
{
    const kn_act_layout *layout = tokens->layout;
    const char *x = tokens->first + layout->codes;
    int last = row + n_rows - 1, block = SMALL_SUMS / tokens->n;
    int turn = turned_groups(w) * w->group / CHUNK; /* chunks whose scales are turned at a time */
    /* Codes are read by software prefetch, steadily: a quarter of them while sums are joined. */
    const char *next = (const char *)w->w + (size_t)row * w->row_bytes + ahead_bytes(w);
    __m512 totals[SMALL_TOKENS];
    turned scales;
    small_sums s;
    for (int t = 0; t < tokens->n; t++) totals[t] = _mm512_setzero_ps();
    for (int c = 0; c < w->cols; c += block * CHUNK, x += block * X_CHUNK_BYTES) {
        int n_chunks = (w->cols - c + CHUNK - 1) / CHUNK, bytes = (w->cols - c) * bits / 8;
        if (n_chunks > block) n_chunks = block;
        for (int k = 0; k < 4; k++) {
            const uint8_t *rows[4];
            for (int i = 0; i < 4; i++) {
                int r = row + 4 * k + i < last ? row + 4 * k + i : last;
                rows[i] = (const uint8_t *)w->w + (size_t)r * w->row_bytes + c * bits / 8;
            }
            small_four_rows(rows, k, n_chunks, bytes, bits, u, x, tokens, &next, s);
        }
        for (int i = 0, g0 = c / w->group; i < n_chunks; i += turn) {
            int g = g0 + i * CHUNK / w->group, left = layout->groups - g;
            int end = n_chunks - i < turn ? n_chunks : i + turn, t = 0;
            turn_scales(w, row, last, g, left < turned_groups(w) ? left : turned_groups(w), &scales,
                        0);
            for (; t + JOIN_TOKENS <= tokens->n; t += JOIN_TOKENS)
                join_tokens(totals, s, i, end, t, JOIN_TOKENS, g0, tokens, &scales, w->group);
            for (; t < tokens->n; t++)
                join_tokens(totals, s, i, end, t, 1, g0, tokens, &scales, w->group);
            fetch(&next, 4 * 16 * bits * (end - i));
        }
    }
    for (int t = 0; t < tokens->n; t++)
        _mm512_mask_storeu_ps(y + (size_t)t * y_stride + row, v_mask(n_rows), totals[t]);
}

static void small_rows(float *y, size_t y_stride, const kn_mat *w, const unpacker *u, int row,
                       int n_rows, const records *tokens)
{
    switch (w->bits) {
    case 2: small_vector_rows(y, y_stride, w, u, row, n_rows, tokens, 2); return;
    case 3: small_vector_rows(y, y_stride, w, u, row, n_rows, tokens, 3); return;
    case 4: small_vector_rows(y, y_stride, w, u, row, n_rows, tokens, 4); return;
    case 5: small_vector_rows(y, y_stride, w, u, row, n_rows, tokens, 5); return;
    case 6: small_vector_rows(y, y_stride, w, u, row, n_rows, tokens, 6); return;
    default: small_vector_rows(y, y_stride, w, u, row, n_rows, tokens, 8);
    }
}

static void small_integer(float *y, size_t y_stride, const kn_mat *w, const kn_act *a, int row0,
                          int row1, int t0, int t1)
{
    kn_act_layout layout = kn_act_layout_of(a);
    unpacker u = unpacker_of(w->bits);
    for (int r = row0; r < row1; r += ROWS)
        for (int t = t0; t < t1; t += SMALL_TOKENS) {
            const char *first = (const char *)a->prepared + (size_t)t * layout.bytes;
            records tokens = {first, &layout, t1 - t < SMALL_TOKENS ? t1 - t : SMALL_TOKENS};
            small_rows(y + (size_t)t * y_stride, y_stride, w, &u, r,
                       row1 - r < ROWS ? row1 - r : ROWS, &tokens);
        }
}
