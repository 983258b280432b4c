#include "cli/cli.h"
#include "cli/common.h"
#include "cli/forecast.h"

#include "base/file.h"
#include "base/mem.h"
#include "text/chat.h"

#include <string.h>

static const cli_option own[] = {
    {"sim-ram", 0, CLI_SIZE, "SIZE", 0, 0, "plan for a machine with so much memory"},
    {"disk-rate", 0, CLI_SIZE, "SIZE", 0, 0,
     "bytes a second that its disk reads (default: measured)"},
    {"memory-rate", 0, CLI_SIZE, "SIZE", 0, 0, "bytes a second that its memory reads"},
    {"parallel", 0, CLI_INT, "N", 1, 256, "conversations held at once"},
    {"json", 'j', CLI_FLAG, NULL, 0, 0, "the plan as a JSON object"},
    {0},
};
static const cli_group own_group = {"Plan", own, false};

const cli_spec spec_plan = {
    .arguments = "[MODEL]",
    .most = 1,
    .about =
        "Says whether a model fits, in how many bytes, and about how fast it will be, before "
        "any weight is read. MODEL may be a folder, a config.json alone, a hub id, or the name "
        "of one of the configurations that come with the project.",
    .examples = "  flash-moe plan\n"
                "  flash-moe plan qwen3-coder-next-4bit --sim-ram 16G\n"
                "  flash-moe plan ~/models/big-moe --memory 8G --context 32768 --json\n",
    .groups = {&own_group, &cli_group_model, &cli_group_engine},
};

static json_t *plan_json(const en_plan *p, const md_info *info, const en_plan_request *r)
{
    json_t *forecast = json_array();
    for (int i = 0; i < p->n_forecasts; i++)
        json_array_append_new(forecast, json_pack("{s:f, s:f}", "hit_rate", p->forecast[i].hit_rate,
                                                  "tok_s", p->forecast[i].tok_s));
    return json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:b, s:b, s:i, s:i, s:i, s:i,"
        " s:I, s:I, s:s, s:f, s:f, s:o}",
        "family", info->family, "floor_bytes", (json_int_t)p->floor_bytes, "expert_bytes",
        (json_int_t)p->expert_bytes, "experts_bytes", (json_int_t)p->experts_bytes,
        "resident_bytes", (json_int_t)p->resident_bytes, "state_bytes", (json_int_t)p->state_bytes,
        "scratch_bytes", (json_int_t)p->scratch_bytes, "process_bytes",
        (json_int_t)p->process_bytes, "slot_bytes", (json_int_t)p->slot_bytes, "budget_bytes",
        (json_int_t)p->budget_bytes, "slots", p->slots, "slots_per_layer", p->slots_per_layer,
        "fits", p->fits, "all_resident", p->all_resident, "n_experts", info->n_experts, "top_k",
        info->top_k, "moe_layers", info->n_moe_layers, "context", p->context, "ram_bytes",
        (json_int_t)p->machine.ram_bytes, "ceiling_bytes", (json_int_t)p->machine.ceiling_bytes,
        "limited_by", p->machine.limited_by, "disk_bytes_s", r->disk_bytes_s, "memory_bytes_s",
        r->memory_bytes_s, "forecast", forecast);
}

static void size_line(bs_buf *b, const char *name, uint64_t bytes, const char *note)
{
    if (bytes >= (uint64_t)1 << 30)
        bs_buf_printf(b, "  %-10s %9.2f GiB  %s\n", name, (double)bytes / (1 << 30), note);
    else bs_buf_printf(b, "  %-10s %9.1f MiB  %s\n", name, (double)bytes / (1 << 20), note);
}

