#!/usr/bin/env python3
"""pull, list and rm against a hub on loopback: what arrives, what is asked, what lies on disk."""
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../hub"))
from hub_test import Home, check_layout, main, make_model, wanted  # noqa: E402
from hub_server import Hub, Model  # noqa: E402


def test_layout():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        folder = home.pull()
        assert folder == os.path.join(home.repo(), "snapshots", model.commit), folder
        check_layout(home, "org/name", model)
        asked = {p for h, m, p, _ in hub.requests if h == "storage"}
        assert not any("pytorch" in p or "/model.safetensors" in p for p in asked), asked
        needed = sum(len(model.files[n]) for n in model.lfs if n in wanted(model))
        assert hub.bytes_sent() == needed, "no byte twice"


def test_ranges_run_in_parallel():
    model = make_model(shard_bytes=(2_000_000,))
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        hub.rate = 500_000
        home.pull(FLASH_MOE_HUB="chunk=100000,connections=6,backoff=10")
        check_layout(home, "org/name", model)
        assert hub.most_active >= 5, hub.most_active
        spans = [h["Range"] for s, m, p, h in hub.requests if s == "storage"]
        assert len(spans) == 20 and len(set(spans)) == 20, spans


def test_second_pull_fetches_nothing():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        home.pull()
        before = len(hub.requests)
        home.pull()
        assert len(hub.requests) - before == 1, "only the list of files is asked for"


def test_revisions_share_blobs():
    old = make_model(1, refs=("v1",))
    new = Model({**old.files, "config.json": b'{"model_type": "newer"}'}, commit="b" * 40)
    with Hub({"org/name": [old, new]}) as hub, Home(hub) as home:
        home.pull("org/name@v1")
        check_layout(home, "org/name", old, ref="v1")
        sent = hub.bytes_sent()
        home.pull("org/name")
        check_layout(home, "org/name", new)
        check_layout(home, "org/name", old, ref="v1")
        assert hub.bytes_sent() == sent, "the shards are the same blobs"
        home.pull("org/name@" + old.commit)


def test_nested_ref():
    model = make_model(refs=("refs/pr/7",))
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        home.pull("org/name@refs/pr/7")
        check_layout(home, "org/name", model, ref="refs/pr/7")


def test_one_file_without_index():
    model = make_model()
    for name in [n for n in model.files if "-of-" in n or "index" in n]:
        del model.files[name]
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        home.pull()
        check_layout(home, "org/name", model, names=wanted(model) + ["model.safetensors"])


def test_token_goes_to_the_hub_only():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        hub.token = "hf_secret"
        status, _, err = home.run("pull", "org/name", "--yes")
        assert status == 1 and "HF_TOKEN" in err and "401" in err, err
        os.makedirs(os.path.join(home.path, ".cache/huggingface"), exist_ok=True)
        with open(os.path.join(home.path, ".cache/huggingface/token"), "w") as f:
            f.write("hf_secret\n")
        home.pull()
        check_layout(home, "org/name", model)
        for host, _, path, headers in hub.requests[1:]:
            assert ("Authorization" in headers) == (host == "hub"), (host, path)
        status, _, err = home.run("pull", "org/name", "--yes", HF_TOKEN="hf_other")
        assert status == 1 and "token" in err, err


def test_cache_variables():
    model = make_model(shard_bytes=(1000,))
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        places = [({"HF_HUB_CACHE": home.path + "/a", "HF_HOME": home.path + "/x"}, "a"),
                  ({"HUGGINGFACE_HUB_CACHE": home.path + "/b", "HF_HOME": home.path + "/x"}, "b"),
                  ({"HF_HOME": home.path + "/c", "XDG_CACHE_HOME": home.path + "/x"}, "c/hub"),
                  ({"XDG_CACHE_HOME": home.path + "/d"}, "d/huggingface/hub"),
                  ({"HF_HOME": "~/e"}, "e/hub")]
        for env, place in places:
            folder = home.pull(**env)
            assert folder.startswith(os.path.join(home.path, place) + "/models--org--name/"), folder
        assert not os.path.exists(home.path + "/x") and not os.path.exists(home.cache)


