#!/usr/bin/env python3
"""Several requests at once: each answer is the same as alone; prefixes are reused and stay right, over a restart too."""
import os
import shutil
import sys
import tempfile
import threading
import time

from server_common import Server, check, main, user

CHAT = "/v1/chat/completions"
PROMPTS = ["Tell me a story about a fox and a crow.", "What does grep do?", "Write a C function that reverses a string.", "Who are you?",
           "Define the word lantern.", "What is 17 plus 25?", "Tell me about the sea.", "Write a Python function that counts words."]
FIXED = {"temperature": 0.8, "max_tokens": 48}


def text_of(answer):
    return answer["choices"][0]["message"]["content"]


def together(server, asks):
    out = [None] * len(asks)

    def one(i):
        out[i] = server.ok(CHAT, asks[i])

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(asks))]
    start = time.time()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return out, time.time() - start


def test_same_as_alone():
    asks = [{"messages": user(p), **FIXED, "seed": i} for i, p in enumerate(PROMPTS)]
    with Server("--quiet", "--parallel", "1", "--capacity", "64") as s:
        alone = [text_of(s.ok(CHAT, a)) for a in asks]
    for options in (("--parallel", "8", "--capacity", "64"), ("--parallel", "4", "--capacity", "12"), ("--parallel", "8", "--capacity", "26", "--threads", "1")):
        with Server("--quiet", *options) as s:
            answers, _ = together(s, asks)
            check([text_of(a) for a in answers] == alone, f"{options}: a batched answer differs from the same alone")


THINGS = ["a fox and a crow", "a king and his daughter", "an old miller", "a wolf and a lamb", "two brothers", "a golden bird", "a poor tailor", "the north wind"]


def test_throughput():
    """Tokens a second and bytes read a token at 1, 2, 4 and 8 requests with room for 40 % of the experts: the same story for all
    (each expert is read once for all of them: judged), and different ones (what they share depends on the model: printed)."""
    reads = {}
    with Server("--quiet", "--parallel", "8", "--capacity", "26") as s:
        for kind in ("same", "different"):
            for n in (1, 2, 4, 8):
                asks = [{"messages": user(f"Tell me a story about {THINGS[0 if kind == 'same' else i]}."), "temperature": 0.8,
                         "seed": 0 if kind == "same" else i, "max_tokens": 80, "logit_bias": {"2": -100, "0": -100}} for i in range(n)]
                together(s, [{**a, "max_tokens": 2} for a in asks])  # the prompts are kept: what follows is decoding
                before = s.metric("read_bytes_total")
                answers, seconds = together(s, asks)
                tokens = sum(a["usage"]["completion_tokens"] for a in answers)
                reads[kind, n] = (s.metric("read_bytes_total") - before) / tokens
                print(f"      {kind}, {n} at once: {tokens / seconds:7.1f} tokens/s, {reads[kind, n] / 1e3:8.1f} kB read a token")
    check(reads["same", 4] < 0.7 * reads["same", 1], reads)


def conversation(server, turns, **more):
    messages, answers = [], []
    for turn in turns:
        messages.append({"role": "user", "content": turn})
        a = server.ok(CHAT, {"messages": messages, "temperature": 0, "max_tokens": 16, **more})
        answers.append(a)
        messages.append({"role": "assistant", "content": text_of(a)})
    return messages, answers


LONG = "Here is a text about lanterns and the people who carried them at night through the old town. " * 24
TURNS = [LONG + "What is it about?", "And who carried them?", "Thank you."]


def test_prefix_reuse():
    with Server("--quiet", "--parallel", "2") as s:
        messages, answers = conversation(s, TURNS)
        for a in answers[1:]:
            used = a["usage"]
            fresh = used["prompt_tokens"] - used["prompt_tokens_details"]["cached_tokens"]
            check(fresh < 40, f"a second turn computed {fresh} of {used['prompt_tokens']} prompt tokens")
        # Regenerating, and going on after others have used the slots, gives what a cold start gives.
        for i in range(4):
            s.ok(CHAT, {"messages": user(f"Something else, number {i}."), "max_tokens": 4})
        warm = s.ok(CHAT, {"messages": messages[:-1], "temperature": 0, "max_tokens": 16})
        edited = [{"role": "user", "content": LONG + "Who wrote it?"}]
        warm_edit = s.ok(CHAT, {"messages": edited, "temperature": 0, "max_tokens": 16})
    with Server("--quiet", "--parallel", "1") as s:
        cold = s.ok(CHAT, {"messages": messages[:-1], "temperature": 0, "max_tokens": 16})
        check(text_of(cold) == text_of(warm), "a reused prefix gives the same answer as a computed one")
        check(text_of(s.ok(CHAT, {"messages": edited, "temperature": 0, "max_tokens": 16})) == text_of(warm_edit), "an edited turn too")


