/* The options that many verbs share, and what their help says. */
#include "cli/options.h"

static const cli_option model_options[] = {
    {"model", 'm', CLI_FOLDER, "MODEL", 0, 0,
     "a folder, or a Hugging Face id org/name; without one: the bundled model"},
    {"yes", 'y', CLI_FLAG, NULL, 0, 0, "download a missing model without asking"},
    {0},
};
const cli_group cli_group_model = {"Model", model_options, false};

static const cli_option engine_options[] = {
    {"memory", 0, CLI_SIZE, "SIZE", 0, 0,
     "ceiling on all the process holds, e.g. 8G; default: what the machine allows. More memory "
     "keeps "
     "more experts and is faster; the answer is the same, bit for bit"},
    {"capacity", 0, CLI_INT, "N", 0, 100000, "experts kept a layer, instead of by memory"},
    {"context", 'c', CLI_INT, "N", 1, 100000000, "tokens of prompt and answer together"},
    {"threads", 't', CLI_INT, "N", 1, 1024, "compute threads; default: the physical cores"},
    {"policy", 0, CLI_CHOICE, "lfru|lru|lcp", 0, 0, "which expert leaves when room is needed"},
    {"prefetch", 0, CLI_CHOICE, "off|auto|N", 0, 0,
     "read experts that the next layer will probably want, N a layer at most (default auto; "
     "auto is off in predictive mode)"},
    {"io", 0, CLI_CHOICE, "auto|uring|pread", 0, 0, "how experts are read"},
    {"buffered", 0, CLI_FLAG, NULL, 0, 0, "read experts through the page cache"},
    {"lock", 0, CLI_FLAG, NULL, 0, 0, "lock weights and experts in memory (mlock)"},
    {"kv-bits", 0, CLI_CHOICE, "32|16|8", 0, 0, "bits of the attention cache (32 unless told)"},
    {"precision", 0, CLI_CHOICE, "f32|fast", 0, 0,
     "activations as 16-bit integers a group (fast, the default) or in float32"},
    {"isa", 0, CLI_CHOICE, "auto|portable|avx2|avx512|neon", 0, 0,
     "instruction set; all give the same bits"},
    {"router-compat", 0, CLI_CHOICE, "hf|mlx", 0, 0,
     "where mlx-lm routes otherwise than Hugging Face (Hunyuan, Jamba, PhiMoE): whom to follow"},
    {"pack-dir", 0, CLI_FOLDER, "DIR", 0, 0, "packed expert store to read from ('' for none)"},
    {0},
};
const cli_group cli_group_engine = {"Engine", engine_options, true};

static const cli_option seed_options[] = {
    {"mode", 0, CLI_CHOICE, "exact|predictive", 0, 0,
     "exact reads every expert it needs; predictive uses only what is in memory and is lossy"},
    {"on-miss", 0, CLI_CHOICE, "skip|substitute", 0, 0,
     "predictive: what stands for a missing expert"},
    {"refresh", 0, CLI_INT, "N", -1, 100000,
     "predictive: swap experts every N tokens; -1: as often as misses ask for"},
    {"warmup", 0, CLI_CHOICE, "none|router|full|hybrid", 0, 0, "predictive: how the set is found"},
    {"hold", 0, CLI_FLAG, NULL, 0, 0, "predictive: hold the answer until the set has settled"},
    {"profile", 0, CLI_FILE, "FILE", 0, 0, "routing profile that decides which experts are pinned"},
    {"pin-top-k", 0, CLI_INT, "N", 0, 100000, "pin the N most used experts a layer"},
    {"pin-threshold", 0, CLI_NUMBER, "F", 0, 1, "pin experts that this share of prompts used"},
    {"cache-dir", 0, CLI_FOLDER, "DIR", 0, 0, "keep and reuse the cache state between runs here"},
    {0},
};
const cli_group cli_group_seed = {"Resident experts", seed_options, true};

static const cli_option sampling_options[] = {
    {"temp", 0, CLI_NUMBER, "T", 0, 100, "temperature; 0 is greedy; default: the model's own"},
    {"top-k", 0, CLI_INT, "N", 0, 10000000, "draw from the N most probable tokens; 0: all"},
    {"top-p", 0, CLI_NUMBER, "P", 0, 1, "draw from the most probable tokens that hold P together"},
    {"min-p", 0, CLI_NUMBER, "P", 0, 1, "leave out tokens below P times the best one"},
    {"repeat-penalty", 0, CLI_NUMBER, "X", 0.01, 100, "make seen tokens less probable; 1: off"},
    {"presence-penalty", 0, CLI_NUMBER, "X", -100, 100, "subtract X from each generated token"},
    {"frequency-penalty", 0, CLI_NUMBER, "X", -100, 100,
     "subtract X for each time it was generated"},
    {"seed", 's', CLI_INT, "N", 0, 2147483647, "the same seed gives the same answer"},
    {"stop", 0, CLI_TEXT, "TEXT", 0, 0, "end the answer before TEXT; may be given several times"},
    {0},
};
const cli_group cli_group_sampling = {"Sampling", sampling_options, true};
