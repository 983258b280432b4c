#!/usr/bin/env python3
"""What goes wrong between a hub and a disk, one case a test: what can be mended is mended without a
byte fetched twice, what cannot ends in one clear sentence, and nothing bad gets a name."""
import os
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../hub"))
from hub_test import Home, check_layout, main, make_model  # noqa: E402
from hub_server import Hub, Model  # noqa: E402

SHARD = "model-00001-of-00002.safetensors"


def fails(home, *words, what="org/name", **env):
    """pull must fail with one line that holds all the words."""
    status, out, err = home.run("pull", what, "--yes", **env)
    assert status == 1 and not out, (status, out, err)
    assert len(err.splitlines()) == 1, err
    for word in words:
        assert word in err, "%r is not in: %s" % (word, err)
    return err


def no_blob_of(home, etag):
    assert not os.path.exists(os.path.join(home.repo(), "blobs", etag))


class Times:
    """True for the first n calls."""

    def __init__(self, n):
        self.left = n
        self.lock = threading.Lock()

    def __call__(self):
        with self.lock:
            self.left -= 1
            return self.left >= 0


# ---- statuses

def test_no_such_model():
    with Hub({}) as hub, Home(hub) as home:
        fails(home, "org/name", "does not exist", "HF_TOKEN")


def test_no_such_revision():
    with Hub({"org/name": [make_model()]}) as hub, Home(hub) as home:
        fails(home, "no such revision", what="org/name@v9")


def test_gated():
    with Hub({"org/name": [make_model()]}) as hub, Home(hub) as home:
        hub.on_hub = lambda h: "/resolve/" in h.path and (
            h.fail(403, "GatedRepo", "Access is restricted") or True)
        fails(home, "gated", hub.url + "/org/name", "HF_TOKEN")


def test_file_vanishes():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        hub.on_storage = lambda h: h.fail(404, "", "gone") or True
        fails(home, SHARD, "404")


def test_server_errors_pass():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        for status in (429, 500, 502, 503, 504):
            some, more = Times(2), Times(3)
            hub.on_hub = lambda h: some() and (h.fail(status, "", "later") or True)
            hub.on_storage = lambda h: more() and (h.fail(status, "", "later") or True)
            home.pull()
            check_layout(home, "org/name", model)
            assert home.run("rm", "org/name", "--yes")[0] == 0


def test_server_errors_stay():
    with Hub({"org/name": [make_model()]}) as hub, Home(hub) as home:
        hub.on_storage = lambda h: h.fail(503, "", "never") or True
        fails(home, SHARD, "503", "times in a row", "run again")
        hub.on_hub = lambda h: h.fail(500, "", "broken \x1b[31m inside") or True
        assert "\x1b" not in fails(home, "500", "broken")


def test_retry_after_is_kept():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        some = Times(1)
        hub.on_storage = lambda h: some() and (
            h.fail(429, "", "slow down", {"Retry-After": "2"}) or True)
        start = time.monotonic()
        home.pull(FLASH_MOE_HUB="chunk=65536,connections=1,backoff=10")
        assert time.monotonic() - start >= 2
        check_layout(home, "org/name", model)


def test_nobody_answers():
    with Home() as home:
        fails(home, "127.0.0.1", "connect")


# ---- connections

def test_dropped_connections():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        def drop_half(h):
            if not drop():
                return False
            data = model.files[os.path.basename(h.path.split("?")[0])]
            first, last = h.span(len(data)) or (0, len(data) - 1)
            h.send_response(206)
            h.send_header("Content-Range", "bytes %d-%d/%d" % (first, last, len(data)))
            h.send_header("Content-Length", str(last + 1 - first))
            h.end_headers()
            h.pump(data, first, last + 1, stop=(first + last) // 2)
            return True
        drop = Times(8)
        hub.on_storage = drop_half
        home.pull()
        check_layout(home, "org/name", model)
        assert hub.bytes_sent() == sum(len(model.files[n]) for n in model.files if "-of-" in n)


def test_connection_closed_at_once():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        def slam(h):
            if slams():
                h.close_connection = True
                h.connection.close()
                return True
            return False
        slams = Times(3)
        hub.on_hub = hub.on_storage = slam
        home.pull()
        check_layout(home, "org/name", model)


def test_stalled_body():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        release = threading.Event()

        def stall(h):
            if not stalls():
                return False
            data = model.files[os.path.basename(h.path.split("?")[0])]
            first, last = h.span(len(data)) or (0, len(data) - 1)
            h.send_response(206)
            h.send_header("Content-Range", "bytes %d-%d/%d" % (first, last, len(data)))
            h.send_header("Content-Length", str(last + 1 - first))
            h.end_headers()
            h.pump(data, first, last + 1, stop=first + 20000)
            h.wfile.flush()
            release.wait(30)
            return True
        stalls = Times(2)
        hub.on_storage = stall
        start = time.monotonic()
        home.pull(FLASH_MOE_HUB="chunk=65536,connections=4,backoff=10,stall=1")
        release.set()
        assert time.monotonic() - start < 20, "a stall is noticed"
        check_layout(home, "org/name", model)
        assert hub.bytes_sent() == sum(len(model.files[n]) for n in model.files if "-of-" in n)


def test_slow_but_steady():
    model = make_model(shard_bytes=(120_000, 60_000))
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        hub.rate = 20_000
        home.pull(FLASH_MOE_HUB="chunk=65536,connections=4,stall=2,retries=0")
        check_layout(home, "org/name", model)


def test_interrupt_then_resume():
    model = make_model(shard_bytes=(2_000_000,))
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        hub.rate = 300_000
        child = home.start("pull", "org/name", "--yes")
        while hub.bytes_sent() < 500_000:
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=10)
        assert child.returncode == 130, (child.returncode, err)
        assert not out and "stopped" in err, err
        hub.rate = None
        home.pull()
        check_layout(home, "org/name", model)
        assert hub.bytes_sent() <= 2_000_000 + 65536, hub.bytes_sent()


