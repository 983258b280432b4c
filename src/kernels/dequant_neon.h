/* dequant_neon.h - codes of any width as bytes in natural order, and weights as float32. */

/* n codes of less than eight bits. Eight codes are `bits` bytes; each is found in two of them and
 * moved down. */
static void unpack_eights(const uint8_t *p, int bits, int n, uint8_t *out)
{
    uint8_t two_bytes[16];
    int16_t down[8];
    for (int j = 0; j < 8; j++) {
        two_bytes[2 * j] = (uint8_t)(j * bits / 8);
        two_bytes[2 * j + 1] = (uint8_t)(j * bits / 8 + 1);
        down[j] = (int16_t)(-j * bits % 8);
    }
    uint8x16_t from = vld1q_u8(two_bytes);
    int16x8_t shift = vld1q_s16(down);
    uint16x8_t mask = vdupq_n_u16((uint16_t)((1u << bits) - 1));
    for (int i = 0; i < n; i += 8, p += bits) {
        uint64_t v = 0;
        memcpy(&v, p, (size_t)bits);
        uint8x16_t raw = vcombine_u8(vcreate_u8(v), vcreate_u8(0));
        uint16x8_t q = vshlq_u16(vreinterpretq_u16_u8(vqtbl1q_u8(raw, from)), shift);
        vst1_u8(out + i, vmovn_u16(vandq_u16(q, mask)));
    }
}

/* n codes (a multiple of 16) of an affine matrix, from code 0 of p on. */
static void unpack_codes(const uint8_t *p, int bits, int n, uint8_t *out)
{
    if (bits == 8) {
        memcpy(out, p, (size_t)n);
        return;
    }
    if (bits == 4) {
        for (int i = 0; i < n; i += 16) {
            uint8x8_t raw = vld1_u8(p + i / 2);
            uint8x8x2_t pair = vzip_u8(vand_u8(raw, vdup_n_u8(15)), vshr_n_u8(raw, 4));
            vst1_u8(out + i, pair.val[0]);
            vst1_u8(out + i + 8, pair.val[1]);
        }
        return;
    }
    unpack_eights(p, bits, n, out);
}

/* Nothing is known beforehand. */
typedef struct dequant_plan {
    char nothing;
} dequant_plan;

static dequant_plan dequant_plan_of(const kn_mat *m)
{
    (void)m;
    return (dequant_plan){0};
}

static void dequant_floats(const kn_mat *m, const uint8_t *w, int c0, int c1, float *out)
{
    for (; c0 + 16 <= c1; c0 += 16, out += 16) {
        if (m->format == KN_F16) v_store(out, v_load_f16(w + 2 * (size_t)c0));
        else if (m->format == KN_BF16) v_store(out, v_load_bf16(w + 2 * (size_t)c0));
        else memcpy(out, w + 4 * (size_t)c0, 16 * sizeof *out);
    }
    for (; c0 < c1; c0++) *out++ = kn_read_float(m->format, w, (size_t)c0);
}

/* c0 is a multiple of SPAN; c1 too, or the end of the row. */
static void dequant_span(const dequant_plan *plan, const kn_mat *m, int row, int c0, int c1,
                         float *out)
{
    (void)plan;
    const uint8_t *w = (const uint8_t *)m->w + (size_t)row * m->row_bytes;
    if (!kn_group_of(m)) {
        dequant_floats(m, w, c0, c1, out);
        return;
    }
    if (m->format != KN_AFFINE) {
        kn_dequant_span(m, row, c0, c1, out);
        return;
    }
    for (int c = c0; c < c1; c += m->group) {
        uint8_t codes[128];
        float scale, bias;
        kn_group_scale(m, row, c / m->group, &scale, &bias);
        unpack_codes(w + (size_t)c * (size_t)m->bits / 8, m->bits, m->group, codes);
        v16 s = v_set1(scale), b = v_set1(bias);
        for (int i = 0; i < m->group; i += 16, out += 16)
            v_store(out, v_fma(s, v_load_u8(codes + i), b));
    }
}
