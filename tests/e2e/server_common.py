"""What the server's tests share: start it on a free port, ask it, read streams. Standard library only."""
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

PROGRAM = os.environ.get("FLASH_MOE", "build/flash-moe")
SLOW = float(os.environ.get("SLOW", "1"))  # sanitizer builds: multiply time limits


class Server:
    """with Server("--parallel", "2") as s: s.post("/v1/...", {...})"""

    def __init__(self, *options, model=None, shim=None):
        command = [PROGRAM, "serve"] + ([model] if model else []) + ["--port", "0", *options]
        env = dict(os.environ, LD_PRELOAD=shim) if shim else None
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=env)
        self.log = []
        self.port = None
        for line in self.process.stderr:
            self.log.append(line)
            found = re.search(r"listening on http://\S*:(\d+)", line)
            if found:
                self.port = int(found.group(1))
                break
        if not self.port:
            self.process.wait()
            raise RuntimeError("the server did not start: " + "".join(self.log))
        self.reader = threading.Thread(target=self._drain, daemon=True)
        self.reader.start()

    def _drain(self):
        for line in self.process.stderr:
            self.log.append(line)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        status = self.stop()
        if kind is None:
            check(status == 0, f"the server ended with status {status}: {''.join(self.log[-30:])}")
        else:
            sys.stderr.write("".join(self.log[-15:]))

    def stop(self, number=signal.SIGINT, limit=60):
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(limit * SLOW)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise AssertionError("the server did not stop") from None
        self.reader.join(5)
        return self.process.returncode

    def connect(self, timeout=180):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout * SLOW)

    def raw(self, timeout=20):
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout * SLOW)

    def ask(self, method, path, body=None, headers=None):
        """(status, headers, JSON or text)"""
        c = self.connect()
        data = body if isinstance(body, (bytes, str, type(None))) else json.dumps(body)
        c.request(method, path, data, {"Content-Type": "application/json", **(headers or {})} if data else headers or {})
        r = c.getresponse()
        text = r.read()
        c.close()
        kind = r.getheader("Content-Type") or ""
        return r.status, r.headers, json.loads(text) if kind.startswith("application/json") and text else text.decode()

    def get(self, path, **headers):
        return self.ask("GET", path, None, headers)

    def post(self, path, body, headers=None):
        status, _, answer = self.ask("POST", path, body, headers)
        return status, answer

    def ok(self, path, body, headers=None):
        status, answer = self.post(path, body, headers)
        check(status == 200, f"{path} {str(body)[:300]}: {status} {answer}")
        return answer

    def stream(self, path, body, headers=None):
        """The events: (name or None, JSON or text)"""
        c = self.connect()
        c.request("POST", path, json.dumps({**body, "stream": True}), {"Content-Type": "application/json", **(headers or {})})
        r = c.getresponse()
        check(r.status == 200, f"{path}: {r.status} {r.read()[:400] if r.status != 200 else ''}")
        check(r.getheader("Content-Type").startswith("text/event-stream"), "a stream is text/event-stream")
        events = list(parse_events(r.read().decode()))
        c.close()
        return events

    def metric(self, name):
        text = self.get("/metrics")[2]
        return float(re.search(rf"^flash_moe_{name} (\S+)$", text, re.M).group(1))

    def rss(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1)) * 1024


def parse_events(text):
    for block in text.split("\n\n"):
        name, data = None, []
        for line in block.split("\n"):
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                data.append(line[6:])
        if data:
            data = "\n".join(data)
            yield name, data if data == "[DONE]" else json.loads(data)


def check(condition, message="check failed"):
    if not condition:
        raise AssertionError(message)


def user(text):
    return [{"role": "user", "content": text}]


def main(*tests):
    failed = 0
    for test in tests:
        start = time.time()
        try:
            test()
            print(f"ok    {test.__name__} ({time.time() - start:.1f} s)", flush=True)
        except Exception as error:  # noqa: BLE001: report and go on
            failed += 1
            import traceback

            traceback.print_exc()
            print(f"FAIL  {test.__name__}: {error}", flush=True)
    return failed
