#!/usr/bin/env python3
"""Disks that refuse: a full one (a tmpfs of 1 MB), a file size limit (RLIMIT_FSIZE), a read-only one
(a read-only bind mount; root is not stopped by permissions). Nothing that has arrived is lost."""
import contextlib
import os
import resource
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../hub"))
from hub_test import Home, NoMount, PROGRAM, check_layout, main, make_model, mounted  # noqa: E402
from hub_server import Hub  # noqa: E402


def test_disk_too_small_is_said_first():
    model = make_model(shard_bytes=(900_000, 900_000))
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        os.makedirs(home.cache)
        with mounted(home.cache, "-t", "tmpfs", "-o", "size=1m", "tmpfs"):
            status, _, err = home.run("pull", "org/name", "--yes")
            assert status == 1 and "free" in err and "HF_HUB_CACHE" in err, err
            assert hub.bytes_sent() == 0, "no weight was fetched"


def test_disk_fills_up_on_the_way():
    model = make_model(shard_bytes=(400_000, 400_000))
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        os.makedirs(home.cache)
        hub.rate = 200_000
        with mounted(home.cache, "-t", "tmpfs", "-o", "size=1200k", "tmpfs"):
            child = home.start("pull", "org/name", "--yes")
            while hub.bytes_sent() < 100_000:
                pass
            hog = os.path.join(home.cache, "hog")
            with open(hog, "wb", 0) as f, contextlib.suppress(OSError):
                while True:
                    f.write(bytes(4096))
            _, err = child.communicate(timeout=60)
            assert child.returncode == 1 and "disk is full" in err and "kept" in err, err
            os.unlink(hog)
            hub.rate = None
            home.pull()
            check_layout(home, "org/name", model)
            assert hub.bytes_sent() <= 800_000 + 2 * 4 * 65536, hub.bytes_sent()


def test_file_size_limit():
    """Every write offset of the front and of the pieces is a place to fail at."""
    model = make_model(shard_bytes=(300_000,))
    with Hub({"org/name": [model]}) as hub:
        for limit in (5_000, 65_536, 65_537, 150_001, 299_999):
            with Home(hub) as home:
                child = subprocess.run(
                    [PROGRAM, "pull", "org/name", "--yes"], env=home.env, text=True, timeout=60,
                    capture_output=True, preexec_fn=lambda: resource.setrlimit(
                        resource.RLIMIT_FSIZE, (limit, limit)))
                assert child.returncode == 1, (limit, child)
                assert "cannot write" in child.stderr and "too large" in child.stderr, child.stderr
                home.pull()
                check_layout(home, "org/name", model)


def test_read_only_cache():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        home.pull()
        with mounted(home.cache, "--bind", home.cache):
            done = subprocess.run(["mount", "-o", "remount,ro,bind", home.cache],
                                  capture_output=True, text=True)
            if done.returncode:
                raise NoMount(done.stderr)
            assert home.pull().endswith(model.commit), "what is there needs no writing"
            hub.models["org/name"] = [make_model(2)]
            hub.models["org/other"] = [make_model(3)]
            for name in ("org/name", "org/other"):
                status, _, err = home.run("pull", name, "--yes")
                assert status == 1 and "HF_HUB_CACHE" in err, err
                assert "Read-only" in err, err
            status, _, err = home.run("rm", "org/name", "--yes")
            assert status == 1 and "Read-only" in err, err
            status, out, _ = home.run("list")
            assert status == 0 and "org/name" in out and "complete" in out, out
        check_layout(home, "org/name", model)


def test_cache_is_a_file():
    with Hub({"org/name": [make_model()]}) as hub, Home(hub) as home:
        path = os.path.join(home.path, "file")
        open(path, "w").close()
        for verb in (["pull", "org/name", "--yes"], ["list"], ["rm", "org/name", "--yes"]):
            status, _, err = home.run(*verb, HF_HUB_CACHE=path)
            assert status == 1 and path in err, (verb, err)


try:
    with Home() as probe, mounted(probe.path, "-t", "tmpfs", "-o", "size=64k", "tmpfs"):
        can_mount = ""
except NoMount as why:
    can_mount = str(why)
if can_mount:
    print("this machine does not let the test mount file systems: " + can_mount)
    sys.exit(77)
main([f for n, f in list(globals().items()) if n.startswith("test_")])
