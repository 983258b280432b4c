#!/usr/bin/env python3
"""What people do: Ctrl-C, a closed pipe, emoji and Chinese, wrong names, long answers, stop strings, seeds,
a terminal chat of five turns."""
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import tempfile
import termios
import time

from common import FLASH_MOE, SANITIZED, expect, fail, run


def answers():
    one = json.loads(run("run", "--temp", 0, "-n", 12, "--json", "-p", "Who are you?", check=0).out)
    for key in ("text", "tokens", "prompt_tokens", "finish_reason", "mode", "stats"):
        expect(key in one, f"no {key} in run --json")
    for key in ("load_ms ttft_ms prefill_tok_s decode_tok_s tokens expert_hits expert_misses hit_rate "
                "prefetch_useful prefetch_wasted bytes_read read_ms_exposed budget_bytes floor_bytes "
                "resident_bytes slot_bytes slots state_bytes peak_rss_bytes direct_io io policy threads isa "
                "bound_tok_s bound_fraction").split():
        expect(key in one["stats"], f"no {key} in the stats")
    expect(one["mode"] == "exact", one["mode"])
    expect(run("run", "--temp", 0, "-n", 12, stdin="Who are you?", check=0).out.strip() == one["text"].strip(),
           "stdin gives another answer than -p")
    cut = json.loads(run("run", "--temp", 0, "--json", "--stop", "tiny", "-p", "Who are you?", check=0).out)
    expect(cut["finish_reason"] == "stop" and "tiny" not in cut["text"], f"{cut['text']!r}")
    for text in ("Grüße 👩‍👩‍👧‍👦 und 你好，世界 🦊", "\U0001F98A" * 20, "a\u0301\u0327"):
        done = run("run", "--temp", 0.8, "--seed", 3, "-n", 30, "-p", text, check=0)
        done.stdout.decode()  # UTF-8 throughout
        again = run("run", "--temp", 0.8, "--seed", 3, "-n", 30, "-p", text, check=0)
        expect(done.out == again.out, "the same seed gave another answer")


def mistakes():
    for args, status, words in [
        (["run", "nosuchmodel", "-p", "x"], 1, "nosuchmodel"),
        (["run", "--nosuch"], 2, "--nosuch"),
        (["run", "--memory", "much", "-p", "x"], 2, "size"),
        (["run", "--threads", "0", "-p", "x"], 2, "threads"),
        (["run", "-p", "x", "-f", "y"], 2, "not both"),
        (["run", "-f", "/nowhere/file"], 1, "/nowhere/file"),
        (["run", "-p", ""], 1, "empty"),
        (["run", "--raw", "-p", "word " * 5000], 1, "context"),
        (["score"], 2, "--ids"),
        (["nosuchverb"], 2, "nosuchverb"),
    ]:
        done = run(*args)
        expect(done.returncode == status and words in done.err,
               f"{args[:3]}: exit {done.returncode}, {done.err!r}")
        expect(not done.out, f"{args[:3]}: {done.out!r} on stdout")
    with tempfile.TemporaryDirectory() as empty:
        done = run("run", empty, "-p", "x", check=1)
        expect("config.json" in done.err, done.err)
    expect("usage: flash-moe run" in run("run", "--help", check=0).out, "no help")


