/* Speed of our tokenizer on one thread, for bench/compare_tokenizers.sh.
 *   tokenizer_bench TOKENIZER.json TEXT...
 * Prints one JSON line: {"load_ms":N,"encode_ms":[...],"decode_ms":[...],"tokens":[...]}, an entry
 * a text; decoding goes through the stream, a token at a time. */
#include "text/tokenizer.h"

#include "base/file.h"

#include <stdio.h>
#include <time.h>

enum { LARGEST = 1 << 30 };

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static fm_status stream(const tx_tokenizer *t, const tx_ids *ids, bs_buf *out, fm_error *err)
{
    tx_stream *s;
    fm_status status = tx_stream_open(t, false, &s, err);
    if (status) return status;
    for (size_t i = 0; !status && i < ids->length; i++)
        status = tx_stream_push(s, ids->data[i], out, err);
    if (!status) status = tx_stream_finish(s, out, err);
    tx_stream_free(s);
    return status;
}

static fm_status run(int n, char **files, double *load, double *encode, double *decode,
                     size_t *tokens, fm_error *err)
{
    tx_tokenizer *t;
    double start = now();
    fm_status status = tx_tokenizer_open(files[0], &t, err);
    if (status) return status;
    *load = now() - start;
    for (int i = 0; !status && i < n; i++) {
        bs_buf text = {0}, back = {0};
        tx_ids ids = {0};
        status = bs_read_file(files[i + 1], LARGEST, &text, err);
        start = now();
        if (!status) status = tx_encode(t, text.data, text.length, 0, &ids, err);
        double middle = now();
        if (!status) status = stream(t, &ids, &back, err);
        encode[i] = middle - start;
        decode[i] = now() - middle;
        tokens[i] = ids.length;
        tx_ids_free(&ids);
        bs_buf_free(&text);
        bs_buf_free(&back);
    }
    tx_tokenizer_free(t);
    return status;
}

static void print_list(const char *name, const double *list, int n)
{
    printf(",\"%s\":[", name);
    for (int i = 0; i < n; i++) printf("%s%.3f", i ? "," : "", list[i]);
    printf("]");
}

int main(int argc, char **argv)
{
    double load, encode[16], decode[16], counts[16];
    size_t tokens[16];
    fm_error err;
    int n = argc - 2;
    if (n < 1 || n > 16) return fprintf(stderr, "usage: tokenizer_bench TOKENIZER TEXT...\n"), 2;
    if (run(n, argv + 1, &load, encode, decode, tokens, &err))
        return fprintf(stderr, "tokenizer_bench: %s\n", err.message), 1;
    for (int i = 0; i < n; i++) counts[i] = (double)tokens[i];
    printf("{\"load_ms\":%.3f", load);
    print_list("encode_ms", encode, n);
    print_list("decode_ms", decode, n);
    print_list("tokens", counts, n);
    puts("}");
    return 0;
}
