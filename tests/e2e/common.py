"""What the end-to-end tests of the engine share: running the program, reading its files, limits."""
import json
import os
import re
import struct
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FLASH_MOE = os.environ.get("FLASH_MOE", os.path.join(ROOT, "build", "flash-moe"))
MODEL = os.path.join(ROOT, "models", "flash-moe-tiny")
SANITIZED = bool(os.environ.get("SANITIZE"))
STORY = (
    "<|im_start|>user\nTell me a story about a fox and a crow.<|im_end|>\n<|im_start|>assistant\n"
    "A Fox and a Crow lived in a wood. One day the Crow found a piece of cheese, and flew with it to "
    "a tree; the Fox saw her and came to sit below. \"How fine you are!\" said he. "
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fibonacci(n - 2)\n"
    "grep - print lines that match patterns. Der Wolf und die sieben jungen Geißlein. "
)


def run(*args, stdin="", check=None, timeout=300, **more):
    """The finished program; check: the exit status that it must have."""
    done = subprocess.run([FLASH_MOE, *map(str, args)], input=stdin.encode() if stdin is not None else None,
                          capture_output=True, timeout=timeout, **more)
    done.out = done.stdout.decode(errors="replace")
    done.err = done.stderr.decode(errors="replace")
    if check is not None and done.returncode != check:
        fail(f"flash-moe {' '.join(map(str, args))}: exit {done.returncode}, not {check}\n"
             f"{done.out[-1500:]}\n{done.err[-3000:]}")
    return done


def fail(message):
    print(message)
    sys.exit(1)


def expect(condition, message):
    if not condition:
        fail(message)


def skip(reason):
    print(reason)
    sys.exit(77)


def tokenize(text):
    done = run("tokenize", "--json", stdin=json.dumps({"text": text, "special": True}) + "\n", check=0)
    return json.loads(done.out)


def floor_of(*args, verb="run"):
    """The floor in bytes that the error of a far too small budget names, rounded up as it says."""
    done = run(verb, "--memory", "1M", *args, check=1)
    found = re.search(r"floor of ([0-9.]+) MiB.*--memory (\d+)M", done.err)
    expect(found, f"no floor in: {done.err}")
    return int(found.group(2)) << 20


def floats(path):
    with open(path, "rb") as f:
        data = f.read()
    return struct.unpack(f"<{len(data) // 4}f", data)
