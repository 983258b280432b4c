/* chat.h - from messages to a prompt, and from what the model writes back to a message.
 *
 * A tx_chat is read from a model folder beside its tokenizer: the chat template, the special
 * tokens' names and the end-of-turn ids. It does not change after it was opened and may be used
 * from many threads at once. JSON values are jansson's; this room only reads what it is given. */
#ifndef TEXT_CHAT_H
#define TEXT_CHAT_H

#include "text/template.h"

#include <jansson.h>

typedef struct tx_chat tx_chat;

/* Read the template (chat_template.jinja, else tokenizer_config.json's chat_template: a string or
 * a list of {name, template}, else chat_template.json) and the EOS ids (generation_config.json's
 * replace config.json's; else the tokenizer's eos_token). A folder without a template is a base
 * model: opened, and tx_chat_has_template is false. dir may also name a tokenizer.json: its folder
 * is meant. t must outlive the chat. */
fm_status tx_chat_open(const char *dir, const tx_tokenizer *t, tx_chat **out, fm_error *err);
void tx_chat_free(tx_chat *c);

/* Use this template source instead of the folder's. Before the chat is shared between threads. */
fm_status tx_chat_set_template(tx_chat *c, const char *source, size_t n, fm_error *err);

bool tx_chat_has_template(const tx_chat *c);
const tx_tokenizer *tx_chat_tokenizer(const tx_chat *c);

/* Ids that end the model's turn. Never empty unless the model names none. */
const int32_t *tx_chat_eos_ids(const tx_chat *c, size_t *n);
bool tx_chat_is_eos(const tx_chat *c, int32_t id);

/* "bos", "eos", "pad" or "unk" -> the token's text, or NULL when the model has none. */
const char *tx_chat_special(const tx_chat *c, const char *name);

/* Does the vocabulary have <think> and </think>? Then enable_thinking means something. */
bool tx_chat_can_think(const tx_chat *c);

typedef struct tx_chat_request {
    /* OpenAI messages, an array of objects: role, content (string, null, or a list of
     * {"type":"text","text":..}), tool_calls, tool_call_id, name, reasoning_content... */
    json_t *messages;
    json_t *tools;     /* array of tool definitions, or NULL */
    json_t *documents; /* array, or NULL */
    json_t *extra;     /* object: chat_template_kwargs; overrides everything below; or NULL */
    bool add_generation_prompt;
    bool continue_final; /* the last message is an assistant's that is to be gone on with: the
                          * prompt ends with its content. Not with add_generation_prompt. */
    int enable_thinking; /* 1 yes, 0 no, -1 the model's default (yes when it can think) */
} tx_chat_request;

/* How a model writes tool calls. TX_TOOLS_NONE: this template knows no tools. */
typedef enum tx_tool_format {
    TX_TOOLS_NONE,
    TX_TOOLS_HERMES,   /* <tool_call>{"name":..,"arguments":..}</tool_call>: Qwen, Hermes, Hunyuan's
                          kin */
    TX_TOOLS_QWEN_XML, /* <tool_call><function=NAME><parameter=P>..: Qwen3-Coder, Qwen3.5 */
    TX_TOOLS_GLM,      /* <tool_call>NAME<arg_key>K</arg_key><arg_value>V</arg_value></tool_call> */
    TX_TOOLS_DEEPSEEK, /* <｜tool▁calls▁begin｜>... */
    TX_TOOLS_MISTRAL,  /* [TOOL_CALLS][{..}] and [TOOL_CALLS]NAME[ARGS]{..} */
    TX_TOOLS_MINIMAX,  /* <minimax:tool_call><invoke name=..><parameter name=..>.. */
    TX_TOOLS_HUNYUAN,  /* <tool_calls>[{..}]</tool_calls> and <tool_call>NAME ```json {..}``` */
    TX_TOOLS_KIMI,     /* <|tool_calls_section_begin|>... */
    TX_TOOLS_GRANITE,  /* <|tool_call|>[{..}] and <tool_call>[{..}] */
    TX_TOOLS_HARMONY,  /* gpt-oss: <|channel|>commentary to=functions.NAME<|message|>{..}<|call|> */
} tx_tool_format;

