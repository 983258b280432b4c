#!/usr/bin/env python3
"""Train flash-moe-tiny: tokenizer, training for a given time, export as an MLX 4-bit folder, report.

    train.py --data DIR --out DIR [--minutes 12] [--smoke]

See README.md for the data folder. One GPU; --smoke takes 60 steps and a small tokenizer sample."""
import argparse
import json
import math
import os
import random
import time

import torch

import data
from export import export
from model import Config, Model


def optimiser(model, rate):
    matrices = [p for n, p in model.named_parameters() if p.dim() >= 2 and "conv1d" not in n]
    rest = [p for n, p in model.named_parameters() if not (p.dim() >= 2 and "conv1d" not in n)]
    return torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
                             lr=rate, betas=(0.9, 0.95), fused=True)


def learning_rate(rate, step, done):
    """Warm-up over 300 steps, full until half of the time, then a cosine down to 2 %."""
    warm = min(1.0, (step + 1) / 300)
    cool = 1.0 if done < 0.5 else 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (done - 0.5) / 0.5))
    return rate * warm * cool


def train(model, stream, opt, log):
    """-> (steps, tokens). The clock starts after the first step, which compiles."""
    optim, total = optimiser(model, opt.lr), opt.minutes * 60
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.cache_size_limit = 64
    for layer in model.layers:  # two graphs (delta net, attention), reused by every layer
        layer.compile(dynamic=False)
    start, step = None, 0
    while True:
        done = 0.0 if start is None else (time.time() - start) / total
        if done >= 1 or (opt.smoke and step >= 60):
            return step, step * opt.batch * opt.seq
        for group in optim.param_groups:
            group["lr"] = learning_rate(opt.lr, step, done)
        x, y = stream.batch(opt.batch, opt.seq)
        loss, balance = model(x, y)
        (loss + model.c.aux_coef * balance).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optim.step()
        optim.zero_grad(set_to_none=True)
        if step == 0:
            torch.cuda.synchronize()
            start = time.time()
        step += 1
        if step % (20 if opt.smoke else 100) == 0:
            log(f"step {step} loss {loss.item():.4f} balance {balance.item():.3f} gradient {norm.item():.2f}")


def evaluate(model, streams, log):
    """-> losses and shares of routed picks a domain, with the weights as exported"""
    losses, routing = {}, {}
    model.eval()
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for name, v in streams.items():
            total, n = 0.0, 0
            picks = torch.zeros(len(model.layers), model.c.num_experts, device=v.device)
            for i in range(0, len(v), 32):
                loss, _ = model(v[i : i + 32, :-1], v[i : i + 32, 1:])
                total, n = total + loss.item(), n + 1
                for k, layer in enumerate(model.layers):
                    picks[k] += layer.mlp.counts
            losses[name] = total / n
            routing[name] = (picks / picks.sum(1, keepdim=True)).tolist()
            log("validation", name, losses[name])
    return losses, routing


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--data", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--minutes", type=float, default=12)
    ap.add_argument("--batch", type=int, default=80)
    ap.add_argument("--seq", type=int, default=1024)
    ap.add_argument("--lr", type=float, default=2e-3)
    ap.add_argument("--chat-repeat", type=int, default=3, help="how often the chat documents are seen an epoch")
    ap.add_argument("--smoke", action="store_true")
    opt = ap.parse_args()
    begin = time.time()

    def log(*what):
        print(f"[{time.time() - begin:7.1f}]", *what, flush=True)

    os.makedirs(opt.out, exist_ok=True)
    random.seed(1)
    torch.manual_seed(1)
    config = Config()
    config.qat = True
    docs, valid = data.read(opt.data, log)
    sample = data.sample(docs, 2e6 if opt.smoke else 12e6)
    tokenizer = data.build_tokenizer(sample, config.vocab_size, os.path.join(opt.out, "tokenizer.json"))
    stream = data.Stream(tokenizer, docs, opt.chat_repeat, "cuda", log)
    model = Model(config).to("cuda")
    log("parameters", sum(p.numel() for p in model.parameters()) / 1e6, "M")
    steps, tokens = train(model, stream, opt, log)
    log("trained", tokens / 1e6, "M tokens in", steps, "steps")
    checkpoint = os.path.join(opt.out, "model.pt")
    torch.save({"state": model.state_dict(), "config": {k: getattr(Config, k) for k in dir(Config) if k[0] != "_"}}, checkpoint)
    export(checkpoint, opt.out)
    losses, routing = evaluate(model, data.validation(tokenizer, valid, opt.seq, "cuda"), log)
    with open(os.path.join(opt.out, "routing-by-domain.json"), "w") as f:
        json.dump({"steps": steps, "tokens": tokens, "valid": losses, "routing": routing}, f)


if __name__ == "__main__":
    main()
