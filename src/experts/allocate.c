#include "experts/allocate.h"

#include "base/mem.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

/* covered[l][c] = uses covered by the c most used experts of layer l; covered[l][E] is the total.
 */
typedef struct coverage {
    int n_layers, n_experts;
    uint64_t *covered;
} coverage;

static int falling(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

static bool coverage_of(coverage *c, const uint64_t *counts)
{
    size_t row = (size_t)c->n_experts + 1;
    c->covered = bs_calloc((size_t)c->n_layers * row, sizeof *c->covered);
    if (!c->covered) return false;
    for (int l = 0; l < c->n_layers; l++) {
        uint64_t *sum = c->covered + (size_t)l * row;
        for (int e = 0; e < c->n_experts; e++) sum[e + 1] = counts[(size_t)l * (row - 1) + e];
        qsort(sum + 1, (size_t)c->n_experts, sizeof *sum, falling);
        for (int e = 0; e < c->n_experts; e++) sum[e + 1] += sum[e];
    }
    return true;
}

static double miss_at(const coverage *c, int layer, int slots)
{
    const uint64_t *sum = c->covered + (size_t)layer * ((size_t)c->n_experts + 1);
    uint64_t total = sum[c->n_experts];
    return total ? 1.0 - (double)sum[slots] / (double)total : 0.0;
}

/* An even start whose sum is the budget, as far as the limits allow. */
static void start_even(const coverage *c, int budget, int least, int *slots)
{
    int even = budget / c->n_layers;
    if (even < least) even = least;
    if (even > c->n_experts) even = c->n_experts;
    long left = (long)budget - (long)even * c->n_layers;
    for (int l = 0; l < c->n_layers; l++) slots[l] = even;
    for (int l = 0; l < c->n_layers && left > 0; l++) {
        int more = c->n_experts - slots[l] < left ? c->n_experts - slots[l] : (int)left;
        more = more > 1 ? 1 : more; /* one each, low layers first */
        slots[l] += more;
        left -= more;
    }
    for (int l = c->n_layers - 1; l >= 0 && left < 0; l--) {
        int fewer = slots[l] - least < -left ? slots[l] - least : (int)-left;
        slots[l] -= fewer;
        left += fewer;
    }
}

static bool move_one(const coverage *c, int least, int *slots)
{
    int donor = 0, taker = 0;
    double cost = INFINITY, gain = -1;
    for (int l = 0; l < c->n_layers; l++) {
        double here = miss_at(c, l, slots[l]);
        double lose = slots[l] > least ? miss_at(c, l, slots[l] - 1) - here : INFINITY;
        double win = slots[l] < c->n_experts ? here - miss_at(c, l, slots[l] + 1) : 0;
        if (lose < cost) cost = lose, donor = l;
        if (win > gain) gain = win, taker = l;
    }
    if (donor == taker || gain <= cost || gain <= 1e-9) return false;
    slots[donor]--;
    slots[taker]++;
    return true;
}

fm_status xp_allocate(const uint64_t *counts, int n_layers, int n_experts, int budget, int least,
                      int *slots, double *miss_rate, int *moves, fm_error *err)
{
    if (n_layers < 1 || n_experts < 1 || budget < 0 || least < 0)
        return fm_fail(err, FM_E_ARGUMENT, "cannot divide %d slots over %d layers of %d experts",
                       budget, n_layers, n_experts);
    if (least > n_experts) least = n_experts;
    coverage c = {n_layers, n_experts, NULL};
    if (!coverage_of(&c, counts)) return fm_fail_nomem(err, "dividing slots over layers");
    start_even(&c, budget, least, slots);
    int moved = 0;
    while (moved < 2 * budget && move_one(&c, least, slots)) moved++;
    for (int l = 0; l < n_layers; l++) miss_rate[l] = miss_at(&c, l, slots[l]);
    if (moves) *moves = moved;
    bs_free(c.covered);
    return FM_OK;
}

static int clamp(int n, int low, int high)
{
    return n < low ? low : n > high ? high : n;
}

void xp_allocate_by_seen(const int *seen, int n_layers, int n_experts, int budget, int least,
                         int *slots)
{
    double sum = 0;
    if (least > n_experts) least = n_experts;
    for (int l = 0; l < n_layers; l++) {
        slots[l] = clamp((int)(1.3 * seen[l]), least, INT32_MAX);
        sum += slots[l];
    }
    long left = budget;
    for (int l = 0; l < n_layers; l++) {
        slots[l] = clamp((int)rint(slots[l] * (budget / sum)), least, n_experts);
        left -= slots[l];
    }
    /* One pass mends rounding, the fullest layers first. */
    for (int pass = n_experts; pass >= 0 && left; pass--)
        for (int l = 0; l < n_layers && left; l++) {
            int step = left > 0 ? 1 : -1;
            if (slots[l] != pass || slots[l] + step < least || slots[l] + step > n_experts)
                continue;
            slots[l] += step;
            left -= step;
        }
}