/* A rendered prompt and what the reply will look like. */
typedef struct tx_prompt {
    tx_ids ids;
    bs_buf text;          /* what the template printed */
    tx_segment *segments; /* markup and content stretches of text */
    size_t n_segments;
    bool starts_in_reasoning; /* the prompt ends inside <think>: the reply begins with reasoning */
    tx_tool_format tool_format;
} tx_prompt;

/* Zero-initialise *out; tx_prompt_free in any case. FM_E_UNSUPPORTED when there is no template ("a
 * base model: pass raw text"); FM_E_ARGUMENT with the template's own words when it called
 * raise_exception or the messages do not suit it. */
fm_status tx_chat_prompt(const tx_chat *c, const tx_chat_request *request, tx_prompt *out,
                         fm_error *err);
void tx_prompt_free(tx_prompt *p);

/* Render a whole context as it stands (messages, tools, add_generation_prompt...), with what the
 * model adds: special tokens, and tools: null. A request goes through this too. */
fm_status tx_chat_render(const tx_chat *c, const json_t *context, tx_rendered *out, fm_error *err);

/* The source of the template that this context is rendered with; "" for a base model. */
const char *tx_chat_source(const tx_chat *c, const json_t *context);

/* The ids of a rendered prompt: content never becomes a control token. */
fm_status tx_chat_encode(const tx_chat *c, const tx_rendered *r, tx_ids *out, fm_error *err);

/* A raw prompt: the whole text with the post-processor's BOS, unless it begins with it already. */
fm_status tx_chat_raw_prompt(const tx_chat *c, const char *text, size_t n, tx_ids *out,
                             fm_error *err);

/* --- the reply ------------------------------------------------------------------------------- */

typedef enum tx_delta_kind {
    TX_DELTA_CONTENT,   /* text/length: the next piece of the answer */
    TX_DELTA_REASONING, /* text/length: the next piece between <think> and </think> */
    TX_DELTA_TOOL_CALL, /* one complete call: name, and text/length = arguments, a JSON object */
} tx_delta_kind;

typedef struct tx_delta {
    tx_delta_kind kind;
    const char *text; /* terminated as well; valid during the call */
    size_t length;
    const char *name; /* TOOL_CALL: the function's name */
    int index;        /* TOOL_CALL: 0, 1, ... */
} tx_delta;

/* Called with each delta; a status other than FM_OK stops and is handed on. */
typedef fm_status tx_delta_fn(void *arg, const tx_delta *delta, fm_error *err);

/* Splits a reply into content, reasoning and tool calls while it is written. Text that may be the
 * start of a marker is held until that is decided. A call that cannot be read is given back as
 * content, just as the model wrote it. `tools` (may be NULL) are the request's: XML formats take
 * the values' types from their schemas. It is kept (a reference) until tx_reply_free. */
typedef struct tx_reply tx_reply;

fm_status tx_reply_open(const tx_chat *c, const tx_prompt *prompt, json_t *tools, tx_delta_fn *fn,
                        void *arg, tx_reply **out, fm_error *err);

/* The next id that the model chose. EOS ids are for the caller to notice; pushed, they print
 * nothing. */
fm_status tx_reply_push(tx_reply *r, int32_t id, fm_error *err);

/* The next piece of text, for callers that detokenize themselves. */
fm_status tx_reply_push_text(tx_reply *r, const char *text, size_t n, fm_error *err);

/* The reply is over: whatever was held comes out. */
fm_status tx_reply_finish(tx_reply *r, fm_error *err);
int tx_reply_tool_calls(const tx_reply *r); /* how many were seen */
void tx_reply_free(tx_reply *r);

/* The same without a chat, for tests and other texts. */
fm_status tx_reply_open_text(tx_tool_format format, bool starts_in_reasoning, json_t *tools,
                             tx_delta_fn *fn, void *arg, tx_reply **out, fm_error *err);

/* The format that a template's source speaks of. */
tx_tool_format tx_tool_format_of(const char *template_source);

#endif
