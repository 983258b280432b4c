#!/usr/bin/env python3
"""tune, and measuring at the first use of a disk: only at a terminal, once, and not when told not to."""
import json
import os
import pty
import shutil
import subprocess
import tempfile

from common import FLASH_MOE, MODEL, expect, run, skip

LINE = "first use of this disk"


def make_model(folder):
    """The bundled model's tokenizer, and experts as large as a real model's."""
    with open(os.path.join(MODEL, "config.json")) as f:
        config = json.load(f)
    config["moe_intermediate_size"] *= 8
    config["num_experts"] = 8
    path = os.path.join(folder, "config.json")
    with open(path, "w") as f:
        json.dump(config, f)
    model = os.path.join(folder, "model")
    run("synth", path, "--layers", 4, "-o", model, check=0)
    for name in os.listdir(MODEL):
        if name.startswith("tokenizer"):
            shutil.copy(os.path.join(MODEL, name), model)
    return model


def at_terminal(home, *args, **more):
    """Exit status and all that a terminal shows."""
    master, slave = pty.openpty()
    env = {**os.environ, "XDG_CONFIG_HOME": home, **more}
    child = subprocess.Popen([FLASH_MOE, *map(str, args)], stdin=slave, stdout=slave, stderr=slave, env=env)
    os.close(slave)
    seen = b""
    while True:
        try:
            block = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        seen += block
    os.close(master)
    return child.wait(timeout=60), seen.decode(errors="replace")


def stored(home):
    path = os.path.join(home, "flash-moe", "tune.json")
    if not os.path.exists(path):
        return None
    with open(path) as f:
        disk, = json.load(f)["disks"].values()
    return disk


def check_silent(home, *args, **more):
    status, seen = at_terminal(home, *args, **more)
    expect(status == 0 and LINE not in seen, f"{args}: {status} {seen}")
    expect(not stored(home), f"{args}: measured")


def check_first_use(folder, ask):
    home = os.path.join(folder, "first")
    status, seen = at_terminal(home, *ask)
    expect(status == 0 and seen.count(LINE) == 1 and "--no-tune" in seen and "GB/s" in seen, f"{status} {seen}")
    disk = stored(home)
    expect(disk["disk_bytes_s"] > 0 and disk["memory_bytes_s"] > 0 and disk["io_threads"] >= 2, disk)
    expect("prefetch" not in disk, "trying to prefetch takes too long here")
    status, seen = at_terminal(home, *ask)
    expect(status == 0 and LINE not in seen, f"measured twice: {seen}")
    expect(stored(home) == disk, "stored twice")


def check_when_not(folder, ask):
    home = os.path.join(folder, "not")
    check_silent(home, *ask, "--no-tune")
    check_silent(home, *ask, FLASH_MOE_NO_TUNE="1")
    check_silent(home, *ask, "--memory", "1G")  # measuring takes 1 GiB
    check_silent(home, "run", MODEL, *ask[2:])  # its experts are too small to tell
    check_silent(home, "score", ask[1], "--ids", os.path.join(folder, "ids.json"))
    done = run(*ask, check=0, env={**os.environ, "XDG_CONFIG_HOME": home})
    expect(LINE not in done.err and not stored(home), "measured without a terminal")


def check_failure(folder, ask):
    home = os.path.join(folder, "a-file")
    with open(home, "w"):
        pass
    status, seen = at_terminal(home, *ask)
    expect(status == 0 and "note: not measured or not stored" in seen, f"{status} {seen}")


def check_verb(folder, model):
    env = {**os.environ, "XDG_CONFIG_HOME": os.path.join(folder, "verb")}
    quick = ("tune", model, "--seconds", "0.05")
    done = run(*quick, "--no-prefetch", "--dry-run", "--json", check=0, env=env)
    said = json.loads(done.out)
    expect([d["depth"] for d in said["disk"]] == [1, 2, 4, 8, 16] and not done.err, done.out + done.err)
    expect(all(d["bytes_s"] > 0 for d in said["disk"]) and said["prefetch"] == -1, done.out)
    expect(said["record_bytes"] > 1 << 18 and not stored(env["XDG_CONFIG_HOME"]), done.out)
    done = run(*quick, check=0, env=env)
    expect("stored in" in done.out and "prefetch" in done.out, done.out)
    expect(stored(env["XDG_CONFIG_HOME"])["prefetch"] in (0, 4), "the trial's answer is stored")


def available_bytes():
    with open("/proc/meminfo") as f:
        return next(int(line.split()[1]) << 10 for line in f if line.startswith("MemAvailable"))


def main():
    if available_bytes() < 3 << 30:
        skip("memory is measured with 1 GiB, which is not there")
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(folder)
        with open(os.path.join(folder, "ids.json"), "w") as f:
            json.dump([3, 1, 4, 1, 5], f)
        ask = ("run", model, "-p", "hi", "-n", "2", "--temp", "0")
        check_first_use(folder, ask)
        check_when_not(folder, ask)
        check_failure(folder, ask)
        check_verb(folder, model)


main()
