/* panel_avx2.h - codes of 16 rows and 256 columns, turned once for all vectors of a matrix product.
 *
 * A register of the panel holds a 32-bit lane of eight rows: four bytes or two words, of columns
 * that lie in one lane of the activations too. So a group's sum is complete in its lane, and
 * nothing is added across lanes. */

enum {
    PANEL_ROWS = 2 * ROWS,
    PANEL_CHUNKS = 4,
    PANEL_COLS = PANEL_CHUNKS * CHUNK,
    GEMM_TOKENS = 128
};

typedef struct panel {
    __m256i codes[2][PANEL_CHUNKS * CHUNK_VECTORS]; /* half the rows, see pack_chunk() */
    turned scales[2];                               /* its (at most 8) groups */
    float (*total)[PANEL_ROWS];                     /* of each vector, so far */
} panel;

/* ahead: bytes from here to the panel that comes next, which is fetched meanwhile. */
INLINE void pack_rows(panel *p, int half, const kn_mat *w, int row, int last, int c0, int n_cols,
                      size_t ahead, int bits)
{
    const uint8_t *rows[ROWS];
    for (int i = 0; i < ROWS; i++)
        rows[i] = (const uint8_t *)w->w + (size_t)(row + i < last ? row + i : last) * w->row_bytes;
    size_t begin = (size_t)c0 * (size_t)bits / 8;
    for (int c = 0; c < n_cols; c += CHUNK) {
        size_t offset = begin + (size_t)(c / 8 * bits);
        int bytes = (n_cols - c < CHUNK ? n_cols - c : CHUNK) * bits / 8;
        pack_chunk(p->codes[half] + c / CHUNK * CHUNK_VECTORS, rows, offset, bytes, bits);
        for (int i = 0; i < ROWS; i++)
            _mm_prefetch((const char *)rows[i] + offset + ahead, _MM_HINT_T0);
    }
    turn_scales(w, row, last, c0 / w->group, n_cols / w->group, &p->scales[half]);
}

/* Eight columns of half a strip: of four bits a register, of eight bits two, the even columns and
 * the odd ones. */
INLINE void load_eight(const char *codes, int half, int bits, __m256i *v)
{
    UNROLL for (int i = 0; i < bits / 4; i++, codes += 64)
    {
        if (!half) _mm_prefetch(codes + KN_STRIP_AHEAD, _MM_HINT_T0);
        v[i] = load_vector(codes + 32 * half);
    }
}

/* The same of a strip, whose rows are turned already. */
static void pack_strip(panel *p, int half, const kn_mat *w, int row, int c0, int n_cols)
{
    size_t strip = (size_t)(row - half * ROWS), g0 = (size_t)(c0 / w->group);
    size_t eight = (size_t)w->bits * KN_STRIP_ROWS; /* bytes of eight columns */
    const char *codes = (const char *)w->w + strip * w->row_bytes + (size_t)c0 / 8 * eight;
    for (int c = 0; c < n_cols; c += 8, codes += eight) {
        __m256i *chunk = p->codes[half] + c / CHUNK * CHUNK_VECTORS, v[2];
        load_eight(codes, half, w->bits, v);
        if (w->bits == 4) pack_lane(chunk, c % CHUNK / 8, v[0]);
        else pack_bytes(chunk, c % CHUNK / 8, v);
    }
    size_t size = kn_float_bytes(w->scale_type),
           at = strip * w->scale_row_bytes + (g0 * KN_STRIP_ROWS + (size_t)(half * ROWS)) * size;
    for (int g = 0; g < n_cols / w->group; g++, at += KN_STRIP_ROWS * size) {
        p->scales[half].scale[g] = row_floats((const char *)w->scales + at, w->scale_type);
        p->scales[half].bias[g] = row_floats((const char *)w->biases + at, w->scale_type);
    }
}

static void pack_half(panel *p, int half, const kn_mat *w, int row, int last, int c0, int n_cols,
                      size_t ahead)
{
    if (w->strips) {
        pack_strip(p, half, w, row, c0, n_cols);
        return;
    }
    switch (w->bits) {
    case 2: pack_rows(p, half, w, row, last, c0, n_cols, ahead, 2); return;
    case 3: pack_rows(p, half, w, row, last, c0, n_cols, ahead, 3); return;
    case 4: pack_rows(p, half, w, row, last, c0, n_cols, ahead, 4); return;
    case 5: pack_rows(p, half, w, row, last, c0, n_cols, ahead, 5); return;
    case 6: pack_rows(p, half, w, row, last, c0, n_cols, ahead, 6); return;
    default: pack_rows(p, half, w, row, last, c0, n_cols, ahead, 8);
    }
}

static void empty_half(panel *p, int half)
{
    memset(p->codes[half], 0, sizeof p->codes[half]);
    memset(&p->scales[half], 0, sizeof p->scales[half]);
}

/* The same four bytes in every lane. */
static inline __m256i four_bytes(const char *p)
{
    int v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}

/* What an empty instruction may have changed has to be in a register before and after it. Not told
 * so, gcc would load codes again for each use and keep sums in memory. */
#define IN_REGISTERS_2(a, b) __asm__("" : "+x"(a), "+x"(b))
#define IN_REGISTERS_4(s) __asm__("" : "+x"((s)[0]), "+x"((s)[1]), "+x"((s)[2]), "+x"((s)[3]))
