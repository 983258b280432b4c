/* Any bytes as a text for three small tokenizers (the first byte chooses), as markup and as
 * content, and as ids. */
#include "text/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = {
        "models/flash-moe-tiny", "tests/fixtures/text/syn_nfkc_strip",
        "tests/fixtures/text/syn_unigram_bytes", "tests/fixtures/text/syn_spm_legacy"};
    static tx_tokenizer *open[4];
    tx_ids ids = {0};
    bs_buf out = {0}, streamed = {0};
    tx_stream *stream;
    fm_error err;
    if (!size) return 0;
    int which = data[0] & 3;
    const char *text = (const char *)data + 1;
    size_t n = size - 1;
    if (!open[which] && tx_tokenizer_open(names[which], &open[which], &err)) abort();
    const tx_tokenizer *t = open[which];
    tx_segment parts[2] = {{n / 2, data[0] & 4}, {n - n / 2, data[0] & 8}};
    if (tx_encode_segments(t, text, n, parts, 2, NULL, 0, &ids, &err)) abort();
    for (size_t i = 0; i + 2 <= n; i += 2)
        tx_ids_push(&ids, (uint8_t)text[i] << 8 | (uint8_t)text[i + 1]);
    if (tx_decode(t, ids.data, ids.length, data[0] & 16, &out, &err)) abort();
    if (tx_stream_open(t, data[0] & 16, &stream, &err)) abort();
    for (size_t i = 0; i < ids.length; i++) tx_stream_push(stream, ids.data[i], &streamed, &err);
    tx_stream_finish(stream, &streamed, &err);
    if (out.length != streamed.length ||
        (out.length && memcmp(out.data, streamed.data, out.length)))
        abort();
    tx_stream_free(stream);
    tx_ids_free(&ids);
    bs_buf_free(&out);
    bs_buf_free(&streamed);
    return 0;
}
