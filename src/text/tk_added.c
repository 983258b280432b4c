/* Added tokens are searched for before everything else: at each position the longest one wins. A
 * byte trie per set; most texts are passed over by a look at the root. */
#include "base/mem.h"
#include "text/tk.h"

#include <string.h>

static uint32_t new_node(tk_trie *t, uint8_t byte)
{
    if (t->n == t->capacity) {
        size_t capacity = t->capacity ? t->capacity * 2 : 256;
        void *nodes = bs_realloc(t->nodes, capacity, sizeof *t->nodes);
        if (!nodes) return 0;
        t->nodes = nodes;
        t->capacity = capacity;
    }
    t->nodes[t->n] = (struct tk_trie_node){.token = -1, .byte = byte};
    return (uint32_t)t->n++;
}

/* The child of a node by byte: a list, newest first. 0: none. */
static uint32_t child(const tk_trie *t, uint32_t node, uint8_t byte)
{
    if (!node) return t->root[byte];
    uint32_t c = t->nodes[node].first;
    while (c && t->nodes[c].byte != byte) c = t->nodes[c].next;
    return c;
}

bool tk_trie_add(tk_trie *t, const char *s, size_t n, int32_t token)
{
    if (!n) return true;
    if (!t->n && (new_node(t, 0), !t->n)) return false; /* node 0 is the root */
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)s[i];
        uint32_t next = child(t, node, byte);
        if (!next) {
            if (!(next = new_node(t, byte))) return false;
            if (!node) t->root[byte] = next;
            else {
                t->nodes[next].next = t->nodes[node].first;
                t->nodes[node].first = next;
            }
        }
        node = next;
    }
    if (t->nodes[node].token < 0) t->nodes[node].token = token; /* the first of equal texts */
    return true;
}

void tk_trie_free(tk_trie *t)
{
    bs_free(t->nodes);
    memset(t, 0, sizeof *t);
}

static bool all_markup(const uint8_t *content, size_t from, size_t to)
{
    return !memchr(content + from, 1, to - from);
}

/* The longest allowed token that starts at `at`. */
static bool longest(const tk_trie *t, const char *s, size_t n, size_t at, const uint8_t *content,
                    const uint8_t *blocked, tk_match *out)
{
    uint32_t node = 0;
    bool found = false;
    for (size_t i = at; i < n; i++) {
        node = child(t, node, (uint8_t)s[i]);
        if (!node) break;
        int32_t token = t->nodes[node].token;
        if (token < 0) continue;
        if (content && blocked[token] && !all_markup(content, at, i + 1)) continue;
        *out = (tk_match){at, i + 1, token};
        found = true;
    }
    return found;
}

bool tk_trie_find(const tk_trie *t, const char *s, size_t n, size_t at, const uint8_t *content,
                  const uint8_t *blocked, tk_match *out)
{
    if (!t->n) return false;
    for (; at < n; at++)
        if (t->root[(uint8_t)s[at]] && longest(t, s, n, at, content, blocked, out)) return true;
    return false;
}
