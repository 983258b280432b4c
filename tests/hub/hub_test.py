"""What the hub's tests share: a small published model, an empty home, running the program with a
deadline, and the rules of the cache layout written down independently of the program."""
import contextlib
import hashlib
import json
import os
import pty
import random
import re
import select
import subprocess
import sys
import tempfile
import time
import traceback

from hub_server import Hub, Model, git_sha1

PROGRAM = os.path.abspath(os.environ.get("FLASH_MOE", "build/flash-moe"))
DEADLINE = 60
QUICK = "chunk=65536,connections=4,retries=4,backoff=10,stall=2"
NOT_NEEDED = ("README.md", "pytorch_model.bin", "model.safetensors", "original/params.json",
              ".gitattributes")


def make_model(seed=1, shard_bytes=(300_000, 260_001), **more):
    rng = random.Random(seed)
    shards = ["model-%05d-of-%05d.safetensors" % (i + 1, len(shard_bytes))
              for i in range(len(shard_bytes))]
    index = {"metadata": {}, "weight_map": {"t.%d.%s" % (i, s): s for s in shards
                                            for i in range(3)}}
    files = {"config.json": json.dumps({"model_type": "test", "seed": seed}).encode(),
             "generation_config.json": b"{}",
             "tokenizer.json": rng.randbytes(1000),
             "tokenizer_config.json": b"{}",
             "chat_template.jinja": b"{{ messages }}",
             "model.safetensors.index.json": json.dumps(index).encode()}
    for name, size in zip(shards, shard_bytes):
        files[name] = rng.randbytes(size)
    for name in NOT_NEEDED:
        files[name] = rng.randbytes(500)
    return Model(files, **more)


def wanted(model):
    return sorted(n for n in model.files if n not in NOT_NEEDED)


class Home:
    """An empty home folder with a hub cache at its usual place."""

    def __init__(self, hub=None, folder=None):
        self.temp = tempfile.TemporaryDirectory(prefix="hub-test-", dir=folder)
        self.path = self.temp.name
        self.cache = os.path.join(self.path, ".cache/huggingface/hub")
        self.env = {"PATH": os.environ["PATH"], "HOME": self.path, "FLASH_MOE_HUB": QUICK,
                    "HF_ENDPOINT": hub.url if hub else "http://127.0.0.1:9", "LC_ALL": "C",
                    "no_proxy": "*"}
        for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"):
            if name in os.environ:
                self.env[name] = os.environ[name]

    def start(self, *args, **env):
        return subprocess.Popen([PROGRAM, *args], env={**self.env, **env}, stdin=subprocess.DEVNULL,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                cwd=self.path)

    def run(self, *args, deadline=DEADLINE, **env):
        child = self.start(*args, **env)
        try:
            out, err = child.communicate(timeout=deadline)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            raise AssertionError("%s: no end within %d s" % (" ".join(args), deadline))
        assert child.returncode >= 0, "killed by signal %d: %s" % (-child.returncode, err)
        for word in ("AddressSanitizer", "runtime error", "LeakSanitizer"):
            assert word not in err, err
        return child.returncode, out, err

    def pull(self, what="org/name", **env):
        status, out, err = self.run("pull", what, "--yes", **env)
        assert status == 0, "pull failed: " + err
        return out.strip()

    def repo(self, repo="org/name"):
        return os.path.join(self.cache, "models--" + repo.replace("/", "--"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.temp.cleanup()


class NoMount(Exception):
    pass


@contextlib.contextmanager
def mounted(folder, *args):
    done = subprocess.run(["mount", *args, folder], capture_output=True, text=True)
    if done.returncode:
        raise NoMount(done.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


def at_terminal(home, args, tuning, answer=None, deadline=DEADLINE):
    """Run with a terminal as stdin, stdout and stderr; give the answer when a question stands."""
    master, slave = pty.openpty()
    env = {**home.env, "FLASH_MOE_HUB": tuning, "TERM": "xterm"}
    child = subprocess.Popen([PROGRAM, *args], stdin=slave, stdout=slave, stderr=slave, env=env,
                             cwd=home.path, start_new_session=True)
    os.close(slave)
    seen, end = b"", time.monotonic() + deadline
    try:
        while time.monotonic() < end:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    block = os.read(master, 65536)
                except OSError:
                    break
                if not block:
                    break
                seen += block
                if answer and b"[y/N]" in seen:
                    os.write(master, answer + b"\n")
                    answer = None
        return child.wait(timeout=10), seen.decode()
    finally:
        child.kill()
        os.close(master)


def check_layout(home, repo, model, names=None, ref="main"):
    """The rules that huggingface_hub's documentation gives for its cache."""
    root = home.repo(repo)
    if ref:
        with open(os.path.join(root, "refs", *ref.split("/"))) as f:
            assert f.read() == model.commit, "the ref holds exactly the commit"
    snapshot = os.path.join(root, "snapshots", model.commit)
    found = []
    for folder, _, files in os.walk(snapshot):
        for name in files:
            path = os.path.join(folder, name)
            inside = os.path.relpath(path, snapshot)
            found.append(inside)
            assert os.path.islink(path), inside + " is a link"
            target = os.readlink(path)
            assert not os.path.isabs(target), "links are relative"
            blob = os.path.normpath(os.path.join(folder, target))
            assert os.path.dirname(blob) == os.path.join(root, "blobs"), target
            with open(blob, "rb") as f:
                data = f.read()
            etag = os.path.basename(blob)
            if re.fullmatch("[0-9a-f]{64}", etag):
                assert hashlib.sha256(data).hexdigest() == etag, inside + ": SHA-256"
            else:
                assert git_sha1(data) == etag, inside + ": git SHA-1"
            assert data == model.files[inside], inside + ": content"
            assert etag == model.etag(inside)
    assert sorted(found) == (wanted(model) if names is None else sorted(names)), sorted(found)
    leftovers = [n for n in os.listdir(os.path.join(root, "blobs"))
                 if not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", n)]
    assert not leftovers, "left in blobs: %s" % leftovers
    locks = os.path.join(home.cache, ".locks", os.path.basename(root))
    for name in os.listdir(locks):
        assert re.fullmatch("([0-9a-f]{40}|[0-9a-f]{64})[.]lock", name), name
    assert set(os.listdir(root)) <= {"refs", "blobs", "snapshots"}, os.listdir(root)


def main(tests):
    """Run the functions given (or those named on the command line); exit status 0 when all pass."""
    failed = 0
    for test in tests:
        if len(sys.argv) > 1 and test.__name__ not in sys.argv[1:]:
            continue
        start = time.monotonic()
        try:
            test()
            print("ok   %s (%.1f s)" % (test.__name__, time.monotonic() - start))
        except Exception:  # noqa: BLE001 - any failure is a failed test
            failed += 1
            print("FAIL " + test.__name__)
            traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
    sys.exit(1 if failed else 0)
