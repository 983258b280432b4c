#!/usr/bin/env python3
"""The suites of `bench` on the bundled model: what must hold whatever the machine's speed."""
import json
import os
import subprocess
import sys
import tempfile

PROG = os.environ["FLASH_MOE"]


def suite(name, *args):
    p = subprocess.run([PROG, "bench", "--suite", name, "--json", *args], capture_output=True, timeout=500)
    assert p.returncode == 0, (name, p.stderr.decode()[-600:])
    return json.loads(p.stdout)["rows"]


def check_turns():
    """Twenty turns: the same tokens at any budget, nothing more held after turn 3."""
    small, large = suite("multi-turn", "--memory", "80M"), suite("multi-turn", "--capacity", "64")
    assert len(small) == len(large) == 21
    assert small[-1]["digest"] == large[-1]["digest"]
    for rows in (small, large):
        assert rows[-1]["held_growth_after_turn_3"] == 0 and not rows[-1]["memory_warning"]
        assert all(r["cached_tokens"] > 0 for r in rows[1:20]), "each turn reuses the ones before"
        assert all(r["dropped_mass"] == 0 for r in rows[:20])


def check_quality(tmp):
    """Exact is flat to the last bit; a lossy mode with everything resident is exact too."""
    texts = os.path.join(tmp, "texts")
    os.mkdir(texts)
    with open("bench/texts/c.txt") as f, open(os.path.join(texts, "c.txt"), "w") as out:
        out.write(f.read())
    plot = os.path.join(tmp, "q.svg")
    rows = suite("quality", "--texts", texts, "-n", "30", "--svg", plot)
    digests = {(r["arm"], r["percent"]): r["digest"] for r in rows}
    assert len({digests[a] for a in digests if a[0] == "exact"}) == 1
    for r in rows:
        whole = r["arm"] == "exact" or r["percent"] == 100
        assert (r["kl"] == 0) == whole and (r["dropped_mass"] == 0) == whole, r
        if whole:
            assert r["digest"] == digests["exact", 100] and r["top1"] == 1
    with open(plot) as f:
        assert "<svg" in f.read()


def check_others(tmp):
    profile = "models/flash-moe-tiny/profile.json"
    starts = {r["start"]: r for r in suite("warmup", "--profile", profile, "--capacity", "32")}
    assert len(starts) == 9
    assert starts["another domain"]["open_s"] == 0 < starts["another domain"]["first_token_s"]
    assert starts["saved state, again"]["hit_rate"] > starts["saved state, first"]["hit_rate"]
    rows = suite("context", "-c", "300", "--capacity", "64")
    assert [r["context"] for r in rows] == sorted(r["context"] for r in rows) and len(rows) == 8
    rows = suite("models", "--models", "models/flash-moe-tiny,models/flash-moe-tiny/")
    assert [r["family"] for r in rows] == ["qwen3_next"] * 2
    p = subprocess.run([PROG, "bench", "--suite", "models"], capture_output=True, timeout=60)
    assert p.returncode == 1 and b"--models" in p.stderr


def check_batch():
    """1, 2, 4 and 8 sequences at once, with little memory and with all: the same tokens, and fewer steps."""
    few, all_ = (suite("batch", "-n", "12", "--rounds", "2", "--capacity", c) for c in ("16", "64"))
    for rows in (few, all_):
        assert [r["at_once"] for r in rows] == [1, 2, 4, 8] and rows[0]["gain"] == 1
        assert len({r["digest"] for r in few + all_}) == 1
    assert all(r["hit_rate"] == 1 and r["bytes_per_token"] == 0 for r in all_)
    assert all(0 < r["hit_rate"] < 1 and r["bytes_per_token"] > 0 for r in few)


def check_table():
    """Without --json the rows are a table on stdout, columns under their names; with it stdout holds nothing but JSON."""
    args = [PROG, "bench", "--suite", "batch", "-n", "4", "--rounds", "1", "--capacity", "16"]
    plain = subprocess.run(args, capture_output=True, timeout=500, text=True)
    lines = plain.stdout.splitlines()
    assert plain.returncode == 0 and len(lines) == 5, plain.stdout
    assert lines[0].split()[:3] == ["at_once", "tok_s", "gain"] and [line.split()[0] for line in lines[1:]] == ["1", "2", "4", "8"]
    assert len({len(line) for line in lines}) == 1 and "B  " in lines[1], "aligned, sizes with units"
    as_json = subprocess.run([*args, "--json"], capture_output=True, timeout=500, text=True)
    digest = json.loads(as_json.stdout)["rows"][0]["digest"]
    assert as_json.stderr.splitlines()[-5:][0] == lines[0] and lines[1].endswith(f"{digest:08x}")


def main():
    with tempfile.TemporaryDirectory() as tmp:
        check_turns()
        check_quality(tmp)
        check_others(tmp)
    check_batch()
    check_table()
    print("1 passed, 0 failed")


if __name__ == "__main__":
    sys.exit(main())
