/* strips_x86.h - what AVX2's and AVX-512's products with strips share: how far ahead memory is
 * fetched, by fetch() of either. */

enum { STRIP_AHEAD = 4096, STRIP_SCALES_AHEAD = 1024 };

INLINE size_t float_bytes(kn_format type)
{
    return type == KN_F32 ? sizeof(float) : sizeof(uint16_t);
}

/* What the steady fetching of a product begins behind. */
static void fetch_head(const kn_mat *w, int row)
{
    size_t scales = (size_t)row * w->scale_row_bytes;
    const char *codes = (const char *)w->w + (size_t)row * w->row_bytes;
    const char *scale = (const char *)w->scales + scales, *bias = (const char *)w->biases + scales;
    fetch(&codes, STRIP_AHEAD);
    fetch(&scale, STRIP_SCALES_AHEAD);
    fetch(&bias, STRIP_SCALES_AHEAD);
}
