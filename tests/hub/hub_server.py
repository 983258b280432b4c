"""A hub on loopback: two HTTP servers (the hub and its storage host) that speak the protocol of the
Hugging Face hub, with faults on request and a record of every byte that was sent.

The small files of a model are served by the hub itself and named by their git SHA-1; the files in
`lfs` are answered with a redirect to the storage host and named by their SHA-256.
"""
import hashlib
import json
import re
import socket
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK = 16384


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Model:
    def __init__(self, files, commit=None, refs=("main",), lfs=None):
        self.files = files
        self.lfs = {n for n in files if n.endswith(".safetensors")} if lfs is None else set(lfs)
        self.hashes = {}
        self.commit = commit or hashlib.sha1(
            "".join(n + git_sha1(d) for n, d in sorted(files.items())).encode()).hexdigest()
        self.refs = set(refs)

    def etag(self, name):
        data = self.files[name]
        if self.hashes.get(name, (None,))[0] is not data:
            self.hashes[name] = (data, hashlib.sha256(data).hexdigest() if name in self.lfs
                                 else git_sha1(data))
        return self.hashes[name][1]


class Hub:
    """models: {"org/name": [Model, ...]}. Faults are plain attributes, see __init__."""

    def __init__(self, models):
        self.models = models
        self.lock = threading.Lock()
        self.requests = []      # (host, method, path, headers)
        self.sent = {}          # (host, path without query) -> [(first byte, bytes written)]
        self.rate = None        # bytes a second and connection
        self.buffer = None      # bytes the kernel may hold unsent a connection
        self.token = None       # when set, the hub wants it
        self.on_hub = None      # fn(handler) -> True when it has answered
        self.on_storage = None
        self.listing = None     # fn(dict) -> dict: changes the answer of /api/models
        self.head = {}          # header -> value: overrides on the HEAD of an LFS file
        self.body = None        # fn(name, bytes) -> bytes: what the storage really holds
        self.ranges = True      # the storage host serves ranges
        self.active = 0
        self.most_active = 0
        self.hub = self._serve("hub")
        self.storage = self._serve("storage")
        self.url = "http://127.0.0.1:%d" % self.hub.server_address[1]
        self.storage_url = "http://127.0.0.1:%d" % self.storage.server_address[1]

    def _serve(self, host):
        server = Server(("127.0.0.1", 0), type("Handler", (Handler,), {
            "owner": self, "host": host}))
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    def close(self):
        for server in (self.hub, self.storage):
            server.shutdown()
            server.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def find(self, repo, revision):
        for model in self.models.get(repo, []):
            if revision == model.commit or revision in model.refs:
                return model
        return None

    def bytes_sent(self, host="storage"):
        with self.lock:
            return sum(n for (h, _), spans in self.sent.items() if h == host for _, n in spans)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # clients that break off are what the tests are about


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def setup(self):
        if self.owner.buffer:
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.owner.buffer)
        super().setup()

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        owner = self.owner
        with owner.lock:
            owner.requests.append((self.host, self.command, self.path, dict(self.headers)))
            owner.active += 1
            owner.most_active = max(owner.most_active, owner.active)
        try:
            hook = owner.on_hub if self.host == "hub" else owner.on_storage
            if hook and hook(self):
                return
            (self.hub if self.host == "hub" else self.storage)()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with owner.lock:
                owner.active -= 1

    # ---- the hub

    def hub(self):
        owner = self.owner
        path = urllib.parse.urlsplit(self.path).path
        if owner.token and self.headers.get("Authorization") != "Bearer " + owner.token:
            return self.fail(401, "RepoNotFound", "Repository not found")
        m = re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", path)
        if m:
            return self.list_files(m.group(1), urllib.parse.unquote(m.group(2)))
        m = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if m:
            return self.resolve(m.group(1), urllib.parse.unquote(m.group(2)),
                                urllib.parse.unquote(m.group(3)))
        self.fail(404, "", "no such page")

    def list_files(self, repo, revision):
        owner = self.owner
        model = owner.find(repo, revision)
        if not model:
            known = repo in owner.models
            return self.fail(404 if known else 401,
                             "RevisionNotFound" if known else "RepoNotFound", "not found")
        files = []
        for name, data in model.files.items():
            entry = {"rfilename": name, "size": len(data), "blobId": model.etag(name)}
            if name in model.lfs:
                entry["lfs"] = {"sha256": model.etag(name), "size": len(data)}
            files.append(entry)
        answer = {"id": repo, "sha": model.commit, "siblings": files}
        if owner.listing:
            answer = owner.listing(answer)
        self.send(json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def resolve(self, repo, revision, name):
        owner = self.owner
        model = owner.find(repo, revision)
        if not model or name not in model.files:
            return self.fail(404, "EntryNotFound", "Entry not found")
        data, etag = model.files[name], model.etag(name)
        headers = {"X-Repo-Commit": model.commit, "ETag": '"%s"' % etag}
        if name not in model.lfs:
            return self.send(data, headers)
        headers.update({"X-Linked-Etag": '"%s"' % etag, "X-Linked-Size": str(len(data)),
                        "Location": "%s/blob/%s/%s/%s?sig=secret" % (
                            owner.storage_url, repo, model.commit, urllib.parse.quote(name))})
        headers.update(owner.head)
        self.head_only(302, {k: v for k, v in headers.items() if v is not None})

    # ---- the storage host

    def storage(self):
        owner = self.owner
        path = urllib.parse.urlsplit(self.path).path
        m = re.fullmatch(r"/blob/([^/]+/[^/]+)/([^/]+)/(.+)", path)
        name = urllib.parse.unquote(m.group(3)) if m else ""
        model = m and owner.find(m.group(1), m.group(2))
        if not model or name not in model.files:
            return self.fail(404, "", "no such blob")
        data = model.files[name]
        if owner.body:
            data = owner.body(name, data)
        self.send(data, {"ETag": '"whatever-the-storage-says"'}, ranges=owner.ranges)

    # ---- answers

    def head_only(self, status, headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def fail(self, status, code, message, headers=None):
        body = message.encode()
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def span(self, size):
        m = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not m:
            return None
        return int(m.group(1)), min(int(m.group(2)) if m.group(2) else size - 1, size - 1)

    def send(self, data, headers, ranges=True):
        span = self.span(len(data)) if ranges else None
        if span and span[0] >= len(data):
            return self.fail(416, "", "out of range",
                             {"Content-Range": "bytes */%d" % len(data)})
        first, last = span or (0, len(data) - 1)
        self.send_response(206 if span else 200)
        for key, value in headers.items():
            self.send_header(key, value)
        if span:
            self.send_header("Content-Range", "bytes %d-%d/%d" % (first, last, len(data)))
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        if self.command != "HEAD":
            self.pump(data, first, last + 1)

    def pump(self, data, first, end, stop=None):
        """Write data[first:end] at the hub's rate; stop early at byte `stop`, then break off."""
        owner = self.owner
        key = (self.host, urllib.parse.urlsplit(self.path).path)
        record = [first, 0]
        with owner.lock:
            owner.sent.setdefault(key, []).append(record)
        start = time.monotonic()
        limit = end if stop is None else min(stop, end)
        for at in range(first, limit, BLOCK):
            block = data[at:min(at + BLOCK, limit)]
            self.wfile.write(block)
            record[1] += len(block)
            if owner.rate:
                delay = start + record[1] / owner.rate - time.monotonic()
                if delay > 0:
                    time.sleep(delay)
        if limit < end:
            self.close_connection = True
