/* template.h - chat templates: the Jinja that Hugging Face models ship, rendered as Jinja2 does
 * with transformers' settings (trim_blocks, lstrip_blocks, loop controls, generation blocks,
 * tojson, raise_exception, strftime_now; no autoescape, no inheritance).
 *
 * Every character that is printed is known to be markup, written by the template, or content, which
 * came from the context; a piece of a string keeps what it was through slices, strip, replace and
 * the like. Values are immutable, as in transformers' sandbox.
 *
 * A template does not change after it was compiled and may be rendered from many threads at once.
 */
#ifndef TEXT_TEMPLATE_H
#define TEXT_TEMPLATE_H

#include "text/tokenizer.h"

#include <jansson.h>
#include <time.h>

typedef struct tx_template tx_template;

/* Limits, each an FM_E_LIMIT when reached. */
enum {
    TX_TEMPLATE_MAX_SOURCE = 4 << 20,  /* bytes of template */
    TX_TEMPLATE_MAX_NESTING = 400,     /* brackets and blocks inside each other */
    TX_TEMPLATE_MAX_DEPTH = 1500,      /* evaluations inside each other: bounds macro recursion */
    TX_TEMPLATE_MAX_STEPS = 10000000,  /* evaluations in all */
    TX_TEMPLATE_MAX_OUTPUT = 64 << 20, /* bytes printed */
    TX_TEMPLATE_MAX_MEMORY = 1 << 29,  /* bytes of values made while rendering */
};

/* name (may be NULL) stands in messages. FM_E_FORMAT with the line for a syntax error. */
fm_status tx_template_compile(const char *source, size_t n, const char *name, tx_template **out,
                              fm_error *err);
void tx_template_free(tx_template *t);
const char *tx_template_source(const tx_template *t);

/* What a template printed. */
typedef struct tx_rendered {
    bs_buf text;
    tx_segment *segments; /* adjacent ones differ; they cover the text */
    size_t n_segments, capacity;
    bs_buf raised; /* after a failure: the whole message of raise_exception, else empty */
} tx_rendered;

/* Render with the names of `context`, an object. `trusted` (NULL-ended, may be NULL) are its keys
 * whose strings are markup: the special tokens. The well-known values of "role" are markup too.
 * now: for strftime_now; 0 is the present. Zero-initialise out; tx_rendered_free in any case. A
 * call of raise_exception is FM_E_ARGUMENT, any other error of the template FM_E_FORMAT. */
fm_status tx_template_render(const tx_template *t, const json_t *context,
                             const char *const *trusted, time_t now, tx_rendered *out,
                             fm_error *err);
void tx_rendered_free(tx_rendered *r);

#endif
