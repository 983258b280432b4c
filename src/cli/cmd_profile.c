/* profile: which experts a set of prompts uses. */
#include "cli/cli.h"
#include "cli/common.h"
#include "cli/prompts.h"

#include "base/mem.h"
#include "experts/profile.h"
#include "text/chat.h"

#include <string.h>
#include <unistd.h>

static const cli_option own[] = {
    {"output", 'o', CLI_FILE, "FILE", 0, 0, "the profile to write (JSON); required"},
    {"prompts", 0, CLI_TEXT, "SET", 0, 0,
     "diverse (the default), coding, tool-chat, or a file with a prompt a line"},
    {"max-tokens", 'n', CLI_INT, "N", 0, 100000, "tokens of each answer that are watched too; 10"},
    {"threshold", 0, CLI_NUMBER, "F", 0, 1, "share of prompts that makes an expert universal; 0.5"},
    {"discovery", 0, CLI_CHOICE, "exact|router-only", 0, 0,
     "compute everything, or only routers and shared experts (fast, roughly right)"},
    {"raw", 0, CLI_FLAG, NULL, 0, 0, "feed the prompts as they are, without the chat template"},
    {0},
};
static const cli_group own_group = {"Profile", own, false};

const cli_spec spec_profile = {
    .arguments = "[MODEL]",
    .most = 1,
    .about = "Runs a set of prompts and counts which experts the router chose: how many prompts "
             "touched each (activation_counts, as mlx-moe counts) and how many picks it got "
             "(token_counts). Experts that most prompts use are worth pinning: give the file to "
             "--profile of run, chat or serve.",
    .examples = "  flash-moe profile -o tiny.json\n"
                "  flash-moe profile mymodel -o code.json --prompts coding\n"
                "  flash-moe run mymodel -p hi --profile code.json --pin-top-k 32\n",
    .groups = {&own_group, &cli_group_model, &cli_group_engine},
};

/* --- prompts ------------------------------------------------------------------------------------
 */

typedef struct prompt_list {
    const char *const *prompts;
    int n;
    const char *name;
    bs_buf text; /* of a file */
    char **lines;
} prompt_list;

static fm_status read_prompt_file(const char *path, prompt_list *out, fm_error *err)
{
    fm_status status = cli_read_input(path, &out->text, err);
    if (status) return status;
    int most = 1;
    for (size_t i = 0; i < out->text.length; i++) most += out->text.data[i] == '\n';
    out->lines = bs_calloc((size_t)most, sizeof *out->lines);
    if (!out->lines) return fm_fail_nomem(err, "reading prompts");
    for (char *at = out->text.data, *line; at && (line = strsep(&at, "\n"));)
        if (*line) out->lines[out->n++] = line;
    out->prompts = (const char *const *)out->lines;
    out->name = path;
    return out->n ? FM_OK : fm_fail(err, FM_E_FORMAT, "%s: holds no prompts", path);
}

static fm_status choose_prompts(const cli_args *a, prompt_list *out, fm_error *err)
{
    const char *name = cli_text(a, "prompts", "diverse");
    const cli_prompt_set *set = cli_find_prompts(name);
    if (!set) return read_prompt_file(name, out, err);
    out->prompts = set->prompts;
    out->n = set->n;
    out->name = set->name;
    return FM_OK;
}

/* --- counting -----------------------------------------------------------------------------------
 */

static fm_status encode(const cli_args *a, en_engine *e, const char *text, tx_prompt *out,
                        fm_error *err)
{
    const tx_chat *chat = en_chat(e);
    if (!chat) return fm_fail(err, FM_E_UNSUPPORTED, "the model has no tokenizer");
    if (cli_has(a, "raw") || !tx_chat_has_template(chat))
        return tx_chat_raw_prompt(chat, text, strlen(text), &out->ids, err);
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", text);
    tx_chat_request request = {
        .messages = messages, .add_generation_prompt = true, .enable_thinking = -1};
    fm_status status = messages ? tx_chat_prompt(chat, &request, out, err)
                                : fm_fail(err, FM_E_FORMAT, "a prompt is not UTF-8 text");
    json_decref(messages);
    return status;
}

static void add(xp_profile *p, const uint64_t *counts)
{
    for (int l = 0; l < p->n_layers; l++)
        for (int x = 0; x < p->n_experts; x++) {
            uint64_t picks = counts[(size_t)l * (size_t)p->n_experts + (size_t)x];
            p->layers[l].prompts[x] += picks > 0;
            p->layers[l].tokens[x] += picks;
        }
    p->n_prompts++;
}

