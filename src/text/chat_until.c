/* Until the chat layer lands: ChatML alone, end ids of the bundled model. Weak, so that the real
 * definitions win. To be deleted with them. */
#include "base/mem.h"
#include "text/chat.h"

struct tx_chat {
    const tx_tokenizer *t;
};
__attribute__((weak)) fm_status tx_chat_open(const char *dir, const tx_tokenizer *t, tx_chat **out,
                                             fm_error *err) {
    (void)dir;
    (void)err;
    *out = bs_calloc(1, sizeof **out);
    (*out)->t = t;
    return 0;
}
__attribute__((weak)) void tx_chat_free(tx_chat *c) {
    bs_free(c);
}
__attribute__((weak)) bool tx_chat_is_eos(const tx_chat *c, int32_t id) {
    (void)c;
    return id == 2 || id == 0;
}
__attribute__((weak)) bool tx_chat_has_template(const tx_chat *c) {
    (void)c;
    return true;
}
__attribute__((weak)) fm_status tx_chat_raw_prompt(const tx_chat *c, const char *text, size_t n,
                                                   tx_ids *out, fm_error *err) {
    return tx_encode(c->t, text, n, 0, out, err);
}
__attribute__((weak)) fm_status tx_chat_prompt(const tx_chat *c, const tx_chat_request *r,
                                               tx_prompt *out, fm_error *err) {
    size_t i;
    json_t *m;
    bs_buf b = {0};
    json_array_foreach(r->messages, i, m) bs_buf_printf(
        &b, "<|im_start|>%s\n%s<|im_end|>\n", json_string_value(json_object_get(m, "role")),
        json_string_value(json_object_get(m, "content")));
    bs_buf_puts(&b, "<|im_start|>assistant\n");
    return tx_encode(c->t, b.data, b.length, 0, &out->ids, err);
}
__attribute__((weak)) void tx_prompt_free(tx_prompt *p) {
    tx_ids_free(&p->ids);
}
struct tx_reply {
    tx_delta_fn *fn;
    void *arg;
};
__attribute__((weak)) fm_status tx_reply_open(const tx_chat *c, const tx_prompt *prompt,
                                              json_t *tools, tx_delta_fn *fn, void *arg,
                                              tx_reply **out, fm_error *err) {
    (void)c;
    (void)prompt;
    (void)tools;
    (void)err;
    *out = bs_calloc(1, sizeof **out);
    (*out)->fn = fn;
    (*out)->arg = arg;
    return 0;
}
__attribute__((weak)) fm_status tx_reply_push_text(tx_reply *r, const char *text, size_t n,
                                                   fm_error *err) {
    tx_delta d = {.kind = TX_DELTA_CONTENT, .text = text, .length = n};
    return r->fn(r->arg, &d, err);
}
__attribute__((weak)) fm_status tx_reply_finish(tx_reply *r, fm_error *err) {
    (void)r;
    (void)err;
    return 0;
}
__attribute__((weak)) void tx_reply_free(tx_reply *r) {
    bs_free(r);
}
__attribute__((weak)) fm_status tx_reply_open_text(tx_tool_format format, bool starts_in_reasoning,
                                                   json_t *tools, tx_delta_fn *fn, void *arg,
                                                   tx_reply **out, fm_error *err) {
    (void)format;
    (void)starts_in_reasoning;
    return tx_reply_open(NULL, NULL, tools, fn, arg, out, err);
}
__attribute__((weak)) const int32_t *tx_chat_eos_ids(const tx_chat *c, size_t *n) {
    static const int32_t ids[] = {2, 0};
    (void)c;
    *n = 2;
    return ids;
}
__attribute__((weak)) bool tx_chat_can_think(const tx_chat *c) {
    (void)c;
    return false;
}
