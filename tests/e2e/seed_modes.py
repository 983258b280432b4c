#!/usr/bin/env python3
"""Profiles, pins, saved states and the predictive mode at the command line, on the bundled model."""
import glob
import json
import os
import subprocess
import sys
import tempfile

PROG = os.environ["FLASH_MOE"]
PROMPT = ["-p", "Once upon a time there was", "--raw", "-n", "24", "--temp", "0", "--ignore-eos"]


def run(*args, fails=None):
    """-> the JSON of `run`; with fails: stderr, which must hold that text."""
    p = subprocess.run([PROG, "run", *PROMPT, "--json", *args], capture_output=True, timeout=120)
    err = p.stderr.decode()
    if fails:
        assert p.returncode == 1 and fails in err, (args, p.returncode, err)
        return err
    assert p.returncode == 0, (args, err)
    out = json.loads(p.stdout)
    out["err"] = err
    return out


def check_exact_stays_exact(tmp):
    exact = run()
    assert exact["mode"] == "exact" and exact["stats"]["dropped_mass"] == 0
    profile = os.path.join(tmp, "profile.json")
    made = subprocess.run([PROG, "profile", "-o", profile, "-n", "2"], capture_output=True, timeout=300)
    assert made.returncode == 0, made.stderr
    with open(profile) as f:
        data = json.load(f)
    assert data["num_prompts"] == 22 and data["moe_layers"] == 8 and data["num_experts"] == 64
    counts = data["layers"]["3"]["activation_counts"]
    assert data["layers"]["3"]["universal"] == sorted(int(e) for e, n in counts.items() if n >= 11)
    assert all(n <= data["layers"]["3"]["token_counts"][e] for e, n in counts.items())
    state = os.path.join(tmp, "state")
    for more in (["--profile", profile], ["--profile", profile, "--pin-top-k", "9", "--capacity", "14"],
                 ["--cache-dir", state], ["--cache-dir", state, "--capacity", "8"],
                 ["--cache-dir", state, "--profile", profile, "--policy", "lcp"]):
        got = run(*more)
        assert got["tokens"] == exact["tokens"], more
    return exact, profile, state


def check_saved_state(exact, state):
    files = glob.glob(os.path.join(state, "*.json"))
    assert len(files) == 1, files
    run("--cache-dir", state)
    warm = run("--cache-dir", state)["stats"]
    assert warm["expert_misses"] < exact["stats"]["expert_misses"], "a warm start misses less"
    with open(files[0]) as f:
        saved = json.load(f)
    saved["version"] = 1
    with open(files[0], "w") as f:
        json.dump(saved, f)
    got = run("--cache-dir", state)
    assert "saved state not used" in got["err"] and files[0] in got["err"], got["err"]
    assert got["tokens"] == exact["tokens"]
    assert "saved state not used" not in run("--cache-dir", state)["err"], "it was written anew"


def check_predictive(exact, profile):
    full = run("--mode", "predictive", "--capacity", "64")
    assert full["tokens"] == exact["tokens"], "with everything resident nothing is lost"
    assert full["mode"] == "predictive" and full["stats"]["dropped_mass"] == 0
    seen = []
    for more in (["--warmup", "router"], ["--warmup", "hybrid"], ["--warmup", "none"],
                 ["--on-miss", "substitute"], ["--refresh", "4"], ["--refresh", "-1"],
                 ["--profile", profile, "--pin-top-k", "4"], ["--warmup", "router", "--hold"]):
        got = run("--mode", "predictive", "--capacity", "12", *more)
        again = run("--mode", "predictive", "--capacity", "12", *more)
        assert got["tokens"] == again["tokens"], (more, "the same run twice")
        assert 0 < got["stats"]["dropped_mass"] < 1 and got["stats"]["dropped_picks"] > 0, more
        assert len(got["tokens"]) == 24, (more, "held tokens do not count")
        seen.append(tuple(got["tokens"]))
    assert len(set(seen)) > 3, "the ways of warming up differ"
    warm = run("--mode", "predictive", "--capacity", "40", "--warmup", "full")
    assert warm["tokens"][:10] == exact["tokens"][:10], "full warmup computes its tokens exactly"


def check_refusals(profile):
    run("--hold", fails="--hold acts in predictive mode only")
    run("--refresh", "3", fails="--refresh acts in predictive mode only")
    run("--warmup", "full", fails="--warmup acts in predictive mode only")
    run("--pin-top-k", "3", fails="give --profile")
    run("--mode", "predictive", "--capacity", "0", fails="capacity above 0")
    run("--profile", profile + ".none", fails="profile.json.none")
    with open(profile) as f:
        data = json.load(f)
    data["num_experts"] = 512
    foreign = profile + ".foreign"
    with open(foreign, "w") as f:
        json.dump(data, f)
    run("--profile", foreign, fails="512 experts")


def main():
    with tempfile.TemporaryDirectory() as tmp:
        exact, profile, state = check_exact_stays_exact(tmp)
        check_saved_state(exact, state)
        check_predictive(exact, profile)
        check_refusals(profile)
    print("1 passed, 0 failed")


if __name__ == "__main__":
    sys.exit(main())
