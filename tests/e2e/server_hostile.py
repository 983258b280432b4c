#!/usr/bin/env python3
"""Clients that are broken, slow, many or hostile: the server answers the others, its memory stays flat, nothing crashes."""
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from server_common import SLOW, Server, check, main, user

CHAT = "/v1/chat/completions"
server = None
resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)


def answers():
    check(server.get("/health")[0] == 200, "the server still answers")


def send(data, limit=10):
    """The first line of the answer to raw bytes ('' when the connection is closed without one)."""
    with server.raw(limit) as s:
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            got = b""
            while b"\r\n" not in got:
                piece = s.recv(4096)
                if not piece:
                    break
                got += piece
        except OSError:
            return ""
        return got.split(b"\r\n")[0].decode("latin1")


def test_malformed():
    body = json.dumps({"messages": user("x"), "max_tokens": 1}).encode()
    head = b"POST " + CHAT.encode() + b" HTTP/1.1\r\nHost: localhost\r\n"
    refused = {
        "negative length": head + b"Content-Length: -5\r\n\r\n" + body,
        "length of 2^64": head + b"Content-Length: 18446744073709551616\r\n\r\n" + body,
        "two lengths": head + b"Content-Length: %d\r\nContent-Length: 3\r\n\r\n" % len(body) + body,
        "length and chunks": head + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "chunk size -2": head + b"Transfer-Encoding: chunked\r\n\r\n-2\r\n" + body,
        "chunk overflow": head + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n" + body,
        "no body": head + b"\r\n",
        "no host": b"GET /health HTTP/1.1\r\n\r\n",
        "two hosts": b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "huge header": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * (64 * 1024 + 1) + b"\r\n\r\n",
        "header without colon": b"GET /health HTTP/1.1\r\nHost: localhost\r\nnonsense\r\n\r\n",
        "HTTP/0.9": b"GET /health\r\n\r\n",
        "not HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(400),
        "nothing but zeros": b"\0" * 3000,
        "foreign host": b"GET /health HTTP/1.1\r\nHost: evil.example.com\r\n\r\n",
        "foreign origin": head + b"Origin: http://localhost.evil.com\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
        "body too large": head + b"Content-Length: 99999999999\r\n\r\n{",
    }
    for name, data in refused.items():
        line = send(data)
        check(line == "" or line.split()[1][0] in "45", f"{name}: {line}")
    accepted = {
        "chunks": head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n",
        "own origin": head.replace(b"localhost", b"127.0.0.1:1") + b"Origin: http://127.0.0.1:1\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
        "HTTP/1.0": b"GET /health HTTP/1.0\r\n\r\n",
    }
    for name, data in accepted.items():
        with server.raw() as s:
            s.sendall(data)
            check(s.recv(100).split()[1] == b"200", name)
    with server.raw() as s:  # two requests in one packet
        s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2)
        got = b""
        while got.count(b"HTTP/1.1 200") < 2:
            piece = s.recv(4096)
            check(piece, "both pipelined requests are answered")
            got += piece
    answers()


def test_cors():
    status, headers, _ = server.get("/health", Origin="http://good.example")
    check(status == 200 and headers["Access-Control-Allow-Origin"] == "http://good.example")
    check(server.get("/health", Origin="http://good.example.evil.com")[0] == 403)
    status, headers, _ = server.ask("OPTIONS", CHAT, None, {"Origin": "http://other.example", "Access-Control-Request-Method": "POST"})
    check("Access-Control-Allow-Origin" not in headers)


def test_client_leaves():
    before = server.metric("requests_cancelled_total")
    for stream in (True, False):
        with server.raw() as s:
            endless = {"0": -100, "2": -100}  # no end token: on a fast machine the answer must not end by itself
            body = json.dumps({"messages": user("Tell me a long story."), "max_tokens": 3000, "stream": stream, "temperature": 1, "logit_bias": endless}).encode()
            s.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(body)) + body)
            if stream:
                s.recv(1000)
            else:
                time.sleep(0.5)
        end = time.time() + 10 * SLOW
        while server.metric("requests_active") + server.metric("requests_waiting") > 0:
            check(time.time() < end, f"stream {stream}: the engine goes on for a client that left")
            time.sleep(0.05)
    check(server.metric("requests_cancelled_total") >= before + 2)


