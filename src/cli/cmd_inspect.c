#include "cli/cli.h"
#include "cli/common.h"
#include "cli/download.h"
#include "cli/modules.h"

#include "base/mem.h"
#include "model/schema.h"

#include <string.h>

static const cli_option own[] = {
    {"tensors", 0, CLI_FLAG, NULL, 0, 0, "list every tensor: type, shape, bytes, file"},
    {"json", 'j', CLI_FLAG, NULL, 0, 0, "all of it as one JSON object"},
    {0},
};
static const cli_group own_group = {"Inspect", own, false};

const cli_spec spec_inspect = {
    .arguments = "[MODEL]",
    .most = 1,
    .about = "What a model is made of: family, blocks, how each module is stored, the bytes of its "
             "experts and of the rest, and what a conversation takes. No weight is read. MODEL may "
             "be a folder, a config.json alone, a hub id or a name from configs/.",
    .examples = "  flash-moe inspect\n"
                "  flash-moe inspect ~/models/big-moe --tensors\n"
                "  flash-moe inspect Qwen3-Coder-Next --json\n",
    .groups = {&own_group, &cli_group_model},
};

/* --- what the blocks are -------------------------------------------------------------------------
 */

static const char *mixer_name(md_mixer m)
{
    switch (m) {
    case MD_ATTENTION: return "attention";
    case MD_MLA: return "latent attention";
    case MD_DELTANET: return "gated delta net";
    case MD_MAMBA1: return "Mamba";
    case MD_MAMBA2: return "Mamba-2";
    }
    return "?";
}

/* "36 gated delta net, 12 attention" */
static void put_mixers(bs_buf *b, const md_arch *c)
{
    bool first = true;
    for (int m = MD_ATTENTION; m <= MD_MAMBA2; m++) {
        int n = 0;
        for (int l = 0; l < c->n_layers; l++) n += c->layer[l].mixer == (md_mixer)m;
        if (!n) continue;
        bs_buf_printf(b, "%s%d %s", first ? "" : ", ", n, mixer_name((md_mixer)m));
        first = false;
    }
}

static void put_layers(bs_buf *b, const md_arch *c, const md_info *info)
{
    int windows = 0;
    for (int l = 0; l < c->n_layers; l++) windows += c->layer[l].window > 0;
    bs_buf_printf(b, "layers      %d: ", c->n_layers);
    put_mixers(b, c);
    if (windows) bs_buf_printf(b, " (%d with a window)", windows);
    bs_buf_printf(b, "; %d with experts", info->n_moe_layers);
    if (info->n_moe_layers < c->n_layers)
        bs_buf_printf(b, ", %d dense", c->n_layers - info->n_moe_layers);
    bs_buf_printf(b, "\nsizes       hidden %d, vocabulary %d%s, context %d\n", c->hidden, c->vocab,
                  c->tied ? " (head tied to the embedding)" : "", c->max_context);
}

static const char *rope_name(md_rope_kind kind)
{
    static const char *const names[] = {"plain", "linear", "llama3", "yarn", "longrope"};
    return names[kind];
}

static void put_attention(bs_buf *b, const md_arch *c)
{
    static const char *const norms[] = {"", ", norm a head", ", norm a head after the rotation",
                                        ", norm over all heads"};
    bool plain = c->family->mixer != MD_MLA;
    bs_buf_printf(b, "attention   %d heads of %d", c->n_heads, c->head_dim);
    if (plain) bs_buf_printf(b, ", %d for keys and values", c->n_kv_heads);
    else bs_buf_printf(b, ", latent of %d, rank of the queries %d", c->kv_lora, c->q_lora);
    if (c->rope.dims)
        bs_buf_printf(b, "; %d rotated (%s, base %g)", c->rope.dims, rope_name(c->rope.kind),
                      c->rope.theta);
    else bs_buf_puts(b, "; no positions");
    bs_buf_printf(b, "%s%s%s%s\n", norms[c->qk_norm], c->q_bias ? ", biases" : "",
                  c->family->output_gate ? ", output gate" : "", c->family->sinks ? ", sinks" : "");
}

static void put_router(bs_buf *b, const md_arch *c)
{
    const md_router *r = &c->router;
    bs_buf_printf(b, "router      %s%s%s",
                  r->sparsemixer > 0             ? "sparsemixer"
                  : r->score == MD_SCORE_SIGMOID ? "sigmoid"
                                                 : "softmax",
                  r->bias ? ", chosen with a correction bias" : "",
                  r->normalise ? ", normalised" : "");
    if (r->n_group > 1) bs_buf_printf(b, ", %d of %d groups", r->topk_group, r->n_group);
    if (r->scale != 1 && r->scale > 0) bs_buf_printf(b, ", times %g", (double)r->scale);
    bs_buf_puts(b, "\n");
}

