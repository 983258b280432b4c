/* Any bytes as model.safetensors (or, after a first byte of 'i', as the shard index): refused with
 * a message or opened, and what was opened stays inside the file. */
#include "tensors/tensors.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(const char *dir, const char *name, const uint8_t *data, size_t size)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) abort();
    close(fd);
}

static const char *scratch(void)
{
    static char dir[] = "/dev/shm/fuzz-safetensors-XXXXXX";
    static bool made;
    if (!made && !mkdtemp(dir)) abort();
    made = true;
    return dir;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char small[] = "\x38\0\0\0\0\0\0\0{\"w\":{\"dtype\":\"U8\",\"shape\":[1],"
                                "\"data_offsets\":[0,1]}}       x";
    const char *dir = scratch();
    bool index = size && data[0] == 'i';
    put(dir, "model.safetensors.index.json", index ? data + 1 : (const uint8_t *)"{}",
        index ? size - 1 : 2);
    if (index) put(dir, "model.safetensors", (const uint8_t *)small, sizeof small - 1);
    else put(dir, "model.safetensors", data, size);
    ts_store *store;
    fm_error err = {0};
    if (ts_open(dir, &store, &err)) {
        if (!err.message[0]) abort();
        return 0;
    }
    for (size_t i = 0; i < ts_count(store); i++) {
        const ts_tensor *t = ts_at(store, i);
        if (t->offset + t->bytes > ts_file_bytes(store, 0)) abort();
        if (ts_find(store, t->name) != t) abort();
    }
    ts_close(store);
    return 0;
}
