/* jj_methods.h - the longer methods of str, for the table in jj_methods_more.c. */
#ifndef TEXT_JJ_METHODS_H
#define TEXT_JJ_METHODS_H

#include "text/jj.h"

jj_method_fn jjm_split, jjm_rsplit, jjm_partition, jjm_rpartition, jjm_find, jjm_rfind, jjm_index,
    jjm_rindex, jjm_count, jjm_startswith, jjm_endswith, jjm_removeprefix, jjm_removesuffix,
    jjm_ljust, jjm_rjust, jjm_center, jjm_zfill, jjm_splitlines, jjm_swapcase, jjm_expandtabs;

#endif
