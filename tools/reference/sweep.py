#!/usr/bin/env python3
"""Does `flash-moe score` agree with reference.py on random checkpoints of every family?

    sweep.py BINARY [-n SEEDS] [--first SEED] [--family NAME]... [--tokens 24] [--keep DIR]

Per checkpoint: logits within 1e-4 of max |logit| at every position; the same bytes when the prompt is cut into pieces of 1
and 7 tokens and when experts are read every time (--capacity 0). Where Hugging Face and mlx-lm route differently both are
tried. A row off whose closest router decision was below 1e-5 is reported as a near tie, not as a failure."""
import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

import numpy as np

import gen_checkpoint
import reference

TOLERANCE, TIE = 1e-4, 1e-5
TWO_ROUTINGS = ("hunyuan", "jamba", "phimoe")


def score(binary, folder, ids, vocab, extra):
    """-> (logits or None, message)"""
    out = os.path.join(os.path.dirname(ids), "out.f32")
    run = subprocess.run([binary, "score", "-m", folder, "--ids", ids, "--logits", out, *extra],
                         capture_output=True, timeout=300)
    if run.returncode:
        lines = run.stderr.decode("utf-8", "replace").strip().splitlines()
        return None, f"exit {run.returncode} {' '.join(extra)}: {lines[-1] if lines else ''}"
    return np.fromfile(out, "<f4").reshape(-1, vocab), ""


def compare(binary, folder, tokens, family, work):
    """-> (worst error, problem or '')"""
    ids = os.path.join(work, "ids.json")
    with open(ids, "w") as f:
        json.dump([int(t) for t in tokens], f)
    worst, problem = 0.0, ""
    for routing in ("hf", "mlx") if family in TWO_ROUTINGS else ("hf",):
        reference.Margin.least = np.inf
        want = reference.logits(folder, tokens, routing)
        tie = reference.Margin.least < TIE
        extra = ["--router-compat", "mlx"] if routing == "mlx" else []
        got, message = score(binary, folder, ids, want.shape[1], extra)
        if got is None:
            return worst, message
        error = np.abs(got - want).max(1) / np.abs(want).max()
        worst = max(worst, error.max() if not tie else 0)
        if not error.max() < TOLERANCE:
            row = int(np.argmax(~(error < TOLERANCE)))
            problem = f"{routing}: row {row} of {len(tokens)} is off by {error[row]:.1e} (worst {error.max():.1e})" + \
                      (f", near tie {reference.Margin.least:.0e}" if tie else "")
            if not tie:
                return worst, problem
        for other in (["--prefill", "1"], ["--prefill", "7"], ["--capacity", "0"], ["--threads", "1"]):
            again, message = score(binary, folder, ids, want.shape[1], extra + other)
            if again is None:
                return worst, message
            if again.tobytes() != got.tobytes():
                return worst, f"{routing}: other bytes with {' '.join(other)}"
    return worst, problem


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("binary")
    ap.add_argument("-n", type=int, default=3, help="checkpoints a family")
    ap.add_argument("--first", type=int, default=0, help="the first seed")
    ap.add_argument("--family", action="append", choices=sorted(gen_checkpoint.FAMILIES))
    ap.add_argument("--tokens", type=int, default=24)
    ap.add_argument("--keep", metavar="DIR", help="keep the checkpoints that fail in DIR")
    opt = ap.parse_args()
    bad = ties = done = 0
    for family in opt.family or sorted(gen_checkpoint.FAMILIES):
        for seed in range(opt.first, opt.first + opt.n):
            with tempfile.TemporaryDirectory() as work:
                folder = os.path.join(work, "model")
                notes = gen_checkpoint.generate(family, seed, folder)
                n = opt.tokens if seed % 4 else 80
                tokens = np.random.default_rng(seed).integers(0, 97, n)
                worst, problem = compare(opt.binary, folder, tokens, family, work)
                near = "near tie" in problem
                bad += bool(problem) and not near
                ties += near
                done += 1
                print(f"{'ok  ' if not problem else 'tie ' if near else 'FAIL'} {worst:.1e} {notes} {problem}".rstrip(), flush=True)
                if problem and opt.keep:
                    shutil.copytree(folder, os.path.join(opt.keep, f"{family}-{seed}"), dirs_exist_ok=True)
    print(f"{done - bad - ties} of {done} agree, {ties} near ties, {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