def test_slow_clients():
    """200 clients send a request byte by byte and read the answer the same way, while others are served."""
    body = json.dumps({"messages": user("Hi"), "max_tokens": 4, "stream": True, "temperature": 0}).encode()
    data = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(body)) + body
    results = []

    def slow(i):
        try:
            with server.raw(90) as s:
                for at in range(0, len(data), 24):
                    s.sendall(data[at:at + 24])
                    time.sleep(0.1)
                got = b""
                while b"[DONE]" not in got and b"503" not in got[:20]:
                    piece = s.recv(16)
                    if not piece:
                        break
                    got += piece
                results.append("ok" if b"[DONE]" in got else "busy" if b" 503 " in got[:30] else got[:60])
        except OSError as error:
            results.append(repr(error))

    threads = [threading.Thread(target=slow, args=(i,)) for i in range(200)]
    for t in threads:
        t.start()
    for _ in range(8):
        start = time.time()
        answers()
        check(time.time() - start < 3 * SLOW, "others are answered at once")
        time.sleep(0.1)
    for t in threads:
        t.join()
    check(set(results) <= {"ok", "busy"} and results.count("ok") >= 60, {r: results.count(r) for r in map(str, results)})


def test_idle_connections():
    """1,000 connections that say nothing."""
    answers()
    before = server.rss()
    idle = []
    for _ in range(1000):
        idle.append(server.raw())
    check(server.metric("http_connections_open") >= 1000)
    check(server.ok(CHAT, {"messages": user("Hi"), "max_tokens": 2})["object"] == "chat.completion")
    grown = server.rss() - before
    shadow = 4 if os.environ.get("SANITIZE") == "thread" else 0  # bytes that the sanitizer keeps beside each
    check(grown < (1 + shadow) * 48 << 20, f"1,000 idle connections took {grown >> 20} MiB")
    end = time.time() + 30 * SLOW
    while server.metric("http_connections_open") > 50 and time.time() < end:
        time.sleep(0.3)
    check(server.metric("http_connections_open") <= 50, "idle connections are closed in the end")
    for s in idle:
        s.close()


def test_slow_loris():
    """One byte now and then does not keep a connection alive."""
    start = time.time()
    with server.raw(40) as s:
        s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n")
        try:
            while time.time() - start < 30 * SLOW:
                s.sendall(b"X")
                s.settimeout(0.5)
                try:
                    if s.recv(10) == b"":
                        break
                except TimeoutError:
                    pass
        except OSError:
            pass
    check(time.time() - start < 15 * SLOW, "a request that drips is cut off")
    answers()


def test_never_reads():
    """A client that asks for much and reads nothing is dropped; memory stays bounded."""
    before = server.rss()
    body = json.dumps({"messages": user("Tell me a long story."), "max_tokens": 1500, "n": 4, "stream": True, "temperature": 1.5}).encode()
    sockets = []
    for _ in range(6):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        s.connect(("127.0.0.1", server.port))
        s.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(body)) + body)
        sockets.append(s)
    time.sleep(2)
    answers()
    check(server.rss() - before < 80 << 20, f"{(server.rss() - before) >> 20} MiB")
    for s in sockets:
        s.close()
    end = time.time() + 20 * SLOW
    while server.metric("requests_active") + server.metric("requests_waiting") > 0:
        check(time.time() < end, "work for clients that left ends")
        time.sleep(0.1)


def test_big_bodies():
    before = server.rss()
    status, e = server.post(CHAT, b'{"messages":"' + b"a" * (5 << 20) + b'"}')
    check(status == 413 or status == 400, e)
    for _ in range(4):
        send(b"POST %s HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" % CHAT.encode() + (b"100000\r\n" + b"a" * 0x100000 + b"\r\n") * 8)
    check(server.rss() - before < 64 << 20, f"{(server.rss() - before) >> 20} MiB kept after refused bodies")
    answers()


