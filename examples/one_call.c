/* The shortest use: one call.
 *
 *   cc one_call.c $(pkg-config --cflags --libs flash-moe) -o one_call
 *   ./one_call MODEL_FOLDER "What does grep do?" */
#include <flash_moe.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: one_call MODEL_FOLDER PROMPT\n");
        return 2;
    }
    fm_error err;
    char *answer = flash_generate(argv[1], argv[2], 60, &err);
    if (!answer) {
        fprintf(stderr, "one_call: %s\n", err.message);
        return 1;
    }
    puts(answer);
    flash_free(answer);
    return 0;
}
