#!/usr/bin/env python3
"""pull --pack: the bundled model is packed while it arrives; what results answers like the original,
no shard stays, and kill -9 at 20 random moments costs no more than one chunk each."""
import json
import os
import random
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../hub"))
from hub_test import Home, NoMount, at_terminal, main, mounted  # noqa: E402
from hub_server import Hub, Model  # noqa: E402

BUNDLED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../models/flash-moe-tiny")
CHUNK = 524288
TUNING = "chunk=%d,connections=3,backoff=10" % CHUNK
KILLS = 20
TEXTS = ["config.json", "generation_config.json", "model.safetensors.index.json",
         "tokenizer.json", "tokenizer_config.json"]


def publish():
    files = {}
    for name in os.listdir(BUNDLED):
        with open(os.path.join(BUNDLED, name), "rb") as f:
            files[name] = f.read()
    return Model(files)


def shard_bytes(model):
    return sum(len(model.files[n]) for n in model.lfs)


def disk_bytes(home):
    total = 0
    for folder, _, names in os.walk(home.repo()):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except FileNotFoundError:
                pass
    return total


def check_packed(home, model):
    packed = os.path.join(home.repo(), "flash-moe", model.commit)
    blobs = os.listdir(os.path.join(home.repo(), "blobs"))
    assert sorted(blobs) == sorted({model.etag(n) for n in TEXTS}), blobs
    names = sorted(os.listdir(packed))
    assert "flash-moe.pack" in names and "config.json" in names, names
    assert not [n for n in names if n.startswith(".") or "tmp" in n], names
    ask = ("-p", "Write a short story.", "-n", "24", "--temp", "0", "--json")
    status, out, err = home.run("run", "org/name", *ask, HF_HUB_OFFLINE="1")
    assert status == 0, err
    original = home.run("run", BUNDLED, *ask)[1]
    assert json.loads(out)["tokens"] == json.loads(original)["tokens"], "the same bits"
    out = home.run("list", "--json")[1]
    assert json.loads(out)["packed"] and json.loads(out)["complete"], out
    assert disk_bytes(home) < 1.15 * shard_bytes(model), "one copy"


def test_pack_while_pulling():
    model = publish()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        folder = home.run("pull", "org/name", "--pack", "--yes", FLASH_MOE_HUB=TUNING)
        assert folder[0] == 0, folder[2]
        assert folder[1].strip() == os.path.join(home.repo(), "flash-moe", model.commit)
        check_packed(home, model)
        assert hub.bytes_sent() < shard_bytes(model) + 100_000, "each byte once, and two headers"
        before = len(hub.requests)
        assert home.run("pull", "org/name", "--pack", "--yes")[1] == folder[1]
        assert len(hub.requests) == before + 1, "nothing is left to do"
        assert home.run("rm", "org/name", "--yes")[0] == 0
        assert not os.path.exists(home.repo())


def test_shards_of_the_user_stay():
    model = publish()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        home.pull(FLASH_MOE_HUB=TUNING)
        sent = hub.bytes_sent()
        status, _, err = home.run("pull", "org/name", "--pack", "--yes", FLASH_MOE_HUB=TUNING)
        assert status == 0, err
        assert hub.bytes_sent() < sent + 100_000, "read from the cache"
        for name in model.lfs:
            path = os.path.join(home.repo(), "snapshots", model.commit, name)
            assert os.path.getsize(path) == len(model.files[name])


def test_kill_at_random_moments():
    seed = int(os.environ.get("SEED", time.time_ns() % 1_000_000))
    print("SEED=%d" % seed)
    rng = random.Random(seed)
    model = publish()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        hub.rate, hub.buffer = 2_000_000, 16384
        kills = whole = 0
        while kills < KILLS and whole < KILLS:
            child = home.start("pull", "org/name", "--pack", "--yes", FLASH_MOE_HUB=TUNING)
            goal = hub.bytes_sent() + rng.randrange(1, shard_bytes(model) // KILLS)
            quiet = time.monotonic() + 3  # packing sends nothing: that is a moment too
            while hub.bytes_sent() < goal and child.poll() is None and time.monotonic() < quiet:
                time.sleep(0.005)
            time.sleep(rng.random() * 0.2)
            killed = child.poll() is None
            child.kill()
            _, err = child.communicate()
            kills += killed
            if not killed:  # it was faster: check it and begin again
                assert child.returncode == 0, err
                whole += 1
                check_packed(home, model)
                assert home.run("rm", "org/name", "--yes")[0] == 0
        hub.rate = None
        status, _, err = home.run("pull", "org/name", "--pack", "--yes", FLASH_MOE_HUB=TUNING)
        assert status == 0, err
        check_packed(home, model)
        again = hub.bytes_sent() - (whole + 1) * shard_bytes(model)
        print("%d kills, %d bytes sent again" % (kills, again))
        assert kills == KILLS and again <= kills * CHUNK + (whole + 1) * 100_000, again


def test_disk_too_small_is_said_first():
    model = publish()
    need = shard_bytes(model) + max(len(model.files[n]) for n in model.lfs)
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        os.makedirs(home.cache)
        for room, fits in ((shard_bytes(model) + (2 << 20), False), (int(1.2 * need), True)):
            try:
                with mounted(home.cache, "-t", "tmpfs", "-o", "size=%d" % room, "tmpfs"):
                    status, out, err = home.run("pull", "org/name", "--pack", "--yes", FLASH_MOE_HUB=TUNING)
                    if fits:
                        check_packed(home, model)
                        continue
                    free, needs = map(float, re.search(r"has ([\d.]+) GB free .*needs ([\d.]+) GB", err).groups())
                    assert status == 1 and not out and free < needs, err
                    assert hub.bytes_sent() < 200_000, "headers alone were fetched"
            except NoMount as e:
                print("not tested: %s" % e)


def test_progress_at_a_terminal():
    with Hub({"org/name": [publish()]}) as hub, Home(hub) as home:
        status, seen = at_terminal(home, ["pull", "org/name", "--pack", "--yes"], TUNING)
        assert status == 0, seen
        for layer in range(8):
            assert "packing layer %d (" % layer in seen, seen
        assert "(8 of 8)" in seen, seen


def test_other_names_are_refused():
    model = publish()
    old, new = "model-00002-of-00002", "weights-00002-of-00002"
    files = {n.replace(old, new): b for n, b in model.files.items()}
    index = "model.safetensors.index.json"
    files[index] = files[index].replace(old.encode(), new.encode())
    with Hub({"org/name": [Model(files)]}) as hub, Home(hub) as home:
        status, out, err = home.run("pull", "org/name", "--pack", "--yes", FLASH_MOE_HUB=TUNING)
        assert status == 1 and not out and new in err and "named model*.safetensors" in err, err
        assert hub.bytes_sent() < 200_000, "headers alone were fetched"


def test_no_experts_is_said():
    from hub_test import make_model
    with Hub({"org/name": [make_model()]}) as hub, Home(hub) as home:
        status, out, err = home.run("pull", "org/name", "--pack", "--yes")
        assert status == 1 and not out and err, (status, err)


main([f for n, f in list(globals().items()) if n.startswith("test_")])
