/* api.h - what the files of the public API share. */
#ifndef ENGINE_API_H
#define ENGINE_API_H

#include "flash_moe.h"

#include "engine/engine.h"

#include <pthread.h>

struct fm_model {
    en_engine *engine;
    pthread_mutex_t step; /* one thread at a time steps the engine */
};

#endif
