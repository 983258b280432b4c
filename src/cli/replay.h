/* replay.h - recorded routing in place of a model's own choices: everything else stays real. */
#ifndef CLI_REPLAY_H
#define CLI_REPLAY_H

#include "engine/engine.h"
#include "experts/trace.h"

typedef struct cli_replay cli_replay;

/* From now on each decoded position of the engine takes the picks of the trace's next decode token
 * (and each prompt position those of its prompt tokens), starting over at the end. Layers beyond
 * the trace's use its layers again. A trace of fewer experts is spread over the model's: id times
 * their ratio. A trace of fewer picks a token leaves the model's last ones out. */
fm_status cli_replay_start(en_engine *engine, const xp_trace *trace, cli_replay **out,
                           fm_error *err);
void cli_replay_stop(cli_replay *replay);

#endif
