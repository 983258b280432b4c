/* tk_bpe.h - the merge table, for the loader that fills it. */
#ifndef TEXT_TK_BPE_H
#define TEXT_TK_BPE_H

#include "text/tk.h"

#define TK_NO_MERGE UINT64_MAX
#define TK_NO_RANK UINT32_MAX

uint32_t tk_bpe_rank(const tk_bpe *b, int32_t left, int32_t right);

/* False: too many merges share a hash. b->slots must have a free slot. */
bool tk_bpe_insert(tk_bpe *b, int32_t left, int32_t right, uint32_t rank);

#endif