static fm_status count_prompt(const cli_args *a, en_engine *e, const char *text, xp_profile *p,
                              uint64_t *counts, fm_error *err)
{
    tx_prompt prompt = {0};
    fm_status status = encode(a, e, text, &prompt, err);
    memset(counts, 0, (size_t)p->n_layers * (size_t)p->n_experts * sizeof *counts);
    if (!status)
        status = en_count_experts(e, prompt.ids.data, (int)prompt.ids.length,
                                  cli_int(a, "max-tokens", 10), cli_choice(a, "discovery", 0) == 1,
                                  counts, err);
    tx_prompt_free(&prompt);
    if (!status) add(p, counts);
    return status;
}

static fm_status count_all(const cli_args *a, en_engine *e, const prompt_list *list, xp_profile *p,
                           fm_error *err)
{
    uint64_t *counts = bs_calloc((size_t)p->n_layers * (size_t)p->n_experts, sizeof *counts);
    fm_status status = counts ? FM_OK : fm_fail_nomem(err, "counting experts");
    bool show = isatty(2);
    for (int i = 0; i < list->n && !status; i++) {
        status = count_prompt(a, e, list->prompts[i], p, counts, err);
        if (cli_interrupted()) status = fm_fail(err, FM_E_CANCELLED, "interrupted");
        if (show) fprintf(stderr, "\rprompt %d of %d", i + 1, list->n);
    }
    if (show) fputc('\n', stderr);
    bs_free(counts);
    return status;
}

static fm_status new_profile(const cli_args *a, en_engine *e, const prompt_list *list,
                             xp_profile **out, fm_error *err)
{
    const md_info *info = en_describe(e);
    if (!info->n_moe_layers) return fm_fail(err, FM_E_ARGUMENT, "this model has no routed experts");
    int *ids = bs_calloc((size_t)info->n_moe_layers, sizeof *ids);
    if (!ids) return fm_fail_nomem(err, "making a profile");
    for (int i = 0; i < info->n_moe_layers; i++) ids[i] = md_moe_layer(en_model(e), i);
    const char *name = cli_model_name(a);
    fm_status status = xp_profile_create(name ? name : "flash-moe-tiny", info->n_experts,
                                         info->n_moe_layers, ids, out, err);
    bs_free(ids);
    if (status) return status;
    (*out)->threshold = cli_number(a, "threshold", 0.5);
    bs_free((*out)->preset);
    (*out)->preset = bs_strdup(list->name);
    return (*out)->preset ? FM_OK : fm_fail_nomem(err, "making a profile");
}

/* One line a layer would be much; the middle of the picture is enough here. */
static void summarise(const xp_profile *p, const char *path)
{
    long touched = 0, universal = 0;
    for (int l = 0; l < p->n_layers; l++)
        for (int x = 0; x < p->n_experts; x++) {
            uint32_t n = p->layers[l].prompts[x];
            touched += n > 0;
            universal += n > 0 && n >= (uint32_t)(int)(p->threshold * p->n_prompts);
        }
    long all = (long)p->n_layers * p->n_experts;
    fprintf(stderr,
            "%s: %d prompts touched %ld of %ld experts (%.1f %%); %ld (%.1f %%) are universal\n",
            path, p->n_prompts, touched, all, 100.0 * (double)touched / (double)all, universal,
            100.0 * (double)universal / (double)all);
}

static fm_status profile(const cli_args *a, fm_error *err)
{
    prompt_list list = {0};
    cli_session session = {0};
    xp_profile *p = NULL;
    en_options o = en_options_default();
    cli_engine_options(a, &o);
    fm_status status = choose_prompts(a, &list, err);
    if (!status) status = cli_open(a, &o, &session, err);
    if (!status) status = new_profile(a, session.engine, &list, &p, err);
    if (!status) status = count_all(a, session.engine, &list, p, err);
    if (!status) status = xp_profile_write(p, cli_text(a, "output", ""), err);
    if (!status) summarise(p, cli_text(a, "output", ""));
    xp_profile_free(p);
    if (session.engine) cli_close(&session, NULL);
    bs_buf_free(&list.text);
    bs_free(list.lines);
    return status;
}

int cmd_profile(int argc, char **argv)
{
    cli_args args;
    int status = cli_parse(&spec_profile, argc, argv, &args);
    if (status >= 0) return status;
    if (!cli_has(&args, "output")) {
        fprintf(stderr, "flash-moe profile: where to? give -o FILE\n");
        return 2;
    }
    cli_catch_signals();
    fm_error err;
    return profile(&args, &err) ? cli_fail(&err) : 0;
}
