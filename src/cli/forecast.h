/* forecast.h - how fast a model could be here, before it is downloaded or loaded. */
#ifndef CLI_FORECAST_H
#define CLI_FORECAST_H

#include "engine/planner.h"

/* Fill in the rates of disk and memory that r does not have yet: from what `tune` stored, else by
 * measuring for some tenths of a second. What cannot be measured stays 0. */
void cli_find_rates(const char *folder, const md_model *model, int threads, en_plan_request *r);

/* One clause about the model of a folder that may hold a config.json alone, with the usual
 * settings: "fits: yes, about 9 tok/s on this machine", or why it does not fit, or why
 * nothing can be said. */
typedef struct cli_forecast {
    char text[600];
} cli_forecast;
cli_forecast cli_forecast_model(const char *folder);

#endif
