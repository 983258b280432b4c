#!/usr/bin/env python3
"""Write tests/fixtures/families: one small random checkpoint a family and layout, with reference logits.

    make_fixtures.py DIR

A fixture is config.json, model*.safetensors, ids.json, logits.f32 ([tokens][vocab] little-endian float32) and, where
mlx-lm routes differently, logits_mlx.f32. The seed is the first whose checkpoint is small and whose router decisions are all
clear, so that rounding cannot flip one."""
import json
import os
import shutil
import sys

import numpy as np

import checkpoint
import gen_checkpoint
import reference
from sweep import TWO_ROUTINGS

CLEAR = 3e-4
LIMIT = {"raw": 100_000, "mlx": 60_000, "old": 70_000}  # bytes; exceeded when no seed stays below
MODES = {  # the number format of a family's MLX fixture; the others take a random affine width
    "qwen3_moe": "mixed", "qwen2_moe": "mxfp4", "mixtral": "nvfp4", "minimax_m2": "mxfp8", "glm4_moe": "mixed",
    "deepseek_v3": "mxfp4", "jamba": "mixed", "granitemoe": "nvfp4", "qwen3_5_moe": "mxfp8", "gpt_oss": "mxfp4"}


def size(folder):
    return sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))


def attempt(family, layout, seed, folder, n_tokens, limit):
    """-> True when this seed gives a good fixture"""
    mode = MODES.get(family, "affine") if layout == "mlx" else layout
    gen_checkpoint.generate(family, seed, folder, mode, small=True)
    os.remove(os.path.join(folder, "about.txt"))
    if size(folder) > limit:
        return False
    ids = [int(t) for t in np.random.default_rng(seed).integers(0, 40, n_tokens)]
    for routing in ("hf", "mlx") if family in TWO_ROUTINGS else ("hf",):
        reference.Margin.least = np.inf
        rows = reference.logits(folder, ids, routing)
        if reference.Margin.least < CLEAR or not np.isfinite(rows).all():
            return False
        rows.astype("<f4").tofile(os.path.join(folder, "logits.f32" if routing == "hf" else "logits_mlx.f32"))
    with open(os.path.join(folder, "ids.json"), "w") as f:
        json.dump(ids, f)
    return True


def make(family, layout, out, n_tokens=16):
    folder = os.path.join(out, f"{layout}_{family}")
    for step in range(4 * 60):
        seed, limit = step % 60, LIMIT[layout] * (1 + 0.5 * (step // 60))
        shutil.rmtree(folder, ignore_errors=True)
        if attempt(family, layout, seed, folder, n_tokens, limit):
            print(f"{os.path.basename(folder):28} seed {seed:3} {size(folder):7} bytes", flush=True)
            return folder
    raise SystemExit(f"{family} {layout}: no seed is good")


def shard(folder, n):
    """Deal the tensors out over n files, so that the parts of an expert lie in different ones."""
    config, tensors = checkpoint.read_folder(folder)
    os.remove(os.path.join(folder, "model.safetensors"))
    checkpoint.write_folder(folder, config, tensors, np.random.default_rng(1), n)


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    out = sys.argv[1]
    for family in sorted(gen_checkpoint.FAMILIES):
        make(family, "mlx", out, 80 if family in ("qwen3_next", "gpt_oss", "deepseek_v3", "phimoe") else 16)
        make(family, "raw", out)
    for family in ("mixtral", "glm4_moe_lite", "qwen3_moe"):
        make(family, "old", out)
    for name in ("mlx_qwen3_next", "mlx_olmoe", "raw_qwen3_moe"):
        shard(os.path.join(out, name), 3)


if __name__ == "__main__":
    main()
