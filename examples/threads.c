/* Several sessions at once: each thread has its own, their tokens are computed together.
 *
 *   cc threads.c -pthread $(pkg-config --cflags --libs flash-moe) -o threads
 *   ./threads MODEL_FOLDER */
#include <flash_moe.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

typedef struct job {
    fm_model *model;
    const char *prompt;
    char text[2048];
    int failed;
} job;

static bool collect(void *arg, const fm_token *token)
{
    job *j = arg;
    strncat(j->text, token->text, sizeof j->text - strlen(j->text) - 1);
    return true;
}

static void *answer(void *arg)
{
    job *j = arg;
    fm_session *session;
    fm_error err;
    fm_generation generation = fm_generation_default(j->model);
    generation.temperature = 0;
    generation.max_tokens = 40;
    j->failed = fm_session_open(j->model, &session, &err) ||
                fm_session_message(session, "user", j->prompt, &err) ||
                fm_session_generate(session, &generation, collect, j, NULL, &err);
    if (j->failed) snprintf(j->text, sizeof j->text, "%s", err.message);
    fm_session_close(session);
    return NULL;
}

int main(int argc, char **argv)
{
    static const char *const prompts[] = {"What does grep do?", "What does ls do?",
                                          "Tell me a story about a wolf."};
    enum { N = sizeof prompts / sizeof *prompts };
    if (argc != 2) {
        fprintf(stderr, "usage: threads MODEL_FOLDER\n");
        return 2;
    }
    fm_error err;
    fm_options options = fm_options_default();
    options.parallel = N;
    options.context = 512;
    fm_model *model;
    if (fm_model_open(argv[1], &options, &model, &err)) {
        fprintf(stderr, "threads: %s\n", err.message);
        return 1;
    }
    job jobs[N];
    pthread_t threads[N];
    int failed = 0;
    for (int i = 0; i < N; i++) {
        jobs[i] = (job){.model = model, .prompt = prompts[i]};
        pthread_create(&threads[i], NULL, answer, &jobs[i]);
    }
    for (int i = 0; i < N; i++) {
        pthread_join(threads[i], NULL);
        printf("> %s\n%s\n", jobs[i].prompt, jobs[i].text);
        failed |= jobs[i].failed;
    }
    fm_model_close(model);
    return failed;
}