/* The first layer with experts speaks for all. */
static void put_experts(bs_buf *b, const md_arch *c, const md_info *info)
{
    int l = 0;
    while (l < c->n_layers && !c->layer[l].moe) l++;
    if (l == c->n_layers) {
        bs_buf_puts(b, "experts     none\n");
        return;
    }
    const md_layer_config *m = &c->layer[l];
    bs_buf_printf(b, "experts     %d a layer, %d a token, width %d", c->n_experts, info->top_k,
                  m->expert_width);
    if (m->shared_width) bs_buf_printf(b, "; shared expert of width %d", m->shared_width);
    bs_buf_puts(b, "\n");
    put_router(b, c);
}

/* --- bytes
 * ---------------------------------------------------------------------------------------- */

static void put_bytes(bs_buf *b, const char *name, uint64_t bytes, const char *note)
{
    bs_buf_printf(b, "%-11s %s (%llu bytes)%s\n", name, cli_format_size(bytes).text,
                  (unsigned long long)bytes, note);
}

static void put_memory(bs_buf *b, const md_info *info)
{
    char note[96];
    put_bytes(b, "one expert", info->expert_bytes, "");
    put_bytes(b, "all experts", info->experts_bytes, "");
    snprintf(note, sizeof note, "; a token reads %s of it",
             cli_format_size(info->decode_read_bytes).text);
    put_bytes(b, "the rest", info->resident_bytes, note);
    put_bytes(b, "KV cache", info->kv_bytes_per_token, " a token");
    put_bytes(b, "state", info->fixed_state_bytes, " a conversation, besides");
}

static void put_files(bs_buf *b, const ts_store *store)
{
    uint64_t bytes = 0;
    if (!store) {
        bs_buf_puts(b, "files       none: told by the config alone\n");
        return;
    }
    for (int i = 0; i < ts_file_count(store); i++) bytes += ts_file_bytes(store, i);
    bs_buf_printf(b, "files       %d with %zu tensors, %s\n", ts_file_count(store), ts_count(store),
                  cli_format_size(bytes).text);
}

static void put_shape(bs_buf *b, const int64_t *shape, int n)
{
    bs_buf_putc(b, '[');
    for (int i = 0; i < n; i++) bs_buf_printf(b, "%s%lld", i ? ", " : "", (long long)shape[i]);
    bs_buf_putc(b, ']');
}

static void put_modules(bs_buf *b, const cli_modules *m)
{
    bs_buf_puts(b, "\nmodules (times, shape, how stored)\n");
    for (size_t i = 0; i < m->n; i++) {
        const cli_module *x = &m->module[i];
        bs_buf_printf(b, "  %-58s x%-4d ", x->pattern, x->times);
        put_shape(b, x->shape, x->n_dims);
        bs_buf_printf(b, "  %s\n", x->format);
    }
}

static void put_tensors(bs_buf *b, const ts_store *store)
{
    bs_buf_puts(b, "\ntensors (type, shape, bytes, file, first byte)\n");
    for (size_t i = 0; store && i < ts_count(store); i++) {
        const ts_tensor *t = ts_at(store, i);
        const char *path = ts_file_path(store, t->file), *slash = strrchr(path, '/');
        bs_buf_printf(b, "  %s  %s ", t->name, ts_type_name(t->type));
        put_shape(b, t->shape, t->n_dims);
        bs_buf_printf(b, "  %llu  %s  %llu\n", (unsigned long long)t->bytes,
                      slash ? slash + 1 : path, (unsigned long long)t->offset);
    }
}

static void print_text(const md_model *m, const cli_modules *modules, bool tensors)
{
    const md_arch *c = md_arch_of(m);
    const md_info *info = md_describe(m);
    bs_buf b = {0};
    bs_buf_printf(&b, "family      %s\n", info->family);
    put_layers(&b, c, info);
    if (c->n_heads) put_attention(&b, c);
    put_experts(&b, c, info);
    put_memory(&b, info);
    put_files(&b, md_store(m));
    for (int i = 0; md_note(m, i); i++) bs_buf_printf(&b, "note        %s\n", md_note(m, i));
    put_modules(&b, modules);
    if (tensors) put_tensors(&b, md_store(m));
    if (b.length) cli_put(b.data, b.length);
    bs_buf_free(&b);
}

