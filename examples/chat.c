/* A conversation of two turns, streamed, under a memory budget, with statistics.
 *
 *   cc chat.c $(pkg-config --cflags --libs flash-moe) -o chat
 *   ./chat MODEL_FOLDER BUDGET_IN_MIB */
#include <flash_moe.h>
#include <stdio.h>
#include <stdlib.h>

/* Text arrives in whole characters; a token may bring none yet. */
static bool show(void *arg, const fm_token *token)
{
    (void)arg;
    fwrite(token->text, 1, token->text_bytes, stdout);
    fflush(stdout);
    return true; /* false would stop the answer */
}

static int fail(const fm_error *err)
{
    fprintf(stderr, "chat: %s\n", err->message);
    return 1;
}

int main(int argc, char **argv)
{
    static const char *const turns[] = {"Hello! Who are you?", "What does grep do?"};
    if (argc != 3) {
        fprintf(stderr, "usage: chat MODEL_FOLDER BUDGET_IN_MIB\n");
        return 2;
    }
    fm_error err;
    fm_model *model;
    fm_session *session;
    fm_options options = fm_options_default();
    options.memory_bytes = strtoull(argv[2], NULL, 10) << 20;
    options.context = 1024;
    if (fm_model_open(argv[1], &options, &model, &err)) return fail(&err);
    if (fm_session_open(model, &session, &err)) return fail(&err);

    fm_generation generation = fm_generation_default(model);
    generation.temperature = 0; /* greedy: the same answer every time, at any budget */
    generation.max_tokens = 80;
    for (int i = 0; i < 2; i++) {
        fm_result result;
        printf("> %s\n", turns[i]);
        if (fm_session_message(session, "user", turns[i], &err) ||
            fm_session_generate(session, &generation, show, NULL, &result, &err))
            return fail(&err);
        printf("\n(%s; %d of %d prompt tokens were there already)\n", result.finish_reason,
               result.reused_tokens, result.prompt_tokens);
    }

    fm_statistics s;
    fm_model_statistics(model, &s);
    printf("%.1f tokens/s; %llu experts from memory, %llu read; peak %.1f MiB\n", s.decode_tok_s,
           (unsigned long long)s.expert_hits, (unsigned long long)s.expert_misses,
           (double)s.peak_rss_bytes / (1 << 20));
    fm_session_close(session);
    fm_model_close(model);
    return 0;
}
