#include "engine/seed_rules.h"

enum { CAPACITY_STEP = 8, CAPACITY_MAX = 512 };

static int clamp(double capacity)
{
    return capacity < 0 ? 0 : capacity > CAPACITY_MAX ? CAPACITY_MAX : (int)capacity;
}

static double slots_gb(int moe_layers, double slot_mb)
{
    return moe_layers * slot_mb / 1024;
}

int en_select_capacity(double base_gb, double working_gb, int moe_layers, double slot_mb)
{
    double per_expert = slots_gb(moe_layers, slot_mb);
    if (per_expert <= 0) return 0;
    int capacity = clamp((0.71 * working_gb - base_gb) / per_expert);
    return capacity >= 2 * CAPACITY_STEP ? capacity - capacity % CAPACITY_STEP : capacity;
}

int en_select_capacity_by_ram(double base_gb, double ram_gb, int moe_layers, double slot_mb)
{
    double per_expert = slots_gb(moe_layers, slot_mb);
    if (per_expert <= 0) return 0;
    int capacity = clamp((0.53 * ram_gb - base_gb) / per_expert);
    return capacity - capacity % CAPACITY_STEP;
}

int en_guard_capacity(int capacity, double active_gb, double ram_gb, int moe_layers, double slot_mb)
{
    double per_expert = slots_gb(moe_layers, slot_mb);
    double room = 0.85 * ram_gb - active_gb;
    if (per_expert <= 0 || capacity * per_expert <= room) return capacity;
    int most = clamp(room / per_expert);
    return most - most % CAPACITY_STEP;
}

static en_refresh base_policy(int tokens, double miss_rate)
{
    if (miss_rate >= 0.35) return (en_refresh){1, 48};
    if (miss_rate >= 0.20) return (en_refresh){1, 32};
    if (miss_rate >= 0.10) return (en_refresh){2, 24};
    if (tokens <= 32) return (en_refresh){2, 24};
    if (tokens <= 96) return (en_refresh){3, 16};
    return (en_refresh){4, 12};
}

static int at_least(int n, int least)
{
    return n > least ? n : least;
}

en_refresh en_refresh_policy(int tokens, double miss_rate, int no_swap_streak, int low_streak)
{
    en_refresh r = base_policy(tokens, miss_rate);
    if (no_swap_streak >= 4 && miss_rate < 0.15)
        r = (en_refresh){r.interval * 2, at_least(r.layers / 2, 8)};
    if (low_streak >= 6 && miss_rate < 0.08) r = (en_refresh){at_least(r.interval, 12), 8};
    if (low_streak >= 12 && miss_rate < 0.05) r = (en_refresh){at_least(r.interval, 20), 8};
    return r;
}
