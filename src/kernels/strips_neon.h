/* strips_neon.h - integer products of one vector with a strip (kernels.h), included once with the
 * dot-product instruction and once without: STRIP_TIMES is the function's name, STRIP_TARGET what
 * it is compiled for, STRIP_DOT(sum, q, x) adds four products of bytes to each lane.
 *
 * A register holds eight columns of two rows, so pairs of lanes are added once a group, and memory
 * is read in order. */

STRIP_TARGET static void STRIP_TIMES(float *y, const kn_mat *w, int row, const char *record,
                                     const kn_act_layout *layout)
{
    const uint8_t *codes = (const uint8_t *)w->w + (size_t)row * w->row_bytes;
    const uint8_t *scale = (const uint8_t *)w->scales + (size_t)row * w->scale_row_bytes;
    const uint8_t *bias = (const uint8_t *)w->biases + (size_t)row * w->scale_row_bytes;
    const float *step = (const float *)(const void *)record;
    const float *sum = (const float *)(const void *)(record + layout->sum);
    size_t four = 4 * (w->scale_type == KN_F32 ? sizeof(float) : sizeof(uint16_t));
    float32x4_t total[4];
    for (int i = 0; i < 4; i++) total[i] = vdupq_n_f32(0);
    for (int g = 0; g < w->cols / w->group; g++) {
        int32x4_t part[2][8]; /* of each plane, two rows each */
        UNROLL for (int i = 0; i < 8; i++) part[0][i] = part[1][i] = vdupq_n_s32(0);
        for (int c = g * w->group; c < (g + 1) * w->group; c += 8, codes += 64) {
            const char *x = record + layout->codes + (c / CHUNK) * X_CHUNK_BYTES + c % CHUNK;
            int8x16_t h = twice(x), m = twice(x + CHUNK);
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
        UNROLL for (int i = 0; i < 4; i++, scale += four, bias += four)
        {
            int32x4_t h = vpaddq_s32(part[0][2 * i], part[0][2 * i + 1]);
            int32x4_t m = vpaddq_s32(part[1][2 * i], part[1][2 * i + 1]);
            float32x4_t dot = vcvtq_f32_s32(vaddq_s32(vshlq_n_s32(h, 8), m));
            float32x4_t s = four_floats(scale, w->scale_type), b = four_floats(bias, w->scale_type);
            total[i] = vfmaq_f32(total[i], s, vmulq_n_f32(dot, step[g]));
            total[i] = vfmaq_f32(total[i], b, vdupq_n_f32(sum[g]));
        }
    }
    for (int i = 0; i < 4; i++) vst1q_f32(y + 4 * i, total[i]);
}

#undef STRIP_TIMES
#undef STRIP_TARGET
#undef STRIP_DOT
