#include "experts/policy.h"

#include <math.h>
#include <string.h>

void xp_clock_step(xp_clock *clock, int tokens, bool prefill)
{
    double limit = prefill ? 2.0 * XP_HALF_LIFE : 1e9;
    clock->advance = tokens < limit ? tokens : limit;
    clock->tokens += clock->advance;
    clock->steps++;
    clock->step_tokens = tokens;
    clock->prefill = prefill;
}

/* picks of step_tokens tokens chose the expert. Spread evenly over the time the step stands for,
 * their decayed sum is share * (1 + d + d^2 + ...), d the decay a token. One token: exactly 1. */
static double lfru_key(const xp_clock *clock, double key, int picks)
{
    const double d = exp2(-1.0 / XP_HALF_LIFE);
    double share = (double)picks / (clock->step_tokens > 0 ? clock->step_tokens : 1);
    double gain =
        clock->advance == 1.0 ? share : share * (1.0 - pow(d, clock->advance)) / (1.0 - d);
    double now = clock->tokens / XP_HALF_LIFE;
    return now + log2(exp2(key - now) + gain);
}

/* A prompt that streams past must not push out what decode uses: what prefill alone has touched
 * stays below every decoded step, ordered by how many of its tokens wanted it. */
static double lru_key(const xp_clock *clock, double key, int picks, bool resident)
{
    if (!clock->prefill) return (double)clock->steps;
    double share = (double)picks / (clock->step_tokens + 1.0);
    return resident && key > share ? key : share;
}

void xp_policy_use(xp_policy policy, const xp_clock *clock, xp_history *h, int picks, bool resident)
{
    h->last = (uint32_t)clock->steps;
    switch (policy) {
    case XP_LFRU: h->key = lfru_key(clock, h->key, picks); break;
    case XP_LRU: h->key = lru_key(clock, h->key, picks, resident); break;
    case XP_LCP:
        h->uses++;
        h->key = log2(h->uses) + (double)clock->steps / 64.0; /* log2(0.25^(1/128)) = -1/64 */
        break;
    }
}

void xp_policy_evicted(xp_policy policy, xp_history *h)
{
    if (policy == XP_LCP) h->uses = 0;
}

void xp_policy_forget(xp_history *h)
{
    *h = (xp_history){.key = -1e300};
}

double xp_policy_count(xp_policy policy, const xp_clock *clock, const xp_history *h)
{
    if (!h->last) return 0;
    switch (policy) {
    case XP_LFRU: return exp2(h->key - clock->tokens / XP_HALF_LIFE);
    case XP_LCP: return h->uses;
    case XP_LRU: break;
    }
    return 1;
}

xp_history xp_policy_restore(xp_policy policy, const xp_clock *clock, double count, uint64_t idle)
{
    xp_history h;
    xp_policy_forget(&h);
    if (count <= 0) return h;
    double steps = (double)clock->steps - (double)idle;
    if (policy == XP_LFRU) h.key = log2(count) + clock->tokens / XP_HALF_LIFE;
    if (policy == XP_LRU) h.key = steps;
    if (policy == XP_LCP) {
        h.uses = count < 1 ? 1 : count > 1e9 ? 1000000000 : (uint32_t)count;
        h.key = log2(h.uses) + steps / 64.0;
    }
    return h;
}

double xp_policy_lending_margin(xp_policy policy)
{
    return policy == XP_LRU ? 2.0 * XP_HALF_LIFE : 2.0; /* lru: steps; lfru: halvings */
}

static const char *const names[] = {[XP_LFRU] = "lfru", [XP_LRU] = "lru", [XP_LCP] = "lcp"};

const char *xp_policy_name(xp_policy policy)
{
    return names[policy];
}

bool xp_policy_parse(const char *name, xp_policy *out)
{
    for (int i = XP_LFRU; i <= XP_LCP; i++)
        if (!strcmp(name, names[i])) {
            *out = (xp_policy)i;
            return true;
        }
    return false;
}
