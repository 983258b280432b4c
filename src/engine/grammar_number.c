/* grammar_number.c - decimal numbers between two bounds, as an automaton over their digits.
 *
 * A bound is written out as whole digits and fraction digits. The number's sign splits the range in
 * two ranges of magnitudes; a magnitude is compared digit by digit, remembering whether it is still
 * equal to the lower and to the upper bound. */
#include "engine/grammar_build.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { WHOLE_DIGITS = 15, FRACTION_DIGITS = 15 };

typedef struct magnitude {
    char whole[WHOLE_DIGITS + 2]; /* no leading zeros, "0" for nothing */
    char fraction[32];            /* no trailing zeros */
    bool exclusive, infinite;
} magnitude;

static bool spell(double value, bool exclusive, magnitude *m)
{
    char text[64];
    memset(m, 0, sizeof *m);
    m->exclusive = exclusive;
    if (!(fabs(value) < 1e15)) return false;
    double v = fabs(value);
    /* The shortest spelling that gives the same double: 0.1 must not become 0.1000000000000000055
     */
    for (int digits = 0; digits <= FRACTION_DIGITS; digits++) {
        double back;
        snprintf(text, sizeof text, "%.*f", digits, v);
        if (sscanf(text, "%lf", &back) == 1 && back == v) break;
    }
    char *point = strchr(text, '.');
    size_t n = point ? (size_t)(point - text) : strlen(text);
    if (n > WHOLE_DIGITS) return false;
    memcpy(m->whole, text, n);
    if (point) {
        snprintf(m->fraction, sizeof m->fraction, "%s", point + 1);
        for (size_t k = strlen(m->fraction); k > 0 && m->fraction[k - 1] == '0'; k--)
            m->fraction[k - 1] = 0;
    }
    return true;
}

/* The fraction after a point, while the number is equal so far to lo and/or hi (NULL: free). */
static void fraction(gb *b, int from, const magnitude *lo, const magnitude *hi, int to)
{
    int n_lo = lo ? (int)strlen(lo->fraction) : 0, n_hi = hi ? (int)strlen(hi->fraction) : 0;
    /* States [free, eq lo, eq hi, eq both] after i digits; made on demand. */
    int now[4] = {-1, -1, -1, -1};
    now[(lo ? 1 : 0) | (hi ? 2 : 0)] = from;
    for (int i = 0; i <= FRACTION_DIGITS; i++) {
        int next[4] = {-1, -1, -1, -1};
        for (int k = 0; k < 4; k++) {
            if (now[k] < 0) continue;
            bool eq_lo = k & 1, eq_hi = k & 2;
            bool lo_done = !eq_lo || (i >= n_lo && !lo->exclusive);
            bool hi_done = !eq_hi || i < n_hi || !hi->exclusive;
            if (i > 0 && lo_done && hi_done) gb_eps(b, now[k], to);
            if (i == FRACTION_DIGITS) continue;
            int low = eq_lo && i < n_lo ? lo->fraction[i] - '0' : 0;
            int high = !eq_hi ? 9 : i < n_hi ? hi->fraction[i] - '0' : 0;
            for (int d = low; d <= high; d++) {
                int kind = (eq_lo && d == low ? 1 : 0) | (eq_hi && d == high ? 2 : 0);
                if (next[kind] < 0) next[kind] = gb_state(b);
                gb_bytes(b, now[k], '0' + d, '0' + d, next[kind]);
            }
        }
        memcpy(now, next, sizeof now);
    }
}

/* A whole number of n digits has been read; equal to lo / hi as flagged. May it end, may a
 * fraction follow? */
static void after_whole(gb *b, int at, const magnitude *lo, const magnitude *hi, bool integers,
                        int to)
{
    bool lo_ok = !lo || (!lo->fraction[0] && !lo->exclusive);
    bool hi_ok = !hi || hi->fraction[0] || !hi->exclusive;
    if (lo_ok && hi_ok) gb_eps(b, at, to);
    if (integers) return;
    int point = gb_state(b);
    gb_bytes(b, at, '.', '.', point);
    fraction(b, point, lo, hi, to);
}