# ---- servers that are different

def test_server_without_ranges():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        blobs = os.path.join(home.repo(), "blobs")
        os.makedirs(blobs)
        with open(os.path.join(blobs, model.etag(SHARD) + ".incomplete"), "wb") as f:
            f.write(model.files[SHARD][:100_000])
        hub.ranges = False
        home.pull()
        check_layout(home, "org/name", model)


def test_expired_location_is_asked_for_again():
    model = make_model(shard_bytes=(600_000,))
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        expired = Times(5)
        hub.on_storage = lambda h: not expired() and good() and (
            h.fail(403, "", "Request has expired") or True)
        expired, good = (lambda: len([1 for s, *_ in hub.requests if s == "storage"]) < 4), Times(1)
        home.pull(FLASH_MOE_HUB="chunk=65536,connections=1,backoff=10")
        check_layout(home, "org/name", model)
        heads = [p for s, m, p, _ in hub.requests if m == "HEAD" and ".safetensors" in p]
        assert len([p for p in heads if "-of-" in p]) == 2, heads


def test_renamed_model():
    model = make_model()
    with Hub({"org/new": [model], "org/name": []}) as hub, Home(hub) as home:
        def rename(h):
            if "org/name" not in h.path:
                return False
            h.head_only(307, {"Location": h.path.replace("org/name", "org/new")})
            return True
        hub.on_hub = rename
        home.pull("org/name")
        check_layout(home, "org/name", model)


def test_redirect_loop():
    with Hub({"org/name": [make_model()]}) as hub, Home(hub) as home:
        hub.on_hub = lambda h: "/resolve/" in h.path and (
            h.head_only(302, {"Location": h.path}) or True)
        fails(home, "circle")
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        hub.on_storage = lambda h: h.head_only(302, {"Location": h.path}) or True
        fails(home, "circle", SHARD)


def test_redirect_to_file_scheme():
    secret = "file:///etc/passwd"
    with Hub({"org/name": [make_model()]}) as hub, Home(hub) as home:
        hub.head = {"Location": secret}
        fails(home, SHARD)
        no_blob_of(home, make_model().etag(SHARD))


# ---- wrong sizes and hashes

def test_wrong_hash():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        hub.body = lambda name, data: data[:-1] + bytes([data[-1] ^ 1])
        fails(home, SHARD, "SHA-256", model.etag(SHARD))
        no_blob_of(home, model.etag(SHARD))
        assert not [n for n in os.listdir(home.repo() + "/blobs") if "incomplete" in n]
        hub.body = None
        home.pull()
        check_layout(home, "org/name", model)


def test_wrong_hash_of_a_small_file():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        def lie(h):
            if not h.path.endswith("/config.json") or h.command != "GET":
                return False
            h.send(b"x" * len(model.files["config.json"]), {})
            return True
        hub.on_hub = lie
        fails(home, "config.json", "SHA-1")


def test_corrupt_partial_is_replaced():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        blobs = os.path.join(home.repo(), "blobs")
        os.makedirs(blobs)
        with open(os.path.join(blobs, model.etag(SHARD) + ".incomplete"), "wb") as f:
            f.write(b"\0" * 100_000)
        with open(os.path.join(blobs, model.etag(SHARD) + ".131072.incomplete"), "wb") as f:
            f.write(b"\0" * 65536)
        with open(os.path.join(blobs, model.etag(SHARD) + ".99999999.incomplete"), "wb") as f:
            f.write(b"\0" * 10)
        home.pull()
        check_layout(home, "org/name", model)


def test_body_longer_or_shorter_than_promised():
    for change in (lambda d: d + b"more", lambda d: d[:-5]):
        model = make_model()
        with Hub({"org/name": [model]}) as hub, Home(hub) as home:
            hub.body = lambda name, data: change(data)
            fails(home, SHARD, "promised")
            no_blob_of(home, model.etag(SHARD))