def test_offline():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        status, _, err = home.run("pull", "org/name", "--yes", HF_HUB_OFFLINE="1")
        assert status == 1 and "HF_HUB_OFFLINE" in err, err
        assert not hub.requests


def test_asks_before_it_fetches():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        status, out, err = home.run("pull", "org/name")
        assert status == 1 and not out, out
        assert "flash-moe pull org/name --yes" in err and "kB" in err, err
        assert not [1 for h, *_ in hub.requests if h == "storage"], "no weights were touched"


def test_list_and_rm():
    model = make_model()
    other = make_model(2)
    with Hub({"org/name": [model], "org/other": [other]}) as hub, Home(hub) as home:
        status, out, err = home.run("list")
        assert status == 0 and not out and "no models" in err, (out, err)
        home.pull("org/name")
        home.pull("org/other")
        status, out, _ = home.run("list", "--json")
        models = [json.loads(line) for line in out.splitlines()]
        assert [m["model"] for m in models] == ["org/name", "org/other"], out
        size = sum({model.etag(n): len(model.files[n]) for n in wanted(model)}.values())
        assert size <= models[0]["bytes"] <= size + 1000, (size, models[0])
        assert models[0]["complete"] and not models[0]["packed"], models[0]
        status, _, err = home.run("rm", "org/name")
        assert status == 1 and "--yes" in err and os.path.isdir(home.repo()), err
        status, _, err = home.run("rm", "org/name", "--yes")
        assert status == 0 and not os.path.exists(home.repo()), err
        check_layout(home, "org/other", other)
        status, _, err = home.run("rm", "org/name", "--yes")
        assert status == 1 and "not in the cache" in err, err
        status, _, err = home.run("rm", "../..", "--yes")
        assert status == 1 and os.path.isdir(home.path), err


def test_rm_does_not_follow_links():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        home.pull()
        precious = os.path.join(home.path, "precious")
        os.mkdir(precious)
        open(os.path.join(precious, "file"), "w").close()
        os.symlink(precious, os.path.join(home.repo(), "snapshots", "link"))
        assert home.run("rm", "org/name", "--yes")[0] == 0
        assert os.path.exists(os.path.join(precious, "file"))


def test_takes_over_a_partial_file_of_python():
    """An older huggingface_hub leaves blobs/<etag>.incomplete: the front of the file."""
    model = make_model()
    name = "model-00001-of-00002.safetensors"
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        blobs = os.path.join(home.repo(), "blobs")
        os.makedirs(blobs)
        with open(os.path.join(blobs, model.etag(name) + ".incomplete"), "wb") as f:
            f.write(model.files[name][:123_457])
        home.pull()
        check_layout(home, "org/name", model)
        firsts = [s for (_, p), spans in hub.sent.items() if p.endswith(name) for s, _ in spans]
        assert min(firsts) == 123_457, firsts


def test_blob_without_link_is_linked():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        folder = home.pull()
        os.unlink(os.path.join(folder, "model-00002-of-00002.safetensors"))
        sent = hub.bytes_sent()
        home.pull()
        check_layout(home, "org/name", model)
        assert hub.bytes_sent() == sent


def test_wrong_usage():
    with Home() as home:
        for args in (["pull"], ["pull", "name"], ["pull", "a/b/c"], ["pull", "../x"],
                     ["pull", "org/name@../../x"], ["pull", "org/na--me"], ["pull", "--no"],
                     ["rm"], ["list", "x"], ["pull", "org/name@"], ["pull", "-a/b"]):
            status, out, err = home.run(*args)
            assert status == 2 and err and not out, (args, status, err)
        for verb in ("pull", "list", "rm"):
            status, out, _ = home.run(verb, "--help")
            assert status == 0 and "usage:" in out, verb


main([f for n, f in list(globals().items()) if n.startswith("test_")])