/* Magnitudes of exactly n whole digits; lo / hi only where they have n digits too. */
static void whole_of(gb *b, int from, int n, const magnitude *lo, const magnitude *hi,
                     bool integers, int to)
{
    int now[4] = {-1, -1, -1, -1};
    now[(lo ? 1 : 0) | (hi ? 2 : 0)] = from;
    for (int i = 0; i < n; i++) {
        int next[4] = {-1, -1, -1, -1};
        for (int k = 0; k < 4; k++) {
            if (now[k] < 0) continue;
            int least = i == 0 && n > 1 ? 1 : 0;
            int low = (k & 1) ? lo->whole[i] - '0' : least;
            int high = (k & 2) ? hi->whole[i] - '0' : 9;
            for (int d = low > least ? low : least; d <= high; d++) {
                int kind = ((k & 1) && d == low ? 1 : 0) | ((k & 2) && d == high ? 2 : 0);
                if (next[kind] < 0) next[kind] = gb_state(b);
                gb_bytes(b, now[k], '0' + d, '0' + d, next[kind]);
            }
        }
        memcpy(now, next, sizeof now);
    }
    for (int k = 0; k < 4; k++)
        if (now[k] >= 0)
            after_whole(b, now[k], (k & 1) ? lo : NULL, (k & 2) ? hi : NULL, integers, to);
}

static void magnitudes(gb *b, int from, const magnitude *lo, const magnitude *hi, bool integers,
                       int to)
{
    int n_lo = lo ? (int)strlen(lo->whole) : 1;
    int n_hi = hi ? (int)strlen(hi->whole) : WHOLE_DIGITS;
    for (int n = n_lo; n <= n_hi; n++) {
        int start = gb_state(b);
        gb_eps(b, from, start);
        whole_of(b, start, n, lo && n == n_lo ? lo : NULL, hi && n == n_hi ? hi : NULL, integers,
                 to);
    }
}

/* Do any magnitudes lie between? Empty ranges leave no way, which the finishing check reports. */
static bool ordered(double lo, double hi, bool open)
{
    return lo < hi || (lo == hi && !open);
}

void gb_number_range(gb *b, int from, gb_bound min, gb_bound max, bool whole, int to)
{
    magnitude lo, hi;
    if ((min.set && !(fabs(min.value) < 1e15)) || (max.set && !(fabs(max.value) < 1e15))) {
        gb_fail(b, FM_E_UNSUPPORTED, "number bounds must be smaller than 1e15");
        return;
    }
    bool open = (min.set && min.exclusive) || (max.set && max.exclusive);
    if (min.set && max.set && !ordered(min.value, max.value, open)) return;
    gb_bound zero = {.set = true, .value = 0};
    if (!max.set || max.value > 0 || (max.value == 0 && !max.exclusive)) {
        gb_bound from_zero = min.set && min.value >= 0 ? min : zero;
        bool ok = spell(from_zero.value, from_zero.exclusive, &lo);
        ok = (!max.set || spell(max.value, max.exclusive, &hi)) && ok;
        if (ok) magnitudes(b, from, &lo, max.set ? &hi : NULL, whole, to);
    }
    if (!min.set || min.value < 0) { /* -x with x between -max and -min; zero has no sign here */
        gb_bound least = max.set && max.value < 0 ? max : (gb_bound){true, true, 0};
        int minus = gb_state(b);
        bool ok = spell(least.value, least.exclusive, &lo);
        ok = (!min.set || spell(min.value, min.exclusive, &hi)) && ok;
        gb_bytes(b, from, '-', '-', minus);
        if (ok) magnitudes(b, minus, &lo, min.set ? &hi : NULL, whole, to);
    }
}
