/* warm.h - which experts are resident before they are asked for: profiles and pins, saved states,
 * and the seed's predictive mode with its warmups.
 *
 * Precedence at en_open: pins of --profile always win; a saved state of --cache-dir fills the slots
 * first, the profile's order after it. In exact mode the filling goes on in the background and
 * changes speed only. In predictive mode (LOSSY) the first request finds the set (--warmup) unless
 * a saved state or profile already did, later requests are preceded by a delta warmup, and
 * --refresh swaps between tokens. With --hold an answer is computed but not given out until the
 * incremental delta warmup is done; then prompt and state are computed anew, so nothing of what was
 * discarded remains. */
#ifndef ENGINE_WARM_H
#define ENGINE_WARM_H

#include "engine/engine.h"

typedef struct en_warm en_warm;
typedef struct en_choice en_choice;

/* Every option of these modes that could not act is an error. */
fm_status en_warm_check(const en_options *options, fm_error *err);

/* The last act of en_open: pins, saved state, profile. */
fm_status en_warm_open(en_engine *e, fm_error *err);

/* Writes the saved state; frees. */
void en_warm_close(en_engine *e);

/* The choice has a slot and has computed nothing yet: warmup or delta warmup for its prompt. */
fm_status en_warm_admit(en_engine *e, en_choice *c, fm_error *err);

/* After a pass: swaps between tokens; ends holding. */
fm_status en_warm_step(en_engine *e, fm_error *err);

#endif
