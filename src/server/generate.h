/* generate.h - one request for text, whatever interface it came by: from parsed fields to tokens,
 * and from the engine's events to blocks of reasoning, text and tool calls.
 *
 * An interface (openai_chat.c, anthropic.c...) fills a sv_gen, names its sv_api, and calls
 * sv_gen_start. From then on the engine's thread calls the sv_api's functions as blocks grow. */
#ifndef SERVER_GENERATE_H
#define SERVER_GENERATE_H

#include "server/internal.h"

#include "engine/grammar.h"
#include "text/chat.h"

typedef enum sv_block_kind { SV_REASONING, SV_TEXT, SV_CALL } sv_block_kind;

/* A stretch of an answer. A call is complete when it appears: text is its arguments as JSON. */
typedef struct sv_block {
    sv_block_kind kind;
    char *name;  /* SV_CALL */
    char id[40]; /* of the call or item */
    bs_buf text;
} sv_block;

typedef struct sv_choice {
    sv_gen *gen;
    int index;
    tx_reply *reply;
    sv_block *blocks;
    int n_blocks;
    bool open;        /* the last block may still grow */
    json_t *logprobs; /* list; since the last taken in a stream, else all */
    en_matcher *matcher;
    en_finish finish;
    char *stop; /* the stop string that was met, or NULL */
    int tokens, reasoning_tokens;
    bool done, cut; /* cut: ended by us after a complete call */
    fm_error error;
} sv_choice;

/* What an interface does with an answer as it grows. All run in the engine's thread. */
typedef struct sv_api {
    const char *ping;             /* keeps a silent stream alive */
    void (*begin)(sv_request *r); /* stream: before anything else */
    void (*open)(sv_request *r, sv_choice *c, sv_block *b);
    void (*grow)(sv_request *r, sv_choice *c, sv_block *b, const char *text, size_t n);
    void (*close)(sv_request *r, sv_choice *c, sv_block *b);
    void (*finish)(sv_request *r, sv_choice *c);
    void (*end)(sv_request *r);                     /* stream: all choices are done */
    void (*fail)(sv_request *r, const sv_error *e); /* stream: an error in the middle */
    json_t *(*whole)(sv_request *r);                /* the answer in one piece */
} sv_api;

typedef enum sv_tool_choice { SV_TOOLS_AUTO, SV_TOOLS_NONE, SV_TOOLS_REQUIRED } sv_tool_choice;

struct sv_gen {
    sv_request *request;
    const sv_api *api;
    /* What is asked. */
    json_t *input;    /* the request's JSON, owned: fields below may point into it */
    json_t *messages; /* owned, normalised; NULL: `ids` were given */
    json_t *tools;    /* owned, OpenAI form; NULL none */
    json_t *extra;    /* owned, chat_template_kwargs; NULL none */
    sv_tool_choice tool_choice;
    const char *tool_name; /* the one that must be called, or NULL */
    bool parallel_calls;
    bool json_output;     /* any JSON object */
    const json_t *schema; /* the answer must obey it; NULL */
    int thinking;         /* 1, 0, -1 as tx_chat_request */
    bool continue_final;  /* go on with the last message, an assistant's */
    en_sampling sampling;
    long max_tokens; /* -1: as many as fit */
    long n;
    const char *stops[EN_MAX_STOPS];
    int n_stops;
    en_bias *bias;
    int n_bias;
    long top_logprobs; /* -1: none */
    bool stream, usage_in_stream, echo, ignore_end;
    int sequence; /* of events, for the Responses API */
    /* What comes out. */
    tx_ids ids;
    tx_tool_format tool_format;
    bool starts_in_reasoning;
    en_grammar *grammar;
    sv_choice *choices;
    int n_done;
    en_request_stats stats; /* of choice 0; tokens: of all */
    en_stats before, after; /* the engine's totals around the run */
    bool failed;
    atomic_bool settled; /* all choices are done, the fields above are at rest */
};

sv_gen *sv_gen_new(sv_request *r, const sv_api *api, json_t *input);
void sv_gen_free(sv_gen *g);
void sv_gen_log(sv_request *r);

/* Fields that all interfaces share by name: temperature, top_p, top_k, min_p, penalties, seed, stop
 * strings under `stop_key`, logit_bias. */
void sv_gen_fields(sv_gen *g, const json_t *body, const char *stop_key, sv_error *e);

/* Template, tools, grammar, tokens: after it g->ids stands. */
void sv_gen_prepare(sv_gen *g, sv_error *e);

/* Hand it to the engine and let the answer begin. On error the request was refused. */
void sv_gen_start(sv_gen *g, sv_error *e);

/* "stop", "length", "tool_calls" */
const char *sv_finish_reason(const sv_choice *c);
int sv_count_calls(const sv_choice *c);
int sv_total_tokens(const sv_gen *g);
int sv_reasoning_tokens(const sv_gen *g); /* those of them that were thought */
json_t *sv_timings(const sv_gen *g);
json_t *sv_x_moe(const sv_gen *g);
json_t *sv_take_logprobs(sv_choice *c); /* a new reference: {"content":[...]} or null */
void sv_block_text(const sv_choice *c, sv_block_kind kind, bs_buf *out); /* all of a kind */

/* messages.c: OpenAI messages for the template, content as plain strings. New reference. */
json_t *sv_normal_messages(const json_t *messages, sv_error *e);
json_t *sv_text_of(const json_t *content, const char *param, sv_error *e);
json_t *sv_normal_tools(const json_t *tools, sv_error *e);
/* For templates that know no tools: describe them in the system message, write calls as text. */
json_t *sv_messages_with_tools(const json_t *messages, const json_t *tools);

/* constrain.c: the grammar that tool_choice or response_format asks for, if any. */
void sv_constrain(sv_gen *g, sv_error *e);
void sv_read_tool_choice(sv_gen *g, const json_t *choice, sv_error *e);
void sv_read_response_format(sv_gen *g, const json_t *format, sv_error *e);
bool sv_mask(void *gen, int choice, float *logits, int vocab);
bool sv_accept(void *gen, int choice, int32_t token);

#endif
