#!/usr/bin/env python3
"""kill -9 at 20 random moments of a pull, then finish: every file is right, and no kill cost more
than one chunk of bytes sent again. Also two pulls of one model at once, and a pull whose partial
files were cut in every possible way."""
import os
import random
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../hub"))
from hub_test import Home, check_layout, main, make_model  # noqa: E402
from hub_server import Hub  # noqa: E402

# What was sent and lay in a socket when the client died counts as lost: a chunk must be larger than
# what the kernel buffers for all connections together.
CHUNK = 524288
BUFFER = 16384
TUNING = "chunk=%d,connections=2,backoff=10" % CHUNK
KILLS = 20


def total(model):
    return sum(len(model.files[n]) for n in model.files if "-of-" in n)


def on_disk(home):
    """Bytes of shards on disk. A piece that is being joined lies there twice and counts once."""
    blobs = os.path.join(home.repo(), "blobs")
    spans = {}
    for name in os.listdir(blobs) if os.path.isdir(blobs) else ():
        etag, *rest = name.split(".")
        start = int(rest[0]) if len(rest) == 2 else 0
        if len(etag) == 64:
            end = start + os.path.getsize(os.path.join(blobs, name))
            spans.setdefault(etag, []).append((start, end))
    total = 0
    for pieces in spans.values():
        reached = 0
        for start, end in sorted(pieces):
            total += max(0, end - max(start, reached))
            reached = max(reached, end)
    return total


def test_kill_at_random_moments():
    seed = int(os.environ.get("SEED", time.time_ns() % 1_000_000))
    print("SEED=%d" % seed)
    rng = random.Random(seed)
    model = make_model(seed, shard_bytes=(4_500_000, 2_700_001, 1_900_007))
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        hub.rate, hub.buffer = 1_000_000, BUFFER
        worst = 0
        for kill in range(KILLS):
            sent, had = hub.bytes_sent(), on_disk(home)
            child = home.start("pull", "org/name", "--yes", FLASH_MOE_HUB=TUNING)
            goal = sent + rng.randrange(1, total(model) // (KILLS + 4))
            deadline = time.monotonic() + 30
            while hub.bytes_sent() < goal and child.poll() is None:
                assert time.monotonic() < deadline, "no progress"
                time.sleep(rng.random() * 0.01)
            time.sleep(rng.random() * 0.05)
            assert child.poll() is None, "ended before kill %d: %s" % (kill, child.communicate())
            child.kill()
            child.communicate()
            time.sleep(0.1)  # let the server notice
            lost = (hub.bytes_sent() - sent) - (on_disk(home) - had)
            worst = max(worst, lost)
            assert lost <= CHUNK, "kill %d lost %d bytes" % (kill, lost)
        hub.rate = None
        home.pull(FLASH_MOE_HUB=TUNING)
        check_layout(home, "org/name", model)
        again = hub.bytes_sent() - total(model)
        print("%d kills, %d bytes sent again, at most %d for one kill" % (KILLS, again, worst))
        assert again <= KILLS * CHUNK, again


def test_kill_while_pieces_are_joined():
    """All of the body has arrived in pieces, none of it at the front: what is left is joining."""
    model = make_model(shard_bytes=(8_000_000,))
    name = "model-00001-of-00001.safetensors"
    data, etag = model.files[name], model.etag(name)
    rng = random.Random(5)
    for _ in range(5):
        with Hub({"org/name": [model]}) as hub, Home(hub) as home:
            blobs = os.path.join(home.repo(), "blobs")
            os.makedirs(blobs)
            for at in range(0, len(data), 100_000):
                piece = "%s.%d.incomplete" % (etag, at) if at else etag + ".incomplete"
                with open(os.path.join(blobs, piece), "wb") as f:
                    f.write(data[at:at + 100_000])
            child = home.start("pull", "org/name", "--yes", FLASH_MOE_HUB=TUNING)
            while len(os.listdir(blobs)) > 80 and child.poll() is None:
                time.sleep(0.001)
            time.sleep(rng.random() * 0.02)
            child.kill()
            child.communicate()
            home.pull(FLASH_MOE_HUB=TUNING)
            check_layout(home, "org/name", model)
            assert hub.bytes_sent() == 0, "all of it was there"


def test_partial_files_of_any_shape():
    """Fronts and pieces of random lengths, overlapping, empty, from other chunk sizes."""
    model = make_model(shard_bytes=(500_000,))
    name = "model-00001-of-00001.safetensors"
    data, etag = model.files[name], model.etag(name)
    rng = random.Random(9)
    with Hub({"org/name": [model]}) as hub:
        for _ in range(12):
            with Home(hub) as home:
                blobs = os.path.join(home.repo(), "blobs")
                os.makedirs(blobs)
                covered = set()
                for i in range(rng.randrange(1, 9)):
                    at = 0 if i == 0 else rng.randrange(1, len(data))
                    end = min(len(data), at + rng.choice((0, 1, 5000, 65536, 65537, 300_000)))
                    with open(os.path.join(blobs, "%s.%d.incomplete" % (etag, at) if at else
                                           etag + ".incomplete"), "wb") as f:
                        f.write(data[at:end])
                    covered.update(range(at, end))
                before = hub.bytes_sent()
                home.pull(FLASH_MOE_HUB="chunk=%d,connections=3" % rng.choice((4096, 30_000, 65536)))
                check_layout(home, "org/name", model)
                assert hub.bytes_sent() - before == len(data) - len(covered)


def test_two_pulls_at_once():
    model = make_model(shard_bytes=(1_000_000, 700_001))
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        hub.rate = 1_000_000
        children = [home.start("pull", "org/name", "--yes", FLASH_MOE_HUB=TUNING)
                    for _ in range(2)]
        for child in children:
            out, err = child.communicate(timeout=60)
            assert child.returncode == 0, err
        check_layout(home, "org/name", model)
        assert hub.bytes_sent() == total(model), "each byte was sent to one of them"


def test_second_pull_goes_on_after_the_first_is_killed():
    model = make_model(shard_bytes=(1_500_000,))
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        hub.rate, hub.buffer = 100_000, BUFFER
        first = home.start("pull", "org/name", "--yes", FLASH_MOE_HUB=TUNING)
        while hub.bytes_sent() < 200_000:
            time.sleep(0.01)
        second = home.start("pull", "org/name", "--yes", FLASH_MOE_HUB=TUNING)
        time.sleep(0.5)
        status, _, err = home.run("rm", "org/name", "--yes")
        assert status == 1 and "being downloaded" in err, err
        first.kill()
        first.communicate()
        hub.rate = None
        out, err = second.communicate(timeout=60)
        assert second.returncode == 0, err
        check_layout(home, "org/name", model)
        assert hub.bytes_sent() <= total(model) + CHUNK


main([f for n, f in list(globals().items()) if n.startswith("test_")])