static void print_plan(const en_plan *p, const md_info *info, const en_plan_request *r,
                       const char *why_not)
{
    bs_buf b = {0};
    char note[160];
    bs_buf_printf(&b, "%s: %d layers, %d with %d experts, %d a token\n", info->family,
                  info->n_layers, info->n_moe_layers, info->n_experts, info->top_k);
    size_line(&b, "experts", p->experts_bytes, "on disk, all of them");
    size_line(&b, "floor", p->floor_bytes, "the smallest budget that runs:");
    size_line(&b, " process", p->process_bytes, "program, libraries, tokenizer");
    size_line(&b, " weights", p->resident_bytes, "used by every token");
    snprintf(note, sizeof note, "%d tokens of context", p->context);
    size_line(&b, " state", p->state_bytes, note);
    size_line(&b, " scratch", p->scratch_bytes, "");
    snprintf(note, sizeof note, "of %.2f GiB that %s gives",
             (double)p->machine.limit_bytes / (1 << 30), p->machine.limited_by);
    size_line(&b, "ceiling", p->machine.ceiling_bytes, note);
    size_line(&b, "budget", p->budget_bytes, "");
    if (p->fits) {
        snprintf(note, sizeof note, "%d of %d experts a layer (%.0f %%)", p->slots_per_layer,
                 info->n_experts,
                 info->n_experts ? 100.0 * p->slots_per_layer / info->n_experts : 0.0);
        size_line(&b, "slots", p->slot_bytes, note);
        bs_buf_puts(&b, p->all_resident ? "fits: yes, with all experts in memory\n"
                                        : "fits: yes, streaming from disk\n");
    } else {
        bs_buf_printf(&b, "fits: no: %s\n", why_not);
    }
    if (p->n_forecasts) {
        bs_buf_printf(&b, "about, with %.1f GB/s from memory and %.2f GB/s from disk:\n  hit rate",
                      r->memory_bytes_s / 1e9, r->disk_bytes_s / 1e9);
        for (int i = 0; i < p->n_forecasts; i++)
            bs_buf_printf(&b, "%8.0f %%", p->forecast[i].hit_rate * 100);
        bs_buf_puts(&b, "\n  tok/s   ");
        for (int i = 0; i < p->n_forecasts; i++) bs_buf_printf(&b, "%10.1f", p->forecast[i].tok_s);
        bs_buf_puts(&b, "\n");
    }
    cli_put(b.data, b.length);
    bs_buf_free(&b);
}

/* What a run of this model would hold beside its weights: measured with its tokenizer in memory,
 * where the folder has one; 0: the usual figure. */
static uint64_t measure_process(const cli_args *a, const char *path)
{
    tx_tokenizer *tokenizer = NULL;
    tx_chat *chat = NULL;
    if (!bs_is_dir(path) || tx_tokenizer_open(path, &tokenizer, NULL)) return 0;
    if (tx_chat_open(path, tokenizer, &chat, NULL)) chat = NULL;
    uint64_t bytes = en_process_bytes(cli_int(a, "threads", bs_default_threads()));
    tx_chat_free(chat);
    tx_tokenizer_free(tokenizer);
    return bytes;
}

static fm_status plan(const cli_args *a, const char *path, fm_error *err)
{
    en_options o = en_options_default();
    cli_engine_options(a, &o);
    md_options options = {.isa = o.isa,
                          .precision = o.precision,
                          .kv_type = o.kv_bits == 8    ? KN_KV_I8
                                     : o.kv_bits == 16 ? KN_KV_F16
                                                       : KN_KV_F32,
                          .mlx_router = o.mlx_router};
    md_model *model;
    fm_status status = cli_describe(path, &options, &model, err);
    if (status) return status;
    en_plan_request r = {.budget_bytes = o.memory,
                         .capacity = o.capacity,
                         .context = o.context,
                         .sequences = cli_int(a, "parallel", 1),
                         .sim_ram = cli_size(a, "sim-ram", 0),
                         .disk_bytes_s = (double)cli_size(a, "disk-rate", 0),
                         .memory_bytes_s = (double)cli_size(a, "memory-rate", 0),
                         .experts = {.capacity = o.capacity, .policy = o.policy}};
    r.process_bytes = measure_process(a, path);
    cli_find_rates(path, model, o.threads, &r);
    en_plan p;
    fm_error why = {0};
    en_make_plan(model, &r, &p, &why);
    if (cli_has(a, "json")) cli_put_json(plan_json(&p, md_describe(model), &r));
    else print_plan(&p, md_describe(model), &r, why.message);
    md_close(model);
    return FM_OK;
}

int cmd_plan(int argc, char **argv)
{
    cli_args args;
    int status = cli_parse(&spec_plan, argc, argv, &args);
    if (status >= 0) return status;
    cli_catch_signals();
    char *path;
    fm_error err;
    fm_status failed = cli_resolve_described(cli_model_name(&args), &path, &err);
    if (!failed) {
        failed = plan(&args, path, &err);
        bs_free(path);
    }
    if (failed) return cli_fail(&err);
    return cli_output_status();
}
