/* gemm_words_avx2.h - a panel times many vectors with 16-bit multiplications: all but four-bit
 * codes. */

/* upper[r], lower[r] += n word pairs from pair `first` of a chunk on. */
INLINE void words(const panel *p, int chunk, int first, int n, const char *x, __m256i *upper,
                  __m256i *lower)
{
    const char *at = x + X_WORDS + first * 4;
    const __m256i *w0 = p->codes[0] + chunk * CHUNK_VECTORS + first;
    const __m256i *w1 = p->codes[1] + chunk * CHUNK_VECTORS + first;
    __m256i u0 = upper[0], u1 = upper[1], l0 = lower[0], l1 = lower[1];
    for (int k = 0; k < n; k++, at += 4) {
        __m256i u = four_bytes(at), l = four_bytes(at + 2 * CHUNK);
        u0 = _mm256_add_epi32(u0, _mm256_madd_epi16(w0[k], u));
        u1 = _mm256_add_epi32(u1, _mm256_madd_epi16(w1[k], u));
        l0 = _mm256_add_epi32(l0, _mm256_madd_epi16(w0[k], l));
        l1 = _mm256_add_epi32(l1, _mm256_madd_epi16(w1[k], l));
    }
    upper[0] = u0, upper[1] = u1, lower[0] = l0, lower[1] = l1;
}

/* All groups of the panel for token t, whose codes at the panel's first column are at x. */
INLINE void panel_token(panel *p, int t, const char *x, const float *step, const float *sum,
                        int group, int n_groups, int bits)
{
    for (int g = 0; g < n_groups; g++) {
        __m256i upper[2], lower[2];
        upper[0] = upper[1] = lower[0] = lower[1] = _mm256_setzero_si256();
        for (int c = g * group; c < (g + 1) * group; c += 32) {
            int chunk = c / CHUNK, in_chunk = c % CHUNK;
            const char *at = x + (size_t)chunk * X_CHUNK_BYTES;
            words(p, chunk, in_chunk / 2, 16, at, upper, lower);
        }
        float *total = p->total[t];
        UNROLL for (int r = 0; r < 2; r++)
        {
            if (bits <= KN_WHOLE_BITS)
                upper[r] = _mm256_add_epi32(_mm256_slli_epi32(upper[r], 4), lower[r]);
            _mm256_store_ps(total + ROWS * r,
                            add_group(_mm256_load_ps(total + ROWS * r),
                                      group_dot(upper[r], lower[r], bits), p->scales[r].scale[g],
                                      p->scales[r].bias[g], step[g], sum[g]));
        }
    }
}

/* Columns [c0, c0 + n_cols), all tokens. first: the record of the first token. */
static void panel_columns(panel *p, const kn_mat *w, const kn_act_layout *layout, const char *first,
                          int n_tokens, int c0, int n_cols)
{
    int groups = n_cols / w->group;
    if (w->bits == 4) {
        bytes_columns(p, w, layout, first, n_tokens, c0, n_cols);
        return;
    }
    for (int t = 0; t < n_tokens; t++) {
        const char *record = first + (size_t)t * layout->bytes;
        const char *x = record + layout->codes + (size_t)(c0 / CHUNK) * X_CHUNK_BYTES;
        const float *step = (const float *)(const void *)record + c0 / w->group;
        const float *sum = (const float *)(const void *)(record + layout->sum) + c0 / w->group;
        if (w->bits <= KN_WHOLE_BITS) panel_token(p, t, x, step, sum, w->group, groups, 5);
        else panel_token(p, t, x, step, sum, w->group, groups, 8);
    }
}
