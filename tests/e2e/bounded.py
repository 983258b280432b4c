#!/usr/bin/env python3
"""--memory is a ceiling: an answer at floor + 10 % inside a limit of exactly the budget, the peak within it,
and below the floor an error that names it. The limit is a memory cgroup where this user may make
one, else RLIMIT_AS with what the address space needs beyond it."""
import json
import os
import resource

from common import SANITIZED, expect, floor_of, run, skip

ARGS = ["--temp", "0", "-n", "40", "--json", "-p", "Tell me a story about a fox and a crow."]


def make_cgroup(limit):
    """The procs file of a new group with that limit, or None."""
    v1, v2 = "/sys/fs/cgroup/memory", "/sys/fs/cgroup"
    two = os.path.exists(os.path.join(v2, "cgroup.controllers"))
    group = os.path.join(v2 if two else v1, f"flash-moe-test-{os.getpid()}")
    try:
        os.mkdir(group)
        name = "memory.max" if two else "memory.limit_in_bytes"
        with open(os.path.join(group, name), "w") as f:
            f.write(str(limit))
        return group
    except OSError:
        if os.path.isdir(group):
            os.rmdir(group)
        return None


def main():
    if SANITIZED:
        skip("a sanitizer's shadow memory is no part of the budget")
    floor = floor_of(*ARGS)
    budget = floor + floor // 10
    group = make_cgroup(budget)

    def confine():
        if group:
            with open(os.path.join(group, "cgroup.procs"), "w") as f:
                f.write(str(os.getpid()))
        else:
            most = budget + (600 << 20)
            resource.setrlimit(resource.RLIMIT_AS, (most, most))

    free = json.loads(run("run", *ARGS, check=0).out)
    done = run("run", "--memory", budget, *ARGS, preexec_fn=confine)
    try:
        expect(done.returncode == 0, f"exit {done.returncode}: {done.err}")
        answer = json.loads(done.out)
        stats = answer["stats"]
        print("limited by", f"the cgroup {group}" if group else "RLIMIT_AS",
              f"to {budget} bytes; peak {stats['peak_rss_bytes']}")
        expect(answer["tokens"] == free["tokens"], "the tokens differ from those without a limit")
        expect(stats["peak_rss_bytes"] <= budget, f"peak {stats['peak_rss_bytes']} > budget {budget}")
        expect(stats["expert_misses"] > 0, "nothing was read: the budget does not bind")
    finally:
        if group:
            os.rmdir(group)

    # Exactly the floor that the message names is accepted; less is not.
    tight = json.loads(run("run", "--memory", floor, *ARGS, check=0).out)
    expect(tight["tokens"] == free["tokens"], "other tokens at the floor")
    expect(tight["stats"]["peak_rss_bytes"] <= floor, f"peak over the floor: {tight['stats']}")
    less = run("run", "--memory", floor - (3 << 20), *ARGS, check=1)
    expect("floor of" in less.err and f"--memory {floor >> 20}M" in less.err, less.err)
    plan = json.loads(run("plan", "--json", check=0).out)
    expect(abs(plan["floor_bytes"] - floor) < (4 << 20), f"plan says {plan['floor_bytes']}, run {floor}")
    rates = [("plan", "--json", "--disk-rate", "8G", "--memory-rate", rate) for rate in ("1G", "2G")]
    slow, fast = (json.loads(run(*r, check=0).out)["forecast"][-1]["tok_s"] for r in rates)
    expect(abs(fast / slow - 2) < 1e-3, f"twice the memory rate gives {fast} for {slow} tok/s")


main()
