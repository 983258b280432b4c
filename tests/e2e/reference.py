#!/usr/bin/env python3
"""The bundled model against its reference outputs (mlx-lm): last logits, summed log-probability of the
prompt, greedy continuation."""
import json
import os
import tempfile

from common import MODEL, SANITIZED, expect, floats, run


def main():
    with open(os.path.join(MODEL, "reference.json")) as f:
        prompts = json.load(f)
    with tempfile.TemporaryDirectory() as tmp:
        ids_file, out = os.path.join(tmp, "ids"), os.path.join(tmp, "logits")
        for p in prompts[:2] if SANITIZED else prompts:
            with open(ids_file, "w") as f:
                json.dump(p["ids"], f)
            lines = run("score", "--ids", ids_file, "--logits", out, "--json", check=0).out.splitlines()
            last = floats(out)[-len(p["last_logits"]):]
            scale = max(abs(x) for x in p["last_logits"])
            worst = max(abs(a - b) for a, b in zip(last, p["last_logits"])) / scale
            total = sum(json.loads(line)["logprob"] or 0 for line in lines)
            drift = abs(total - p["prompt_logprob"]) / abs(p["prompt_logprob"])
            answer = json.loads(run("run", "--raw", "--temp", 0, "-n", len(p["greedy"]), "--json",
                                    "-p", p["prompt"], check=0).out)
            print(f"{p['prompt'][:30]!r}: logits {worst:.1e}, log-probability {drift:.1e}")
            expect(worst < 1e-3, f"logits are off by {worst:.2e} of the largest")
            expect(drift < 1e-3, f"log-probability {total}, wanted {p['prompt_logprob']}")
            expect(answer["prompt_tokens"] == len(p["ids"]), "the prompt is tokenized otherwise")
            expect(answer["tokens"] == p["greedy"], f"{answer['tokens']}\nwanted {p['greedy']}")


main()
