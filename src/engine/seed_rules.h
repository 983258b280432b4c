/* seed_rules.h - the seed's formulas, kept so that its users find the figures they know.
 *
 * Source: mlx-moe (mu-hashmi), the system this project rebuilds. Where the planner goes further,
 * planner.h says so; these functions return exactly what the seed's did. */
#ifndef ENGINE_SEED_RULES_H
#define ENGINE_SEED_RULES_H

/* select_capacity: experts a layer for 0.71 of `working_gb` (1e9 bytes) after base_gb of other
 * weights. slot_mb is one expert in 1e6 bytes, turned into GB by 1024 as the seed does. Rounded
 * down to a multiple of 8 from 16 up, clamped to 0..512. */
int en_select_capacity(double base_gb, double working_gb, int moe_layers, double slot_mb);

/* The first version of the same: 0.53 of the machine's memory, always a multiple of 8. */
int en_select_capacity_by_ram(double base_gb, double ram_gb, int moe_layers, double slot_mb);

/* The 85 % guard: `capacity`, or the largest multiple of 8 with which active_gb plus the slots stay
 * under 0.85 of ram_gb. */
int en_guard_capacity(int capacity, double active_gb, double ram_gb, int moe_layers,
                      double slot_mb);

/* How often (every `interval` tokens) and how much (layers a call) to refresh a fixed resident set,
 * from the tokens generated so far, the miss rate of the last window, and for how many calls in a
 * row nothing was swapped / the rate was <= 0.005. */
typedef struct en_refresh {
    int interval, layers;
} en_refresh;
en_refresh en_refresh_policy(int tokens, double miss_rate, int no_swap_streak, int low_streak);

#endif
