/* plot.h - a line chart as SVG: what `simulate` and `bench` draw. */
#ifndef CLI_PLOT_H
#define CLI_PLOT_H

#include "base/error.h"

enum { CLI_PLOT_LINES = 12, CLI_PLOT_POINTS = 64 };

typedef struct cli_plot {
    const char *title, *x_label, *y_label;
    int n_lines;
    struct {
        const char *name;
        int n;
        double x[CLI_PLOT_POINTS], y[CLI_PLOT_POINTS];
    } line[CLI_PLOT_LINES];
} cli_plot;

/* The number of the new line; names are borrowed. Lines and points beyond the limits are left out.
 */
int cli_plot_line(cli_plot *plot, const char *name);
void cli_plot_point(cli_plot *plot, int line, double x, double y);

/* Axes start at 0 and end at round figures. */
fm_status cli_plot_write(const cli_plot *plot, const char *path, fm_error *err);

#endif
