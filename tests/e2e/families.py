#!/usr/bin/env python3
"""Every family, from both layouts: `score` against the stored reference logits (1e-4 of the largest logit, same argmax), and the
same bytes however the prompt is cut, whatever is kept in memory, with any number of threads and on any instruction set."""
import array
import json
import os
import subprocess
import sys
import tempfile

PROGRAM = os.environ["FLASH_MOE"]
FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "families")
TOLERANCE = 1e-4
VARIANTS = (["--prefill", "1"], ["--prefill", "5", "--threads", "2"], ["--capacity", "0", "--threads", "1"],
            ["--policy", "lru", "--io", "pread", "--isa", "portable"])


def read_floats(path):
    out = array.array("f")
    with open(path, "rb") as f:
        out.frombytes(f.read())
    if sys.byteorder == "big":
        out.byteswap()
    return out


def score(folder, out, extra):
    """-> problem or ''"""
    run = subprocess.run([PROGRAM, "score", "-m", folder, "--ids", os.path.join(folder, "ids.json"), "--logits", out, *extra],
                         capture_output=True, timeout=120)
    if run.returncode == 0:
        return ""
    lines = run.stderr.decode("utf-8", "replace").strip().splitlines()
    return f"exit {run.returncode}: {lines[-1] if lines else ''}"


def compare(got, want, tokens):
    """-> problem or ''"""
    if len(got) != len(want):
        return f"{len(got)} logits, {len(want)} expected"
    scale, vocab = max(map(abs, want)), len(want) // tokens
    for row in range(tokens):
        mine, theirs = (x[row * vocab:(row + 1) * vocab] for x in (got, want))
        error = max(abs(a - b) if a == a else float("inf") for a, b in zip(mine, theirs)) / scale
        if not error < TOLERANCE:
            return f"row {row} is off by {error:.1e}"
        if max(range(vocab), key=mine.__getitem__) != max(range(vocab), key=theirs.__getitem__):
            return f"row {row} has another argmax"
    return ""


def check(folder, work):
    with open(os.path.join(folder, "ids.json")) as f:
        tokens = len(json.load(f))
    for reference, flags in (("logits.f32", []), ("logits_mlx.f32", ["--router-compat", "mlx"])):
        want = os.path.join(folder, reference)
        if not os.path.exists(want):
            continue
        out = os.path.join(work, "out.f32")
        problem = score(folder, out, flags)
        problem = problem or compare(read_floats(out), read_floats(want), tokens)
        if problem:
            return f"{' '.join(flags)} {problem}".strip()
        with open(out, "rb") as f:
            base = f.read()
        for variant in VARIANTS:
            problem = score(folder, out, flags + variant)
            if problem:
                return f"{' '.join(flags + variant)} {problem}"
            with open(out, "rb") as f:
                if f.read() != base:
                    return f"other bytes with {' '.join(flags + variant)}"
    return ""


def main():
    names = sorted(os.listdir(FIXTURES))
    bad = 0
    with tempfile.TemporaryDirectory() as work:
        for name in names:
            problem = check(os.path.join(FIXTURES, name), work)
            bad += bool(problem)
            print(f"{'FAIL' if problem else 'ok  '} {name} {problem}".rstrip(), flush=True)
    print(f"{len(names) - bad} of {len(names)} families and layouts agree")
    return 1 if bad or not names else 0


if __name__ == "__main__":
    sys.exit(main())
