#!/usr/bin/env python3
"""From a name to the first token: the bundled model is published on a hub on loopback and run from
an empty home; the question at a terminal, with its forecast and its progress lines."""
import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../hub"))
from hub_test import Home, PROGRAM, at_terminal, check_layout, main  # noqa: E402
from hub_server import Hub, Model  # noqa: E402

BUNDLED = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../models/flash-moe-tiny")
TUNING = "chunk=1048576,connections=8,backoff=10"


def publish():
    files = {}
    for name in os.listdir(BUNDLED):
        with open(os.path.join(BUNDLED, name), "rb") as f:
            files[name] = f.read()
    return Model(files)


def needed(model):
    return [n for n in model.files if n not in ("README.md", "profile.json", "reference.json",
                                                "routing-by-domain.json")]


def test_run_in_an_empty_home():
    model = publish()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        args = ("run", "org/name", "-p", "hi", "--yes", "-n", "12", "--temp", "0")
        status, out, err = home.run(*args, FLASH_MOE_HUB=TUNING)
        assert status == 0 and out.strip(), (status, err)
        check_layout(home, "org/name", model, names=needed(model))
        shipped = home.run("run", BUNDLED, *args[2:])
        assert shipped[1] == out, "the same model, the same answer"
        before = len(hub.requests)
        assert home.run(*args)[1] == out
        assert home.run(*args, HF_HUB_OFFLINE="1")[1] == out
        assert len(hub.requests) == before, "what is there is used without asking the hub"


def test_run_without_a_terminal_does_not_fetch():
    with Hub({"org/name": [publish()]}) as hub, Home(hub) as home:
        status, out, err = home.run("run", "org/name", "-p", "hi")
        assert status == 1 and not out, (status, out)
        assert "flash-moe pull org/name --yes" in err and "MB" in err and "fits: yes" in err, err
        assert not [1 for h, *_ in hub.requests if h == "storage"]


def test_plan_asks_for_two_small_files():
    with Hub({"org/name": [publish()]}) as hub, Home(hub) as home:
        status, out, err = home.run("plan", "org/name", "--json")
        assert status == 0 and json.loads(out)["fits"], (status, out, err)
        got = sorted(os.path.basename(p) for _, m, p, _ in hub.requests
                     if m == "GET" and "/api/" not in p)
        assert got == ["config.json", "model.safetensors.index.json"], got


def test_tokenize_fetches_texts_alone():
    with Hub({"org/name": [publish()]}) as hub, Home(hub) as home:
        out = subprocess.run([PROGRAM, "tokenize", "org/name"], input="hello\n", text=True,
                             env=home.env, cwd=home.path, capture_output=True, timeout=60)
        assert out.returncode == 0 and out.stdout.strip(), out
        assert not [1 for h, *_ in hub.requests if h == "storage"]


def test_no_such_model():
    with Home() as home:
        for name in ("no-such-folder", "./org/name", "/no/such"):
            status, _, err = home.run("run", name, "-p", "hi")
            assert status == 1 and name in err and "org/name" in err, err


def test_the_question():
    model = publish()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        status, seen = at_terminal(home, ["pull", "org/name"], TUNING, b"n")
        assert status == 130 and "nothing was fetched" in seen, (status, seen)
        assert re.search(r"org/name: fits: yes, about [\d.]+ tok/s on this machine; "
                         r"fetch 53[.]\d MB\? \[y/N\]", seen), seen
        assert not [1 for h, *_ in hub.requests if h == "storage"]
        hub.rate = 8_000_000
        status, seen = at_terminal(home, ["pull", "org/name"], TUNING, b"y")
        assert status == 0, seen
        assert "model-00001-of-00002.safetensors" in seen and "MB/s  ETA" in seen, seen
        check_layout(home, "org/name", model, names=needed(model))


main([f for n, f in list(globals().items()) if n.startswith("test_")])
