/* tk_load.h - between tk_load.c, which reads the large tables of a tokenizer, and tk_pipeline.c,
 * which reads the rest. */
#ifndef TEXT_TK_LOAD_H
#define TEXT_TK_LOAD_H

#include "text/tk.h"

/* The sections of tokenizer.json other than the model, each parsed or NULL when absent or null. */
typedef struct tk_sections {
    json_t *added_tokens, *normalizer, *pre_tokenizer, *post_processor, *decoder;
} tk_sections;

void tk_free_sections(tk_sections *sections);

/* Normalizers, pre-tokenizers, decoders: before the model is read, which looks at them. */
fm_status tk_read_steps(tx_tokenizer *t, const tk_sections *sections, const char *path,
                        fm_error *err);

/* Added tokens and the post-processor: after the model's vocabulary was indexed. */
fm_status tk_read_added(tx_tokenizer *t, const tk_sections *sections, const char *path,
                        fm_error *err);

/* Tables from the user's cache (tk_cache.c). load: false when there are none for this file; *source
 * gets its hash, zero when caching is off. save: quietly does nothing when it cannot. */
bool tk_cache_load(const char *path, tx_tokenizer *t, uint64_t source[2]);
void tk_cache_save(const tx_tokenizer *t, const tk_sections *sections, const uint64_t source[2]);

/* The sections that vocab.json + merges.txt go with, from the folder's tokenizer_config.json and
 * added_tokens files. *unk is allocated, or NULL. */
fm_status tk_old_layout(const char *dir, tk_sections *out, char **unk, fm_error *err);

#endif