def closed_pipe():
    p = subprocess.Popen([FLASH_MOE, "run", "--temp", "0", "--ignore-eos", "-n", "3000", "-p", "A story."],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    p.stdout.read(20)
    p.stdout.close()
    status = p.wait(timeout=120)
    expect(status == 1 and b"Broken pipe" in p.stderr.read(), f"closed pipe: exit {status}")


def interrupt():
    p = subprocess.Popen([FLASH_MOE, "run", "--temp", "0", "--ignore-eos", "-p", "A story."],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    first = p.stdout.read(10)
    p.send_signal(signal.SIGINT)
    rest, err = p.communicate(timeout=120)
    expect(p.returncode == 130, f"Ctrl-C: exit {p.returncode}: {err}")
    (first + rest).decode()


def interrupt_while_writing():
    """Ctrl-C finds the program in the middle of a write that nobody takes up: no word of a broken output."""
    p = subprocess.Popen([FLASH_MOE, "run", "--temp", "0", "--ignore-eos", "-p", "A story."],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    fcntl.fcntl(p.stdout, 1031, 4096)  # F_SETPIPE_SZ
    filled, end = -1, time.time() + 120
    while True:  # until it stands still
        time.sleep(1)
        n = struct.unpack("i", fcntl.ioctl(p.stdout, termios.FIONREAD, b"\0" * 4))[0]
        if n > 2000 and n == filled:
            break
        filled = n
        expect(time.time() < end and p.poll() is None, f"{n} bytes fill no pipe")
    p.send_signal(signal.SIGINT)
    time.sleep(0.3)
    out, err = p.communicate(timeout=120)
    expect(p.returncode == 130 and b"cannot write" not in err, f"Ctrl-C in a write: exit {p.returncode}: {err}")
    expect(len(out) > filled, "what was interrupted is lost")


def long_answer():
    tokens = 300 if SANITIZED else 2000
    done = run("run", "--temp", 0.9, "--seed", 5, "--ignore-eos", "--json", "-n", tokens, "--memory", "48M",
               "-p", "Tell me a long story.", check=0) if not SANITIZED else \
        run("run", "--temp", 0.9, "--seed", 5, "--ignore-eos", "--json", "-n", tokens, "-p", "A story.", check=0)
    answer = json.loads(done.out)
    expect(len(answer["tokens"]) == tokens and answer["finish_reason"] == "length", answer["finish_reason"])
    if not SANITIZED:
        expect(answer["stats"]["peak_rss_bytes"] <= 48 << 20, "over the budget")


class Terminal:
    """flash-moe chat in a pseudo terminal."""

    def __init__(self, home, *args):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(HOME=home, TERM="dumb", NO_COLOR="1", LC_ALL="C.UTF-8")
            os.environ.pop("XDG_STATE_HOME", None)
            os.execv(FLASH_MOE, [FLASH_MOE, "chat", "--temp", "0", *args])
        self.text = ""

    def wait(self, words, seconds=120):
        """Read until the words appear after what was waited for before."""
        end = time.time() + seconds
        while words not in self.text:
            if time.time() > end:
                fail(f"waited for {words!r}, have {self.text[-800:]!r}")
            if select.select([self.fd], [], [], 0.2)[0]:
                try:
                    self.text += os.read(self.fd, 65536).decode(errors="replace")
                except OSError:
                    fail(f"ended before {words!r}: {self.text[-800:]!r}")
        before, self.text = self.text.split(words, 1)
        return before

    def say(self, line):
        os.write(self.fd, line.encode() + b"\n")
        self.wait(line[-8:])

    def end(self):
        deadline = time.time() + 60
        while time.time() < deadline:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    os.read(self.fd, 65536)
                except OSError:
                    pass
        os.kill(self.pid, signal.SIGKILL)
        fail("chat does not end")


def chat():
    with tempfile.TemporaryDirectory() as home:
        t = Terminal(home)
        t.wait(">>> ")
        for line in ("Who are you?", "What does grep do?", "What does ls do?", "Tell me about the fox.", "你好 🦊"):
            t.say(line)
            t.wait(">>> ")
        t.say("/stats")
        expect("tok/s" in t.wait(">>> "), "no statistics")
        saved = os.path.join(home, "saved.json")
        t.say(f"/save {saved}")
        t.wait("saved 10 messages")
        t.wait(">>> ")
        t.say("/clear")
        t.wait("cleared")
        t.wait(">>> ")
        t.say(f"/load {saved}")
        t.wait("loaded 10 messages")
        t.wait(">>> ")
        t.say("/system You are brief.")
        t.wait(">>> ")
        t.say("/help")
        expect("/clear" in t.wait(">>> "), "no help")
        t.say("Tell me a story about a wolf and a lamb.")
        time.sleep(0.5)
        os.write(t.fd, b"\x03")  # stops the answer (or finds the prompt), not the program
        t.wait(">>> ")
        time.sleep(0.5)  # one that finds the prompt late would take the next line with it
        t.say("/quit")
        expect(t.end() == 0, "chat did not end well")
        with open(os.path.join(home, ".local/state/flash-moe/history")) as f:
            expect("grep" in f.read(), "no history")
        with open(saved) as f:
            expect([m["role"] for m in json.load(f)["messages"]] == ["user", "assistant"] * 5, "roles")
        t = Terminal(home, "--load", saved)
        t.wait(">>> ")
        os.write(t.fd, b"\x04")  # Ctrl-D leaves
        expect(t.end() == 0, "Ctrl-D did not end it well")
    piped = run("chat", "--temp", 0, stdin="What does grep do?\nWhat does ls do?\n", check=0)
    expect("grep" in piped.out and piped.out.count("\n") >= 2, piped.out)


for part in (answers, mistakes, closed_pipe, interrupt, interrupt_while_writing, long_answer, chat):
    start = time.time()
    part()
    print(f"{part.__name__}: {time.time() - start:.1f} s")
