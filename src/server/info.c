/* info.c - what the server says about itself: models, health, properties, metrics. */
#include "server/internal.h"

#include "base/mem.h"
#include "text/chat.h"

#include <stdio.h>
#include <string.h>

static json_t *model_json(sv_server *s)
{
    const md_info *info = en_describe(s->engine);
    return json_pack("{s:s, s:s, s:I, s:s, s:i, s:s, s:s, s:s}", "id", s->model_name, "object",
                     "model", "created", (json_int_t)s->started, "owned_by", "flash-moe",
                     "max_model_len", en_get_options(s->engine)->context, "family", info->family,
                     "type", "model", "display_name", s->model_name);
}

void sv_get_models(sv_request *r, json_t *body)
{
    (void)body;
    sv_server *s = r->server;
    sv_answer(r, 200,
              json_pack("{s:s, s:[o], s:b, s:s, s:s}", "object", "list", "data", model_json(s),
                        "has_more", 0, "first_id", s->model_name, "last_id", s->model_name));
}

/* Any name is taken for the model that is there, as in requests. */
void sv_get_model(sv_request *r, json_t *body)
{
    (void)body;
    sv_answer(r, 200, model_json(r->server));
}

void sv_get_health(sv_request *r, json_t *body)
{
    (void)body;
    en_stats st;
    en_get_stats(r->server->engine, &st);
    bool well = !r->server->draining;
    sv_answer(r, well ? 200 : 503,
              json_pack("{s:s, s:i, s:i}", "status", well ? "ok" : "shutting down", "active",
                        st.active, "waiting", st.waiting));
}

void sv_get_props(sv_request *r, json_t *body)
{
    (void)body;
    sv_server *s = r->server;
    const md_info *info = en_describe(s->engine);
    const en_options *o = en_get_options(s->engine);
    const en_sampling *d =
        s->options->sampling ? s->options->sampling : en_default_sampling(s->engine);
    const tx_chat *chat = en_chat(s->engine);
    json_t *model =
        json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:I}", "name", s->model_name,
                  "family", info->family, "layers", info->n_layers, "moe_layers",
                  info->n_moe_layers, "experts", info->n_experts, "top_k", info->top_k, "hidden",
                  info->hidden, "vocab", info->vocab, "expert_bytes",
                  (json_int_t)info->expert_bytes, "experts_bytes", (json_int_t)info->experts_bytes);
    json_t *sampling = json_pack("{s:f, s:i, s:f, s:f, s:f}", "temperature", (double)d->temperature,
                                 "top_k", d->top_k, "top_p", (double)d->top_p, "min_p",
                                 (double)d->min_p, "repeat_penalty", (double)d->repeat_penalty);
    sv_answer(r, 200,
              json_pack("{s:o, s:o, s:i, s:i, s:b, s:b, s:s, s:i}", "model", model,
                        "default_generation_settings", sampling, "n_ctx", o->context, "total_slots",
                        o->parallel, "has_chat_template", chat && tx_chat_has_template(chat),
                        "can_think", chat && tx_chat_can_think(chat), "build_info",
                        "flash-moe " FM_VERSION, "max_tokens", s->options->max_tokens));
}

/* --- Prometheus
 * ----------------------------------------------------------------------------------- */

static void metric(bs_buf *out, const char *name, const char *type, const char *help, double value)
{
    bs_buf_printf(out, "# HELP flash_moe_%s %s\n# TYPE flash_moe_%s %s\nflash_moe_%s %.15g\n", name,
                  help, name, type, name, value);
}

static void engine_metrics(bs_buf *out, const en_stats *st)
{
    const struct {
        const char *name, *type, *help;
        double value;
    } all[] = {
        {"prompt_tokens_total", "counter", "Prompt tokens of finished and running requests",
         (double)st->prompt_tokens},
        {"prompt_tokens_cached_total", "counter", "Prompt tokens taken from kept conversations",
         (double)st->cached_tokens},
        {"generated_tokens_total", "counter", "Tokens generated", (double)st->tokens},
        {"steps_total", "counter", "Forward passes", (double)st->steps},
        {"expert_hits_total", "counter", "Experts that were in memory when asked for",
         (double)st->expert_hits},
        {"expert_misses_total", "counter", "Experts that had to be read",
         (double)st->expert_misses},
        {"prefetch_useful_total", "counter", "Experts read ahead and then used",
         (double)st->prefetch_useful},
        {"prefetch_wasted_total", "counter", "Experts read ahead in vain",
         (double)st->prefetch_wasted},
        {"read_bytes_total", "counter", "Bytes read from the model's files",
         (double)st->bytes_read},
        {"read_wait_seconds_total", "counter", "Time that computing stood still for reads",
         st->read_ms_exposed / 1e3},
        {"hit_rate", "gauge", "Share of experts found in memory since the start", st->hit_rate},
        {"prefill_tokens_per_second", "gauge", "Prompt tokens a second", st->prefill_tok_s},
        {"decode_tokens_per_second", "gauge", "Generated tokens a second", st->decode_tok_s},
        {"requests_active", "gauge", "Choices being computed", (double)st->active},
        {"requests_waiting", "gauge", "Choices in the queue", (double)st->waiting},
        {"slots", "gauge", "Experts that fit in memory", (double)st->slots},
        {"slot_bytes", "gauge", "Memory for experts", (double)st->slot_bytes},
        {"resident_bytes", "gauge", "Memory for all other weights", (double)st->resident_bytes},
        {"state_bytes", "gauge", "Memory for contexts", (double)st->state_bytes},
        {"prefix_bytes", "gauge", "Memory for kept conversations", (double)st->prefix_bytes},
        {"budget_bytes", "gauge", "Ceiling on the process's memory", (double)st->budget_bytes},
        {"peak_rss_bytes", "gauge", "Most memory the process has held", (double)st->peak_rss_bytes},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        metric(out, all[i].name, all[i].type, all[i].help, all[i].value);
}

void sv_get_metrics(sv_request *r, json_t *body)
{
    (void)body;
    sv_server *s = r->server;
    en_stats st;
    bs_buf out = {0};
    en_get_stats(s->engine, &st);
    engine_metrics(&out, &st);
    metric(&out, "http_requests_total", "counter", "HTTP requests received",
           (double)atomic_load(&s->n_requests));
    metric(&out, "http_errors_total", "counter", "Answers that were an error",
           (double)atomic_load(&s->n_errors));
    metric(&out, "http_unauthorised_total", "counter", "Requests without a valid key",
           (double)atomic_load(&s->n_refused));
    metric(&out, "http_connections_total", "counter", "Connections accepted",
           (double)atomic_load(&s->n_connections));
    metric(&out, "http_connections_open", "gauge", "Connections open now",
           (double)atomic_load(&s->open_connections));
    metric(&out, "requests_cancelled_total", "counter", "Answers broken off by the client",
           (double)atomic_load(&s->n_cancelled));
    sv_answer_text(r, 200, "text/plain; version=0.0.4; charset=utf-8", out.data ? out.data : "",
                   out.length);
    bs_buf_free(&out);
}
