#!/usr/bin/env python3
"""Tokenizers and Jinja cases of our own (tests/fixtures/text), with the results of the reference implementations."""
import json, os, subprocess, sys, tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "text")
PROGRAM = os.environ.get("FLASH_MOE", "build/flash-moe")
wrong = []


def ask(arguments, requests):
    data = "".join(json.dumps(r) + "\n" for r in requests).encode()
    r = subprocess.run([PROGRAM, *arguments, "--json"], input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    got = [json.loads(l.decode()) for l in r.stdout.split(b"\n") if l.strip()]
    if r.returncode or len(got) != len(requests):
        wrong.append(f"{arguments}: exit {r.returncode}, {len(got)} of {len(requests)} answers: {r.stderr.decode()[-200:]}")
    return got + [None] * (len(requests) - len(got))


def compare(name, requests, got, want):
    wrong.extend(f"{name}: {r!r}: {g!r} instead of {w!r}" for r, g, w in zip(requests, got, want) if g != w)
    return len(requests)


def tokenizer(name):
    with open(os.path.join(ROOT, name + ".jsonl"), encoding="utf-8") as f:
        cases = [json.loads(l) for l in f.read().split("\n") if l]
    at = ["--tokenizer", os.path.join(ROOT, name)]
    texts = [c for c in cases if "text" in c]
    plain = [{"text": c["text"], "special": False} for c in texts]
    special = [{"text": c["text"], "special": True} for c in texts]
    n = compare(name, plain, ask(["tokenize", *at], plain), [c["ids"] for c in texts])
    n += compare(name, special, ask(["tokenize", *at], special), [c.get("ids_special", c["ids"]) for c in texts])
    ids = [c["ids"] for c in cases]
    decoded = [c.get("decoded", c.get("text")) for c in cases]
    n += compare(name, ids, ask(["detokenize", *at], ids), decoded)
    cases = [c for c in cases if "prefixes" not in c]  # those say nothing of skipping
    ids = [c["ids"] for c in cases]
    skipped = [c.get("decoded_skip", c.get("text", c.get("decoded"))) for c in cases]
    return n + compare(name, ids, ask(["detokenize", "--skip-special", *at], ids), skipped)


def template(source, context, text, message=None):
    with tempfile.NamedTemporaryFile("w", suffix=".jinja", encoding="utf-8", newline="") as f:
        f.write(source)
        f.flush()
        r = subprocess.run([PROGRAM, "template", "--file", f.name, "--json"], input=(json.dumps(context) + "\n").encode(),
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    got = json.loads(r.stdout.decode()) if r.stdout.strip() else {"error": r.stderr.decode()}
    good = got.get("text") == text if text is not None else "error" in got and (message or "") in got["error"]
    if r.returncode not in (0, 1) or not good:
        wrong.append(f"{source!r}: {got!r} instead of {text!r}")


def main():
    checks = 0
    for name in sorted(n[:-6] for n in os.listdir(ROOT) if n.endswith(".jsonl")):
        checks += tokenizer(name)
    with open(os.path.join(ROOT, "jinja-cases.json"), encoding="utf-8") as f:
        for c in json.load(f):
            template(c["template"], c["context"], c.get("text"), c["error"] if c.get("error_kind") == "raise" else None)
            checks += 1
    with open(os.path.join(ROOT, "jinja-more.json"), encoding="utf-8") as f:
        more = json.load(f)
    for source, text in more["cases"]:
        template(source, more["context"], text)
        checks += 1
    for w in wrong[:20]:
        print(w[:400])
    print(f"{checks - len(wrong)} of {checks} exact")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
