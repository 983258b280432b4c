#!/usr/bin/env python3
"""How much more a server gives when several ask at once: the same eight requests, in groups of 1, 2, 4 and 8.

usage: bench/server_load.py [--model DIR] [--tokens N] [--share 0.4] [--alike] [--rounds N] [--stream] [-- options of flash-moe serve]

The requests are unrelated; with --alike they are four answers each to two prompts, under seeds of their own.

Prompts are computed beforehand and kept, so what is timed is decoding, by the real server, over HTTP. Each answer is
compared with the same request's alone. FLASH_MOE names the program."""
import argparse
import json
import os
import statistics
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../tests/e2e"))
from server_common import Server, parse_events  # noqa: E402

PROMPTS = ["Tell me a story about a fox and a crow.", "What does grep do?", "Write a C function that reverses a string.",
           "Define the word lantern.", "What is 17 plus 25?", "Tell me about the sea.", "Write a Python function that counts words.",
           "How do I list the files of a folder by size?"]
AT_ONCE = tuple(int(n) for n in os.environ.get("AT_ONCE", "1 2 4 8").split())


def ask(server, number, args, tokens, out):
    which = number // 4 if args.alike else number
    body = {"prompt": PROMPTS[which] if args.text else [(which * 7919 + i * 104729) % 8000 + 10 for i in range(12)], "seed": number, "temperature": 0.8, "max_tokens": tokens, "ignore_eos": True, "stream": args.stream}
    connection = server.connect()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse().read().decode()
    if args.stream:
        out[number] = "".join(event["choices"][0]["text"] for _, event in parse_events(answer) if event != "[DONE]" and event["choices"])
    else:
        out[number] = json.loads(answer)["choices"][0]["text"]
    connection.close()


def groups_of(server, n, args, tokens, out):
    """All prompts, n at a time; the seconds that took."""
    start = time.monotonic()
    for first in range(0, len(PROMPTS), n):
        threads = [threading.Thread(target=ask, args=(server, i, args, tokens, out)) for i in range(first, first + n)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
    return time.monotonic() - start


def measure(server, n, args, alone):
    names = ("expert_hits_total", "expert_misses_total", "read_bytes_total", "read_wait_seconds_total", "steps_total")
    before, out = [server.metric(m) for m in names], {}
    seconds = groups_of(server, n, args, args.tokens, out)
    hits, misses, read, waited, steps = (server.metric(m) - b for m, b in zip(names, before))
    if any(out[i] != alone.setdefault(i, out[i]) for i in out):
        sys.exit(f"{n} at once: an answer differs from the same alone")
    tokens = len(PROMPTS) * args.tokens
    return {"rate": tokens / seconds, "hit": hits / (hits + misses), "read": read / tokens, "wait": waited / seconds, "asked": (hits + misses) / tokens,
            "step_ms": seconds / steps * 1e3}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--share", type=float, default=0.4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alike", action="store_true")
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("options", nargs="*")
    args = parser.parse_args()
    with Server("--quiet", "--parallel", "8", "--capacity", "8", model=args.model) as s:
        props = s.get("/props")[2]
    experts, args.text = props["model"]["experts"], props["has_chat_template"]  # synthetic models have no tokenizer: ids
    capacity = round(args.share * experts)
    print(f"room for {capacity} of {experts} experts a layer, {args.tokens} tokens a request")
    with Server("--quiet", "--parallel", "8", "--capacity", str(capacity), *args.options, model=args.model) as s:
        alone = {}
        groups_of(s, 8, args, 2, {})
        rows = {n: [] for n in AT_ONCE}
        for _ in range(args.rounds):  # interleaved: what else the machine does hits all alike
            for n in AT_ONCE:
                rows[n].append(measure(s, n, args, alone))
        for n in AT_ONCE:
            r = {key: statistics.median(row[key] for row in rows[n]) for key in rows[n][0]}
            gain = statistics.median(a["rate"] / b["rate"] for a, b in zip(rows[n], rows[AT_ONCE[0]]))
            print(f"{n} at once: {r['rate']:8.1f} tokens/s ({gain:.2f} x one), {r['hit']:6.1%} hits, {r['read'] / 1e3:9.1f} kB read and "
                  f"{r['asked']:5.1f} experts asked for a token, {r['wait']:5.1%} of the time waiting for reads, {r['step_ms']:.2f} ms a step")


main()
