/* strips_neon.h - integer products of one vector with a strip (kernels.h), included once with the
 * dot-product instruction and once without: STRIP_NAME makes a function's name, STRIP_TARGET is
 * what it is compiled for, STRIP_DOT(sum, q, x) adds four products of bytes to each lane.
 *
 * Both ways of multiplying give dot[i] = sum(q X) of rows 4 i to 4 i + 3 over the `group` columns
 * of a strip at `codes`, the first of which is column c. */

/* A register holds eight columns of two rows, so pairs of lanes are added at the end. */
STRIP_TARGET static inline void STRIP_NAME(nibble_dots)(int32x4_t *dot, const uint8_t *codes,
                                                        const char *x, int c, int group)
{
    int32x4_t part[2][8]; /* of each plane, two rows each */
    UNROLL for (int i = 0; i < 8; i++) part[0][i] = part[1][i] = vdupq_n_s32(0);
    for (int end = c + group; c < end; c += 8, codes += 64) {
        int8x16_t h = twice(strip_x(x, c)), m = twice(strip_x(x, c) + CHUNK);
        UNROLL for (int i = 0; i < 4; i++)
        {
            uint8x16_t v = vld1q_u8(codes + 16 * i);
            uint8x16_t even = vandq_u8(v, vdupq_n_u8(15)), odd = vshrq_n_u8(v, 4);
            int8x16_t a = vreinterpretq_s8_u8(vzip1q_u8(even, odd));
            int8x16_t b = vreinterpretq_s8_u8(vzip2q_u8(even, odd));
            part[0][2 * i] = STRIP_DOT(part[0][2 * i], a, h);
            part[1][2 * i] = STRIP_DOT(part[1][2 * i], a, m);
            part[0][2 * i + 1] = STRIP_DOT(part[0][2 * i + 1], b, h);
            part[1][2 * i + 1] = STRIP_DOT(part[1][2 * i + 1], b, m);
        }
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        int32x4_t h = vpaddq_s32(part[0][2 * i], part[0][2 * i + 1]);
        int32x4_t m = vpaddq_s32(part[1][2 * i], part[1][2 * i + 1]);
        dot[i] = vaddq_s32(vshlq_n_s32(h, 8), m);
    }
}

/* Halves of codes and their lowest bits, as everywhere (integer_neon.h). */
STRIP_TARGET static inline void STRIP_NAME(byte_dots)(int32x4_t *dot, const uint8_t *codes,
                                                      const char *x, int c, int group)
{
    int32x4_t half[2][4], low[2][4]; /* of each plane */
    UNROLL for (int k = 0; k < 2; k++) UNROLL for (int i = 0; i < 4; i++) half[k][i] = low[k][i] =
        vdupq_n_s32(0);
    for (int end = c + group; c < end; c += 8)
        UNROLL for (int parity = 0; parity < 2; parity++, codes += 64)
        {
            int8x16_t xs[2];
            UNROLL for (int k = 0; k < 2; k++) xs[k] =
                four_times(strip_x(x, c) + k * CHUNK, parity);
            UNROLL for (int i = 0; i < 4; i++)
            {
                uint8x16_t v = vld1q_u8(codes + 16 * i);
                int8x16_t a = vreinterpretq_s8_u8(vshrq_n_u8(v, 1));
                int8x16_t b = vreinterpretq_s8_u8(vandq_u8(v, vdupq_n_u8(1)));
                UNROLL for (int k = 0; k < 2; k++)
                {
                    half[k][i] = STRIP_DOT(half[k][i], a, xs[k]);
                    low[k][i] = STRIP_DOT(low[k][i], b, xs[k]);
                }
            }
        }
    UNROLL for (int i = 0; i < 4; i++)
    {
        int32x4_t h = vaddq_s32(vshlq_n_s32(half[0][i], 1), low[0][i]);
        int32x4_t m = vaddq_s32(vshlq_n_s32(half[1][i], 1), low[1][i]);
        dot[i] = vaddq_s32(vshlq_n_s32(h, 8), m);
    }
}

STRIP_TARGET static void STRIP_NAME(strip)(float *y, const kn_mat *w, int row, const some_x *x)
{
    const uint8_t *codes = (const uint8_t *)w->w + (size_t)row * w->row_bytes;
    const uint8_t *scale = (const uint8_t *)w->scales + (size_t)row * w->scale_row_bytes;
    const uint8_t *bias = (const uint8_t *)w->biases + (size_t)row * w->scale_row_bytes;
    size_t four = 4 * kn_float_bytes(w->scale_type);
    float32x4_t total[4];
    for (int i = 0; i < 4; i++) total[i] = vdupq_n_f32(0);
    for (int g = 0; g < w->cols / w->group; g++) {
        int32x4_t dot[4];
        float step = of_group(x->step, x, 0, g), sum = of_group(x->sum, x, 0, g);
        if (w->bits == 4) STRIP_NAME(nibble_dots)(dot, codes, x->codes, g * w->group, w->group);
        else STRIP_NAME(byte_dots)(dot, codes, x->codes, g * w->group, w->group);
        codes += (size_t)(w->group * w->bits / 8 * KN_STRIP_ROWS);
        UNROLL for (int i = 0; i < 4; i++, scale += four, bias += four)
        {
            float32x4_t s = four_floats(scale, w->scale_type), b = four_floats(bias, w->scale_type);
            total[i] = vfmaq_f32(total[i], s, vmulq_n_f32(vcvtq_f32_s32(dot[i]), step));
            total[i] = vfmaq_f32(total[i], b, vdupq_n_f32(sum));
        }
    }
    for (int i = 0; i < 4; i++) vst1q_f32(y + 4 * i, total[i]);
}

#undef STRIP_NAME
#undef STRIP_TARGET
#undef STRIP_DOT
