/* page.c - the web page, embedded in the program. */
#include "server/internal.h"

#include <string.h>

/* Made from src/server/web/ by tools/embed. */
extern const char sv_web_index_html[], sv_web_style_css[], sv_web_app_js[], sv_web_markdown_js[];
extern const char sv_web_map_js[], sv_web_icon_svg[];

static void put(sv_request *r, const char *type, const char *text)
{
    if (r->server->options->no_page) {
        sv_error e = {0};
        sv_error_set(&e, 404, NULL, "the page is switched off");
        sv_refuse(r, &e);
        return;
    }
    r->cache_control = "no-cache";
    sv_answer_text(r, 200, type, text, strlen(text));
}

void sv_get_page(sv_request *r, json_t *body)
{
    (void)body;
    put(r, "text/html; charset=utf-8", sv_web_index_html);
}

void sv_get_style(sv_request *r, json_t *body)
{
    (void)body;
    put(r, "text/css; charset=utf-8", sv_web_style_css);
}

void sv_get_script(sv_request *r, json_t *body)
{
    (void)body;
    const char *path = r->route->path;
    put(r, "text/javascript; charset=utf-8",
        !strcmp(path, "/map.js")        ? sv_web_map_js
        : !strcmp(path, "/markdown.js") ? sv_web_markdown_js
                                        : sv_web_app_js);
}

void sv_get_icon(sv_request *r, json_t *body)
{
    (void)body;
    put(r, "image/svg+xml", sv_web_icon_svg);
}