def test_api_keys():
    with Server("--quiet", "--api-key", "secret-one", "--api-key", "secret-two") as s:
        check(s.get("/health")[0] == 200, "health needs no key")
        for headers in ({}, {"Authorization": "Bearer secret-on"}, {"Authorization": "Bearer secret-onee"}, {"Authorization": "Basic secret-one"}, {"X-Api-Key": ""}):
            status, h, e = s.ask("GET", "/v1/models", None, headers)
            check(status == 401 and h["WWW-Authenticate"] == "Bearer" and e["error"]["type"] == "authentication_error", (headers, status))
        check(s.get("/v1/models", Authorization="Bearer secret-two")[0] == 200 and s.ask("GET", "/v1/models", None, {"X-Api-Key": "secret-one"})[0] == 200)
        status, e = s.post("/v1/messages", {}, {})
        check(status == 401 and e["type"] == "error", e)
        ask = {"messages": user("A conversation about the weather in the mountains, long enough to be kept."), "max_tokens": 4, "temperature": 0}
        one, two = ({"Authorization": f"Bearer secret-{n}"} for n in ("one", "two"))
        s.ok(CHAT, ask, one)
        check(s.ok(CHAT, ask, two)["usage"]["prompt_tokens_details"]["cached_tokens"] == 0, "no prefix crosses keys")
        check(s.ok(CHAT, ask, one)["usage"]["prompt_tokens_details"]["cached_tokens"] > 0, "the same key reuses its own")


def test_queue_limit():
    with Server("--quiet", "--parallel", "1", "--queue", "1") as s:
        results = []

        def ask():
            c = s.connect()
            c.request("POST", CHAT, json.dumps({"messages": user("Tell me a story."), "max_tokens": 150, "temperature": 1}))
            r = c.getresponse()
            results.append((r.status, r.getheader("Retry-After"), json.loads(r.read())))

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        codes = sorted(r[0] for r in results)
        check(codes[0] == 200 and codes[-1] == 503, codes)
        busy = [r for r in results if r[0] == 503][0]
        check(busy[1] and busy[2]["error"]["type"] == "overloaded_error", busy)


def test_shutdown():
    s = Server("--quiet", "--grace", "30")
    got = {}

    def ask():
        events = s.stream(CHAT, {"messages": user("Tell me a story."), "max_tokens": 60, "temperature": 1})
        got["end"] = events[-1][1]

    t = threading.Thread(target=ask)
    t.start()
    while s.metric("requests_active") == 0:
        time.sleep(0.02)
    s.process.send_signal(signal.SIGTERM)
    t.join()
    check(got.get("end") == "[DONE]", "a running answer is finished")
    check(s.stop() == 0)
    s = Server("--quiet", "--grace", "0")  # broken off
    with s.raw() as c:
        body = json.dumps({"messages": user("Tell me a story."), "max_tokens": 3000, "stream": True, "temperature": 1}).encode()
        c.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(body)) + body)
        c.recv(500)
        watcher = s.raw()
        watcher.sendall(b"GET /v1/x/experts HTTP/1.1\r\nHost: localhost\r\n\r\n")
        watcher.recv(100)
        start = time.time()
        check(s.stop() == 0 and time.time() - start < 10 * SLOW, "it stops soon")
        rest = b""
        while piece := c.recv(65536):
            rest += piece
        check(b'"error"' in rest, "the client is told")
        watcher.close()
    check(Server.__name__)


# What a sandbox without epoll answers.
NO_EPOLL = """
#include <errno.h>
int epoll_create1(int flags) { (void)flags; return errno = ENOSYS, -1; }
"""


def test_without_epoll():
    if os.environ.get("SANITIZE"):
        return  # a shim must not come before the sanitizer's library
    with tempfile.TemporaryDirectory() as work:
        source, shim = os.path.join(work, "shim.c"), os.path.join(work, "shim.so")
        with open(source, "w") as f:
            f.write(NO_EPOLL)
        subprocess.run([os.environ.get("CC", "cc").split()[-1], "-shared", "-fPIC", "-o", shim, source], check=True)
        with Server("--quiet", shim=shim) as s:
            status, answer = s.post(CHAT, {"messages": user("Hi"), "max_tokens": 2})
            check(status == 200 and answer["choices"], "poll does it")
            with open(f"/proc/{s.process.pid}/maps") as f:
                check("shim.so" in f.read(), "the shim is in use")
            waits = [os.readlink(f"/proc/{s.process.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{s.process.pid}/fd")]
            check(not any("eventpoll" in name for name in waits), "epoll is out of reach")


def run():
    global server
    with Server("--quiet", "--origin", "http://good.example", "--read-timeout", "6", "--idle-timeout", "8", "--max-body", "4M", "--parallel", "4") as server:
        failed = main(test_malformed, test_cors, test_client_leaves, test_slow_loris, test_slow_clients, test_never_reads, test_big_bodies, test_idle_connections)
    return failed + main(test_api_keys, test_queue_limit, test_shutdown, test_without_epoll)


sys.exit(1 if run() else 0)
