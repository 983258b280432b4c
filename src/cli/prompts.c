#include "cli/prompts.h"

#include <stddef.h>
#include <string.h>

#define COUNT(list) ((int)(sizeof(list) / sizeof *(list)))

static const char *const diverse[] = {
    /* code generation */
    "Write a Python function that merges overlapping intervals and explain its running time.",
    "Build a React component that shows a sortable table with a search field.",
    "In Rust, implement a thread-safe counter that several worker threads can increase.",
    "Write a JavaScript function that retries a fetch with exponential back-off.",
    "Create a FastAPI service with an endpoint that stores notes and one that searches them.",
    "Write a C function that reverses a singly linked list in place.",
    "Use NumPy to compute the moving average of a noisy signal without a Python loop.",
    "Write a Python decorator that caches results on disk and expires them after an hour.",
    /* analysis */
    "What does this code print, and how does its cost grow with n?\n"
    "for i in range(n):\n    for j in range(i, n, i + 1):\n        print(i, j)",
    /* design */
    "Design a system that shortens links for a hundred million users. Name the parts and the "
    "limits.",
    /* explanations */
    "Explain how a B-tree keeps a database index fast when keys are added in order.",
    "How does backpropagation find the gradient of every weight in one pass?",
    "Describe what happens between typing an address and seeing the page, layer by layer.",
    "Explain why floating point addition is not associative, with an example.",
    "Why is the sky blue at noon and red in the evening?",
    "What led to the fall of Constantinople in 1453, and what followed from it in Europe?",
    "Prove that there are infinitely many primes of the form 4k + 3.",
    /* other languages */
    "请用简单的语言解释什么是量子纠缠。",
    "为什么水在结冰时体积会变大？请说明原因。",
    "写一首关于秋天和远方朋友的短诗。",
    "日本の四季について、それぞれの行事を挙げながら短いエッセイを書いてください。",
    /* logic */
    "Three boxes are labelled apples, oranges and mixed; every label is wrong. You may take one "
    "fruit from one box. How do you label them right?",
};

static const char *const coding[] = {
    "Write a Python class for a priority queue with decrease-key.",
    "Parse a log file in Python and print the ten slowest requests.",
    "Write a Python generator that walks a folder and yields files larger than a limit.",
    "Show how to test a Python function that reads the clock.",
    "Turn this Python loop into a dictionary comprehension: for k in xs: d[k] = f(k)",
    "Write a TypeScript type that makes all fields of an object optional, recursively.",
    "Debounce a function in JavaScript so that only the last call within 200 ms runs.",
    "Write a Node.js script that streams a large CSV file and sums one column.",
    "Implement a binary search tree in Rust with insert and in-order iteration.",
    "Write a Go program that fetches ten addresses at the same time with a timeout.",
    "In C, write a function that splits a string at a delimiter without allocating.",
    "Explain the trade-offs between a message queue and a shared database for two services.",
    "Design the tables for a library that lends books, with reservations and fines.",
    "How would you roll out a schema change without downtime?",
    ("You may call read_file(path) and write_file(path, text). Plan the calls that rename a "
     "function."),
    "The build fails with 'undefined reference to sqrt'. Find the cause step by step.",
    "Given a failing test's output, list what to look at first and which commands to run.",
    "Search a repository for every place that parses dates by hand, and propose one helper.",
    "Review this C code: char *f(void) { char b[16]; strcpy(b, \"hi\"); return b; }",
    "Explain what this regular expression matches: ^(?:[a-z0-9]+-)*[a-z0-9]+$",
    "Write unit tests for a function that rounds money to the nearest five cents.",
    "Explain how a hash table grows, and why inserting stays cheap on average.",
};

#define TOOLS                                                                                      \
    "Tools: read_file(path), search_code(query), list_files(path), run_tests(), "                  \
    "apply_patch(diff), open_pull_request(title).\n"

static const char *const tool_chat[] = {
    TOOLS "User: The login test fails since this morning. Find out why.",
    TOOLS "User: Rename the function load_cfg to load_config everywhere.",
    TOOLS "User: What does the scheduler do when two jobs have the same priority?",
    TOOLS "User: Add a --quiet flag to the command line program.",
    TOOLS "User: List the files that have no tests and suggest which to begin with.",
    TOOLS
    "User: Upgrade the parser to accept trailing commas, and prove that nothing else changed.",
    TOOLS "User: Somebody reported a memory leak in the cache. Look for it.",
    TOOLS "User: Open a pull request with the fix that we discussed.",
    TOOLS "Assistant: I read src/main.c and ran the tests; two fail.\nUser: Go on with the first.",
    TOOLS "Assistant: The patch did not apply.\nUser: Read the file again and make a new patch.",
    TOOLS "Assistant: search_code found 14 places.\nUser: Group them by module and summarise.",
    TOOLS "Assistant: All tests pass now.\nUser: Write a short summary of the change for the team.",
};

const cli_prompt_set cli_prompt_sets[] = {
    {"diverse", diverse, COUNT(diverse)},
    {"coding", coding, COUNT(coding)},
    {"tool-chat", tool_chat, COUNT(tool_chat)},
    {NULL, NULL, 0},
};

const cli_prompt_set *cli_find_prompts(const char *name)
{
    for (const cli_prompt_set *s = cli_prompt_sets; s->name; s++)
        if (!strcmp(s->name, name)) return s;
    return NULL;
}
