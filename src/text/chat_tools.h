/* chat_tools.h - reading tool calls out of what a model wrote; inside this room only. */
#ifndef TEXT_CHAT_TOOLS_H
#define TEXT_CHAT_TOOLS_H

#include "text/chat.h"

/* A call that was read: both are terminated and owned by the list. */
typedef struct tx_call {
    char *name, *arguments; /* arguments: a JSON object */
} tx_call;

typedef struct tx_calls {
    tx_call *items;
    size_t n;
} tx_calls;

void tx_calls_free(tx_calls *calls);

/* Read the calls of one block, its outer markers off. *ok is false when it is not well-formed (then
 * calls is empty); a status only tells of memory. */
fm_status tx_read_calls(tx_tool_format format, const char *text, size_t n, const json_t *tools,
                        tx_calls *calls, bool *ok, fm_error *err);

#endif