/* --- as JSON -------------------------------------------------------------------------------------
 */

static json_t *shape_json(const int64_t *shape, int n)
{
    json_t *a = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(a, json_integer(shape[i]));
    return a;
}

static json_t *modules_json(const cli_modules *m)
{
    json_t *a = json_array();
    for (size_t i = 0; i < m->n; i++) {
        const cli_module *x = &m->module[i];
        json_array_append_new(
            a, json_pack("{s:s, s:i, s:o, s:s, s:i, s:i, s:I}", "module", x->pattern, "times",
                         x->times, "shape", shape_json(x->shape, x->n_dims), "format", x->format,
                         "bits", x->bits, "group_size", x->group, "bytes", (json_int_t)x->bytes));
    }
    return a;
}

static json_t *tensors_json(const ts_store *store)
{
    json_t *a = json_array();
    for (size_t i = 0; store && i < ts_count(store); i++) {
        const ts_tensor *t = ts_at(store, i);
        json_array_append_new(
            a, json_pack("{s:s, s:s, s:o, s:I, s:s, s:I}", "name", t->name, "dtype",
                         ts_type_name(t->type), "shape", shape_json(t->shape, t->n_dims), "bytes",
                         (json_int_t)t->bytes, "file", ts_file_path(store, t->file), "offset",
                         (json_int_t)t->offset));
    }
    return a;
}

static json_t *layers_json(const md_arch *c)
{
    json_t *a = json_array();
    for (int l = 0; l < c->n_layers; l++) {
        const md_layer_config *x = &c->layer[l];
        json_array_append_new(a,
                              json_pack("{s:s, s:b, s:i, s:i, s:i}", "mixer", mixer_name(x->mixer),
                                        "experts", x->moe, "window", x->window, "expert_width",
                                        x->expert_width, "shared_width", x->shared_width));
    }
    return a;
}

static bool print_json(const md_model *m, const cli_modules *modules, bool tensors)
{
    const md_arch *c = md_arch_of(m);
    const md_info *i = md_describe(m);
    json_t *notes = json_array();
    for (int k = 0; md_note(m, k); k++) json_array_append_new(notes, json_string(md_note(m, k)));
    json_t *o = json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, "
        "s:o}",
        "family", i->family, "layers", i->n_layers, "moe_layers", i->n_moe_layers, "hidden",
        i->hidden, "vocab", i->vocab, "experts", i->n_experts, "top_k", i->top_k, "max_context",
        i->max_context, "tied", c->tied, "resident_bytes", (json_int_t)i->resident_bytes,
        "decode_read_bytes", (json_int_t)i->decode_read_bytes, "expert_bytes",
        (json_int_t)i->expert_bytes, "experts_bytes", (json_int_t)i->experts_bytes,
        "kv_bytes_per_token", (json_int_t)i->kv_bytes_per_token, "fixed_state_bytes",
        (json_int_t)i->fixed_state_bytes, "blocks", layers_json(c), "modules",
        modules_json(modules), "notes", notes);
    if (o && tensors) json_object_set_new(o, "tensors", tensors_json(md_store(m)));
    return cli_put_json(o);
}

/* --- the verb
 * ------------------------------------------------------------------------------------- */

static fm_status inspect(const cli_args *a, const char *path, fm_error *err)
{
    md_options options = {.isa = kn_isa_best(), .kv_type = KN_KV_F16};
    md_model *model;
    cli_modules modules;
    fm_status status = cli_describe(path, &options, &model, err);
    if (status) return status;
    status = cli_modules_list(model, &modules, err);
    if (!status) {
        if (cli_has(a, "json")) print_json(model, &modules, cli_has(a, "tensors"));
        else print_text(model, &modules, cli_has(a, "tensors"));
        cli_modules_free(&modules);
    }
    md_close(model);
    return status;
}

int cmd_inspect(int argc, char **argv)
{
    cli_args args;
    int ended = cli_parse(&spec_inspect, argc, argv, &args);
    if (ended >= 0) return ended;
    char *path;
    fm_error err;
    cli_catch_signals();
    fm_status status = cli_resolve_described(cli_model_name(&args), &path, &err);
    if (!status) {
        status = inspect(&args, path, &err);
        bs_free(path);
    }
    return status ? cli_fail(&err) : cli_output_status();
}
