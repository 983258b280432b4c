/* prompts.h - prompt sets that `profile` runs when it is given no file: the seed's categories, our
 * own words. */
#ifndef CLI_PROMPTS_H
#define CLI_PROMPTS_H

typedef struct cli_prompt_set {
    const char *name;
    const char *const *prompts;
    int n;
} cli_prompt_set;

/* "diverse" (22: code, analysis, design, explanations, history, proof, Chinese, Japanese, logic),
 * "coding" (22), "tool-chat" (12 agent turns), ended by a NULL name. */
extern const cli_prompt_set cli_prompt_sets[];

const cli_prompt_set *cli_find_prompts(const char *name); /* NULL: no such set */

#endif
