#!/usr/bin/env python3
"""Files that shrink and disks that fail while an answer is written: exit 1 and one clear line that names the file, never a
crash, with original files and a packed store, through io_uring and pread."""
import glob
import os
import shutil
import subprocess
import sys
import tempfile

from common import FLASH_MOE, MODEL, SANITIZED, expect, run

# pread of a path that ends in $FAIL_PATH fails from the call number $FAIL_AFTER on, as a bad disk does.
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int bad(int fd)
{
    static atomic_int calls;
    char link[64], path[4096];
    const char *end = getenv("FAIL_PATH");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path);
    size_t m = strlen(end);
    return n >= (ssize_t)m && !memcmp(path + n - m, end, m) && ++calls > atoi(getenv("FAIL_AFTER"));
}

#define SHIMMED(name, offset_t)                                                                    \
    ssize_t name(int fd, void *to, size_t n, offset_t at)                                          \
    {                                                                                              \
        ssize_t (*real)(int, void *, size_t, offset_t) =                                           \
            (ssize_t(*)(int, void *, size_t, offset_t))dlsym(RTLD_NEXT, #name);                    \
        if (bad(fd)) return errno = EIO, -1;                                                       \
        return real(fd, to, n, at);                                                                \
    }
SHIMMED(pread, off_t)
SHIMMED(pread64, off64_t)
"""

# Few slots: nearly every token reads experts.
ASK = ["-p", "Tell me a story about a fox and a crow.", "--temp", "0", "--ignore-eos", "-n", "900", "--capacity", "5", "-t", "2"]


def judge(what, status, err, path):
    expect(status == 1, f"{what}: exit {status}, not 1\n{err[-2000:]}")
    lines = [line for line in err.splitlines() if line.startswith("flash-moe: ")]
    expect(len(lines) == 1 and os.path.basename(path) in lines[0], f"{what}: {os.path.basename(path)} is not named once: {err[-2000:]}")


def shrink(what, model, path, *flags):
    """Cut the file down after the answer's first bytes; then put it back."""
    kept = path + ".kept"
    shutil.copy(path, kept)
    child = subprocess.Popen([FLASH_MOE, "run", model, *ASK, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    expect(child.stdout.read(1), f"{what}: no answer begins")
    os.truncate(path, 70000)
    rest, err = child.communicate(timeout=300)
    os.replace(kept, path)
    judge(what, child.returncode, err.decode(errors="replace"), path)


def fail_reads(what, model, path, shim, after, *flags):
    env = dict(os.environ, LD_PRELOAD=shim, FAIL_PATH=os.path.basename(path), FAIL_AFTER=str(after))
    done = subprocess.run([FLASH_MOE, "run", model, *ASK, *flags], stdin=subprocess.DEVNULL, capture_output=True, timeout=300, env=env)
    expect(done.stdout, f"{what}: the fault came before the first token: {done.stderr.decode()[-500:]}")
    judge(what, done.returncode, done.stderr.decode(errors="replace"), path)
    expect("Input/output error" in done.stderr.decode(), f"{what}: no reason: {done.stderr.decode()[-500:]}")


def reads_of(model, shim, path, *flags):
    """How many reads of the file a run of few tokens makes, found by halving the calls that are let through."""
    env = dict(os.environ, LD_PRELOAD=shim, FAIL_PATH=os.path.basename(path))
    few = [a if a != "900" else "2" for a in ASK]
    low, high = 0, 1 << 16
    while low < high:
        middle = (low + high) // 2
        done = subprocess.run([FLASH_MOE, "run", model, *few, *flags], stdin=subprocess.DEVNULL, capture_output=True, timeout=300,
                              env=dict(env, FAIL_AFTER=str(middle)))
        low, high = (low, middle) if done.returncode == 0 else (middle + 1, high)
    return low


def both(model, path, shim, *flags):
    kind = "packed" if path.endswith(".pack") else "original"
    for io in ("uring", "pread"):
        for more in ([], ["--buffered"]):
            shrink(f"{kind} file shrinks, {io} {more}", model, path, "--io", io, *more, *flags)
    if shim:
        after = reads_of(model, shim, path, "--io", "pread", *flags)
        fail_reads(f"{kind} read error", model, path, shim, after + 40, "--io", "pread", *flags)


def main():
    with tempfile.TemporaryDirectory() as work:
        os.environ["XDG_CACHE_HOME"] = os.environ["XDG_CONFIG_HOME"] = work
        model = os.path.join(work, "model")
        shutil.copytree(MODEL, model)
        shim = None
        if not SANITIZED:  # its allocator has to come first
            shim = os.path.join(work, "shim.so")
            with open(os.path.join(work, "shim.c"), "w") as f:
                f.write(SHIM)
            subprocess.run([os.environ.get("CC", "cc").split()[-1], "-shared", "-fPIC", "-o", shim, f.name, "-ldl"], check=True)
        both(model, os.path.join(model, "model-00002-of-00002.safetensors"), shim)
        run("pack", model, check=0)
        both(model, sorted(glob.glob(os.path.join(model, "flash-moe.pack", "*.pack")))[3], shim)
    print("shrinking files and failing reads: each ends with exit 1 and the file's name")


if __name__ == "__main__":
    sys.exit(main())