def test_restart():
    folder = tempfile.mkdtemp()
    try:
        with Server("--quiet", "--kv-dir", folder) as s:
            messages, _ = conversation(s, TURNS[:2])
        files = sorted(os.listdir(folder))
        check(files and all(f.endswith(".conv") for f in files), files)
        check(os.stat(os.path.join(folder, files[0])).st_mode & 0o077 == 0, "conversations are private")
        ask = {"messages": messages + [{"role": "user", "content": "Thank you."}], "temperature": 0, "max_tokens": 16}
        with Server("--quiet", "--kv-dir", folder) as s:
            a = s.ok(CHAT, ask)
            check(a["usage"]["prompt_tokens_details"]["cached_tokens"] > 400, a["usage"])
        with Server("--quiet") as s:
            check(text_of(s.ok(CHAT, ask)) == text_of(a), "what was saved gives the same answer")
        # Damaged, truncated and foreign files are left alone.
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            data = bytearray(open(path, "rb").read())
            data[len(data) // 2] ^= 1
            open(path, "wb").write(data)
        open(os.path.join(folder, files[0][:17] + "0099.conv"), "wb").write(b"short")
        with Server("--quiet", "--kv-dir", folder) as s:
            check(s.ok(CHAT, ask)["usage"]["prompt_tokens_details"]["cached_tokens"] == 0, "a damaged file is not used")
        check(not os.path.exists(os.path.join(folder, files[0][:17] + "0099.conv")), "files beyond the kept ones are removed")
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            open(path, "r+b").truncate(os.path.getsize(path) // 2)
        with Server("--quiet", "--kv-dir", folder) as s:
            check(s.ok(CHAT, ask)["usage"]["prompt_tokens_details"]["cached_tokens"] == 0, "a truncated file is not used")
    finally:
        shutil.rmtree(folder)


def test_kill():
    """A conversation that has rested is on the disk: kill -9 does not lose it; half-written files are of no harm."""
    folder = tempfile.mkdtemp()
    try:
        with Server("--quiet", "--kv-dir", folder) as s:
            messages, _ = conversation(s, TURNS[:2])
            deadline = time.time() + 60
            while not any(f.endswith(".conv") for f in os.listdir(folder)) and time.time() < deadline:
                time.sleep(0.1)
            files = os.listdir(folder)
            check(len(files) == 1 and files[0].endswith(".conv"), files)
            check(os.stat(os.path.join(folder, files[0])).st_mode & 0o077 == 0, "conversations are private")
            s.process.kill()
            s.process.wait()
            s.process.returncode = 0
        open(os.path.join(folder, files[0] + ".tmp.1"), "wb").write(b"half")
        ask = {"messages": messages + [{"role": "user", "content": "Thank you."}], "temperature": 0, "max_tokens": 16}
        with Server("--quiet", "--kv-dir", folder) as s:
            check(os.listdir(folder) == files, "what a killed server was writing is removed")
            a = s.ok(CHAT, ask)
            check(a["usage"]["prompt_tokens_details"]["cached_tokens"] > 400, a["usage"])
            deadline = time.time() + 60  # the conversation has gone on: that is written too
            while len(os.listdir(folder)) < 2 and time.time() < deadline:
                time.sleep(0.1)
            check(len(os.listdir(folder)) == 2, os.listdir(folder))
        with Server("--quiet") as s:
            check(text_of(s.ok(CHAT, ask)) == text_of(a), "what was saved gives the same answer")
    finally:
        shutil.rmtree(folder)


def test_pings():
    """A stream that has nothing to say for a while gets comments or pings."""
    with Server("--quiet", "--ping-interval", "1", "--threads", "1", "--capacity", "8", "--parallel", "1") as s:
        c = s.connect()
        import json
        blocker = threading.Thread(target=lambda: s.ok(CHAT, {"messages": user("Tell me a story."), "max_tokens": 1200, "temperature": 1.3, "seed": 5}))
        blocker.start()
        while s.metric("requests_active") == 0:
            time.sleep(0.01)
        c.request("POST", "/v1/messages", json.dumps({"messages": user("Hi"), "max_tokens": 2, "stream": True}))
        data = c.getresponse().read().decode()
        blocker.join()
        check("message_stop" in data)
        pings = data.count("event: ping")
        print(f"      {pings} pings while it waited")


sys.exit(1 if main(test_same_as_alone, test_throughput, test_prefix_reuse, test_restart, test_kill, test_pings) else 0)
