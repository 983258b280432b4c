#include "cli/cli.h"

#include <stddef.h>

const cli_verb cli_verbs[] = {
    {"run", "answer one prompt", cmd_run, &spec_run},
    {"chat", "talk to the model in the terminal", cmd_chat, &spec_chat},
    {"serve", "serve the model over HTTP: OpenAI, Anthropic, metrics, a page", cmd_serve,
     &spec_serve},
    {"plan", "what fits and how fast, before any weight is read", cmd_plan, &spec_plan},
    {"inspect", "what a model is made of, and in how many bytes", cmd_inspect, &spec_inspect},
    {"score", "logits and log-probabilities of given tokens", cmd_score, &spec_score},
    {"pull", "download a model from the hub: resumable, verified", cmd_pull, &spec_pull},
    {"list", "list the models in the hub cache", cmd_list, &spec_list},
    {"rm", "remove models from the hub cache", cmd_rm, &spec_rm},
    {"pack", "write the packed expert store", cmd_pack, &spec_pack},
    {"tune", "measure this machine, choose settings, store them", cmd_tune, &spec_tune},
    {"simulate", "hit rates of every policy on recorded routing", cmd_simulate, &spec_simulate},
    {"profile", "count which experts a set of prompts uses", cmd_profile, &spec_profile},
    {"tokenize", "text to token ids", cmd_tokenize, &spec_tokenize},
    {"detokenize", "token ids to text", cmd_detokenize, &spec_detokenize},
    {"bench", "measured speed against this machine's bounds", cmd_bench, &spec_bench},
    {"template", "render a chat template", cmd_template, &spec_template},
    {"synth", "a checkpoint with random weights in the shapes of a real model", cmd_synth,
     &spec_synth},
    {"version", "print the version", cmd_version, &spec_version},
    {"completion", "print a completion script for bash, zsh or fish", cmd_completion,
     &spec_completion},
    {NULL, NULL, NULL, NULL},
};
