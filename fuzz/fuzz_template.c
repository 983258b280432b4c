/* A template and its context, divided by a NUL; and the same bytes as a model's reply in every
 * format. */
#include "text/chat.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void reply(const char *text, size_t n)
{
    for (int format = TX_TOOLS_NONE; format <= TX_TOOLS_HARMONY; format++) {
        tx_reply *r;
        fm_error err;
        if (tx_reply_open_text((tx_tool_format)format, n & 1, NULL, NULL, NULL, &r, &err)) abort();
        for (size_t at = 0; at < n; at += 3)
            if (tx_reply_push_text(r, text + at, n - at < 3 ? n - at : 3, &err)) abort();
        if (tx_reply_finish(r, &err)) abort();
        tx_reply_free(r);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data, *cut = memchr(text, 0, size);
    size_t n = cut ? (size_t)(cut - text) : size;
    tx_template *t;
    tx_rendered out = {0};
    fm_error err;
    json_t *context = cut ? json_loadb(cut + 1, size - n - 1, JSON_ALLOW_NUL, NULL) : NULL;
    if (!json_is_object(context)) {
        json_decref(context);
        context = json_loads("{\"messages\":[{\"role\":\"user\",\"content\":\"a<b>\"}],\"l\":[1,2."
                             "5,null],\"s\":\"x y\"}",
                             0, NULL);
    }
    if (!tx_template_compile(text, n, "fuzz", &t, &err)) {
        if (!tx_template_render(t, context, NULL, 1, &out, &err)) {
            size_t total = 0;
            for (size_t i = 0; i < out.n_segments; i++) total += out.segments[i].length;
            if (total != out.text.length) abort();
        }
        tx_rendered_free(&out);
        tx_template_free(t);
    }
    json_decref(context);
    reply(text, n);
    return 0;
}
