#!/usr/bin/env python3
"""The same prompt gives byte-identical logits whatever the budget, threads, policy, reads, chunk size,
instruction set or store."""
import hashlib
import json
import os
import re
import tempfile

from common import SANITIZED, STORY, expect, floor_of, run, tokenize


def main():
    with tempfile.TemporaryDirectory() as tmp:
        ids = tokenize(STORY)[: 60 if SANITIZED else 120]
        ids_file = os.path.join(tmp, "ids.json")
        with open(ids_file, "w") as f:
            json.dump(ids, f)
        out = os.path.join(tmp, "logits")

        def score(*flags):
            run("score", "--ids", ids_file, "--logits", out, *flags, check=0)
            with open(out, "rb") as f:
                data = f.read()
            expect(len(data) == len(ids) * 8192 * 4, f"{len(data)} bytes of logits with {flags}")
            return hashlib.sha256(data).hexdigest()

        stats = run("score", "--ids", ids_file, "--capacity", 9, "--stats", check=0).err
        expect(re.match(rf"{len(ids)} tokens scored at [1-9][0-9.]* tok/s \(load \d+ ms\); [0-9.]+ % of experts from memory, [1-9]", stats),
               f"score --stats: {stats}")
        floor = floor_of("--ids", ids_file, verb="score")
        arms = [
            ["--memory", floor, "--threads", 1],
            ["--memory", floor, "--threads", 2, "--policy", "lru", "--prefill", 5],
            ["--memory", 2 * floor, "--policy", "lcp", "--threads", 2, "--prefill", len(ids)],
            ["--memory", floor + (4 << 20), "--buffered", "--prefill", 1],
            ["--memory", floor + (4 << 20), "--io", "pread", "--prefill", 31],
            ["--capacity", 0],
            ["--capacity", 9, "--prefetch", 2],
            ["--isa", "portable", "--prefill", 7],
        ]
        for isa in ("avx2", "avx512", "neon"):
            probe = run("score", "--ids", ids_file, "--isa", isa)
            if probe.returncode == 0:
                arms.append(["--isa", isa, "--prefill", 17])
            else:
                expect("this CPU has no" in probe.err, probe.err)
        store = os.path.join(tmp, "packed")
        run("pack", "-o", store, check=0)
        arms.append(["--pack-dir", store, "--memory", floor + (2 << 20)])
        arms.append(["--pack-dir", store, "--io", "pread", "--prefill", 13])
        if run("score", "--ids", ids_file, "--io", "uring").returncode == 0:
            arms.append(["--io", "uring", "--memory", floor + (4 << 20), "--pack-dir", store])
        wanted = score("--pack-dir", "")
        for arm in arms:
            expect(score(*arm) == wanted, f"other logits with {arm}")
            print("same", *arm)

        # Beyond 2,048 positions, decoding gives its parts to several threads, prefill does not.
        if SANITIZED:
            return
        ids = (ids * 20)[:2100]
        with open(ids_file, "w") as f:
            json.dump(ids, f)
        for bits in (8, 32):
            cache = ["--kv-bits", bits, "--context", 2200]
            wanted = score(*cache, "--prefill", 300)
            expect(score(*cache, "--prefill", 1, "--threads", 4) == wanted,
                   f"a long context alone differs from one in chunks, {bits} bits")
            print("same", *cache, "--prefill 1 --threads 4")


main()