def test_more_than_the_range():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        def flood(h):
            data = model.files[os.path.basename(h.path.split("?")[0])]
            first, last = h.span(len(data)) or (0, len(data) - 1)
            h.send_response(206)
            h.send_header("Content-Range", "bytes %d-%d/%d" % (first, last, len(data)))
            h.end_headers()
            h.wfile.write(data[first:last + 1] + b"flood" * 1000)
            h.close_connection = True
            return True
        hub.on_storage = flood
        fails(home, SHARD, "more than was asked")


def test_another_range_than_asked():
    model = make_model()
    with Hub({"org/name": [model]}) as hub, Home(hub) as home:
        def shift(h):
            data = model.files[os.path.basename(h.path.split("?")[0])]
            h.send_response(206)
            h.send_header("Content-Range", "bytes 5-104/%d" % len(data))
            h.send_header("Content-Length", "100")
            h.end_headers()
            h.wfile.write(data[5:105])
            return True
        hub.on_storage = shift
        fails(home, SHARD, "another range")


def test_enormous_sizes():
    for size in (10**18, 2**63 - 1, 2**63, 2**64, 10**30):
        with Hub({"org/name": [make_model()]}) as hub, Home(hub) as home:
            hub.head = {"X-Linked-Size": str(size)}
            fails(home, SHARD)

            def huge(answer):
                for entry in answer["siblings"]:
                    entry["size"] = size
                return answer
            hub.listing = huge
            err = fails(home)
            if size == 10**18:
                assert "free" in err and "GB" in err, err


# ---- malice

def test_malicious_names():
    for name in ("../evil.safetensors", "/etc/evil", "a/../../evil", "..", ".", "a//b", "", "a/",
                 "\\..\\evil", "evil\n", "\x1b[2Jevil", "evil\0.safetensors", "./x",
                 "x" * 300, "a/" * 2000 + "b"):
        with Hub({"org/name": [make_model()]}) as hub, Home(hub) as home:
            hub.listing = lambda a: {**a, "siblings": a["siblings"] + [{"rfilename": name}]}
            err = fails(home, "name")
            assert "\x1b" not in err
            assert not os.path.exists(home.cache), "nothing was written"


def test_malicious_shard_in_index():
    for shard in ("../../../../evil.safetensors", "/etc/passwd", "tokenizer.json", 7, None):
        model = make_model()
        model.files["model.safetensors.index.json"] = (
            b'{"weight_map": {"a": %s}}' % repr(shard).replace("'", '"').replace(
                "None", "null").encode())
        with Hub({"org/name": [model]}) as hub, Home(hub) as home:
            fails(home, "index.json")


def test_malicious_commit():
    for commit in ("../../../evil", "", None, 5, "a" * 39, "A" * 40, "a" * 41):
        with Hub({"org/name": [make_model()]}) as hub, Home(hub) as home:
            hub.listing = lambda a: {**a, "sha": commit}
            fails(home, "malformed")
    with Hub({"org/name": [make_model()]}) as hub, Home(hub) as home:
        hub.head = {"X-Repo-Commit": "d" * 40}
        fails(home, "commit")


def test_malicious_etag():
    for etag in ('"../../../evil"', '"a/b"', "", '"' + "a" * 500 + '"', '".."', '"x.incomplete"'):
        with Hub({"org/name": [make_model()]}) as hub, Home(hub) as home:
            hub.head = {"X-Linked-Etag": etag, "ETag": etag}
            fails(home, SHARD)
            assert not [n for n in os.listdir(home.repo() + "/blobs") if "incomplete" in n]


def test_malformed_list():
    for body in (b"", b"{", b"[]", b"null", b'{"sha": "%s"}' % (b"a" * 40), b"\0\1\2",
                 b"[" * 100000, b'{"sha": "%s", "siblings": [5, {}]}' % (b"a" * 40)):
        with Hub({"org/name": [make_model()]}) as hub, Home(hub) as home:
            hub.on_hub = lambda h: "/api/" in h.path and (h.send(body, {}) or True)
            fails(home, "org/name")


def test_endless_list():
    with Hub({"org/name": [make_model()]}) as hub, Home(hub) as home:
        def endless(h):
            h.send_response(200)
            h.end_headers()
            for _ in range(100):
                h.wfile.write(b" " * (1 << 20))
            h.close_connection = True
            return True
        hub.on_hub = endless
        fails(home, "answered more than")


def test_not_a_model():
    model = make_model()
    weights = {n: d for n, d in model.files.items() if n != "config.json"}
    with Hub({"org/name": [Model(weights)]}) as hub, Home(hub) as home:
        fails(home, "config.json")
    texts = {n: d for n, d in model.files.items() if "safetensors" not in n}
    with Hub({"org/name": [Model(texts)]}) as hub, Home(hub) as home:
        fails(home, "no *.safetensors")


main([f for n, f in list(globals().items()) if n.startswith("test_")])
