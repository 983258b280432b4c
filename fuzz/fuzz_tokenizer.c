/* A tokenizer.json of any bytes: it opens or is refused; one that opens is used. */
#include "text/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "Hello, w\xC3\xB6rld 123 <s> \xE2\x96\x81 \xF0\x9F\x98\x80\n\n";
    char path[64];
    tx_tokenizer *t;
    tx_ids ids = {0};
    bs_buf out = {0};
    fm_error err;
    snprintf(path, sizeof path, "/dev/shm/fuzz_tokenizer.%ld", (long)getpid());
    FILE *f = fopen(path, "wb");
    if (!f) return 0;
    fwrite(data, 1, size, f);
    fclose(f);
    if (!tx_tokenizer_open(path, &t, &err)) {
        if (!tx_encode(t, text, sizeof text - 1, TX_ADD_SPECIAL, &ids, &err))
            tx_decode(t, ids.data, ids.length, false, &out, &err);
        tx_tokenizer_free(t);
    }
    unlink(path);
    tx_ids_free(&ids);
    bs_buf_free(&out);
    return 0;
}
