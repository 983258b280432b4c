/* planner.h - what fits, in how many bytes, and how fast, before any weight is read.
 *
 *   floor   = process + resident weights + states + scratch + prefix cache + one token's experts
 *   ceiling = min(RAM, every memory limit of the cgroups above this process) - reserve
 *
 * A budget is a ceiling on the resident set of the whole process: the program and its libraries,
 * stacks, tokenizer and tables, and allocator slack are measured and counted as "process". What the
 * budget leaves above the floor goes to expert slots. */
#ifndef ENGINE_PLANNER_H
#define ENGINE_PLANNER_H

#include "model/model.h"

/* What the machine allows. */
typedef struct en_machine {
    uint64_t ram_bytes;       /* physical memory, or --sim-ram */
    uint64_t available_bytes; /* what could be taken now without pushing others out */
    uint64_t limit_bytes;     /* the tightest of RAM and cgroup limits */
    uint64_t reserve_bytes;   /* left to the kernel and other programs */
    uint64_t ceiling_bytes;   /* limit - reserve */
    char limited_by[128];     /* "RAM", "--sim-ram" or the cgroup file that sets the limit */
} en_machine;

/* sim_ram 0: this machine. Reads /proc and /sys; never fails (unknown limits do not limit). */
void en_machine_read(uint64_t sim_ram, en_machine *out);

/* Resident set of this process now and at its highest, in bytes; 0 where unknown. */
uint64_t en_rss_bytes(void);
uint64_t en_peak_rss_bytes(void);

/* What the process holds now, without a model, and will need beside it: libraries, tokenizer,
 * stacks of so many threads, requests. The `process_bytes` of a plan. */
uint64_t en_process_bytes(int threads);

typedef struct en_plan_request {
    uint64_t budget_bytes;               /* --memory; 0: the planner's own choice */
    int capacity;                        /* --capacity: slots a layer; -1: by memory */
    int context;                         /* tokens a sequence; 0: min(model's maximum, 4096) */
    int sequences;                       /* states held at once */
    int max_tokens;                      /* tokens a forward step; 0: planner's choice */
    int max_logits;                      /* rows of logits a step */
    uint64_t prefix_bytes;               /* prefix cache beyond the states */
    uint64_t process_bytes;              /* program, libraries, tokenizer; 0: the usual figure */
    uint64_t sim_ram;                    /* 0: this machine */
    double disk_bytes_s, memory_bytes_s; /* rates for the forecast; 0: unknown */
    xp_options experts;                  /* policy, io, pack: what changes the bytes of a slot */
} en_plan_request;

enum { EN_FORECASTS = 6 };

typedef struct en_plan {
    uint64_t floor_bytes;  /* smallest budget that runs */
    uint64_t budget_bytes; /* the ceiling that will be kept */
    uint64_t process_bytes, resident_bytes, state_bytes, scratch_bytes, prefix_bytes;
    uint64_t slot_bytes;                  /* what the slots get */
    uint64_t expert_bytes, experts_bytes; /* one expert; all of them */
    int slots, slots_per_layer;           /* in all; on average a layer, rounded down */
    int context, sequences, max_tokens;
    bool fits;         /* budget >= floor and floor <= ceiling */
    bool all_resident; /* every expert has a slot */
    en_machine machine;
    int n_forecasts;
    struct {
        double hit_rate, tok_s;
    } forecast[EN_FORECASTS];
} en_plan;

/* Works on a model opened by md_open or md_open_config. FM_E_BUDGET when the budget (or the
 * machine) is below the floor: the message names the floor, and *out is filled all the same. */
fm_status en_make_plan(const md_model *model, const en_plan_request *request, en_plan *out,
                       fm_error *err);

/* "8G", "512M", "1.5GB", "123456": K M G T (also KiB...) are powers of 1024, KB MB GB TB of 1000.
 */
fm_status en_parse_size(const char *text, uint64_t *bytes, fm_error *err);

#endif
