/* A schema from outside, compiled and walked. The input: the schema's JSON, a NUL, then bytes that
 * choose among what the grammar allows. What ends must parse. */
#include "engine/grammar.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *one_byte(void *arg, int id, size_t *length)
{
    *length = 1;
    return id < 256 ? (const char *)arg + id : NULL;
}

static void walk(const en_grammar *g, const uint8_t *choices, size_t n)
{
    static char bytes[256];
    int32_t end = 256;
    en_vocab *v = NULL;
    en_matcher *m = NULL;
    char text[4096];
    size_t length = 0;
    for (int i = 0; i < 256; i++) bytes[i] = (char)i;
    if (en_vocab_create(257, one_byte, bytes, &end, 1, &v, NULL) ||
        en_matcher_create(g, v, &m, NULL))
        n = 0;
    for (size_t i = 0; i < n && length < sizeof text; i++) {
        const uint32_t *bits;
        fm_error err = {0};
        if (en_matcher_mask(m, &bits, &err)) {
            if (err.code != FM_E_LIMIT) abort(); /* single bytes can always go on */
            break;
        }
        int pick = choices[i];
        while (!(bits[pick / 32] >> (pick % 32) & 1)) pick = pick == 256 ? 0 : pick + 1;
        if (pick == 256) {
            json_t *parsed = json_loadb(text, length, JSON_DECODE_ANY, NULL);
            if (!parsed) abort();
            json_decref(parsed);
            break;
        }
        if (en_matcher_accept(m, pick, &err) && err.code != FM_E_LIMIT) abort();
        text[length++] = (char)pick;
    }
    en_matcher_destroy(m);
    en_vocab_destroy(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *split = memchr(data, 0, size);
    size_t n = split ? (size_t)(split - data) : size;
    json_t *schema = json_loadb((const char *)data, n, JSON_DECODE_ANY, NULL);
    if (!schema) return 0;
    en_grammar *g = NULL;
    if (!en_grammar_create(&(en_grammar_spec){.schema = schema}, &g, NULL) && split)
        walk(g, split + 1, size - n - 1);
    en_grammar_destroy(g);
    json_decref(schema);
    return 0;
}
