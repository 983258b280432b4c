#include "cli/plot.h"

#include "base/file.h"

#include <math.h>
#include <stdio.h>

enum { WIDTH = 720, HEIGHT = 420, LEFT = 70, RIGHT = 150, TOP = 40, BOTTOM = 50, TICKS = 5 };

static const char *const colors[CLI_PLOT_LINES] = {"#1f77b4", "#ff7f0e", "#2ca02c", "#d62728",
                                                   "#9467bd", "#8c564b", "#e377c2", "#7f7f7f",
                                                   "#bcbd22", "#17becf", "#444444", "#aa0000"};

int cli_plot_line(cli_plot *p, const char *name)
{
    if (p->n_lines == CLI_PLOT_LINES) return -1;
    p->line[p->n_lines].name = name;
    return p->n_lines++;
}

void cli_plot_point(cli_plot *p, int line, double x, double y)
{
    if (line < 0 || p->line[line].n == CLI_PLOT_POINTS) return;
    int i = p->line[line].n++;
    p->line[line].x[i] = x;
    p->line[line].y[i] = y;
}

/* The next figure of 1, 2, 2.5 or 5 times a power of ten that TICKS steps of reach `most`. */
static double round_step(double most)
{
    double raw = most > 0 ? most / TICKS : 1, power = pow(10, floor(log10(raw)));
    const double nice[] = {1, 2, 2.5, 5, 10};
    for (int i = 0; i < 5; i++)
        if (nice[i] * power >= raw * 0.999) return nice[i] * power;
    return 10 * power;
}

static void put_text(bs_buf *b, double x, double y, const char *anchor, const char *text)
{
    bs_buf_printf(b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    for (; *text; text++) {
        if (*text == '<') bs_buf_puts(b, "&lt;");
        else if (*text == '&') bs_buf_puts(b, "&amp;");
        else bs_buf_putc(b, *text);
    }
    bs_buf_puts(b, "</text>\n");
}

static void put_axes(bs_buf *b, const cli_plot *p, double x_step, double y_step)
{
    double w = WIDTH - LEFT - RIGHT, h = HEIGHT - TOP - BOTTOM;
    char label[32];
    for (int i = 0; i <= TICKS; i++) {
        double x = LEFT + w * i / TICKS, y = HEIGHT - BOTTOM - h * i / TICKS;
        bs_buf_printf(b, "<path d=\"M%d %.1fH%.1f\" stroke=\"#ddd\"/>\n", LEFT, y, LEFT + w);
        snprintf(label, sizeof label, "%g", y_step * i);
        put_text(b, LEFT - 8, y + 4, "end", label);
        snprintf(label, sizeof label, "%g", x_step * i);
        put_text(b, x, HEIGHT - BOTTOM + 18, "middle", label);
    }
    put_text(b, LEFT + w / 2, HEIGHT - 10, "middle", p->x_label);
    put_text(b, 10, TOP - 10, "start", p->y_label);
    put_text(b, LEFT + w / 2, 18, "middle", p->title);
}

static void put_lines(bs_buf *b, const cli_plot *p, double x_most, double y_most)
{
    double w = WIDTH - LEFT - RIGHT, h = HEIGHT - TOP - BOTTOM;
    for (int l = 0; l < p->n_lines; l++) {
        bs_buf_printf(b, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"",
                      colors[l]);
        for (int i = 0; i < p->line[l].n; i++)
            bs_buf_printf(b, "%.1f,%.1f ", LEFT + w * p->line[l].x[i] / x_most,
                          HEIGHT - BOTTOM - h * p->line[l].y[i] / y_most);
        bs_buf_puts(b, "\"/>\n");
        double y = TOP + 18.0 * l + 8;
        bs_buf_printf(b, "<path d=\"M%.1f %.1fh18\" stroke=\"%s\" stroke-width=\"3\"/>\n",
                      LEFT + w + 12, y - 4, colors[l]);
        put_text(b, LEFT + w + 36, y, "start", p->line[l].name);
    }
}

fm_status cli_plot_write(const cli_plot *p, const char *path, fm_error *err)
{
    double x_most = 0, y_most = 0;
    for (int l = 0; l < p->n_lines; l++)
        for (int i = 0; i < p->line[l].n; i++) {
            x_most = fmax(x_most, p->line[l].x[i]);
            y_most = fmax(y_most, p->line[l].y[i]);
        }
    double x_step = round_step(x_most), y_step = round_step(y_most);
    bs_buf b = {0};
    bs_buf_printf(&b,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" "
                  "font-family=\"sans-serif\" font-size=\"12\">\n"
                  "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
                  WIDTH, HEIGHT);
    put_axes(&b, p, x_step, y_step);
    put_lines(&b, p, TICKS * x_step, TICKS * y_step);
    bs_buf_puts(&b, "</svg>\n");
    fm_status status =
        b.failed ? fm_fail_nomem(err, path) : bs_write_file(path, b.data, b.length, err);
    bs_buf_free(&b);
    return status;
}
