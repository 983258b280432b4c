#!/usr/bin/env python3
"""An agent's conversation: a long first prompt with tools, then a turn with a tool's result. Only what is new is computed.
AGENT_TOKENS: length of the first prompt (default 2500; `make check-agent`: 25000, where the times are judged too)."""
import json
import os
import sys
import time

from server_common import Server, check, main

TOKENS = int(os.environ.get("AGENT_TOKENS", "2500"))
TOOLS = [{"name": f"{verb}_{thing}", "description": f"{verb} a {thing} of the repository, and say what happened. Paths are relative to its root.",
          "input_schema": {"type": "object", "properties": {"path": {"type": "string"}, "text": {"type": "string"}}, "required": ["path"]}}
         for verb in ("read", "write", "search", "list") for thing in ("file", "folder", "symbol")]


def source(number):
    return "".join(f"    value_{i} = measure(lantern[{i * number}], '{i:x}{number}')  # line {i} of file {number}\n" for i in range(20))


def first_token(server, body):
    """(seconds to the first token, usage)"""
    c = server.connect(timeout=900)
    start = time.monotonic()
    c.request("POST", "/v1/messages", json.dumps({**body, "stream": True}), {"Content-Type": "application/json"})
    r = c.getresponse()
    check(r.status == 200, r.read() if r.status != 200 else "")
    seconds, usage = None, {}
    for line in r:
        if not line.startswith(b"data: "):
            continue
        event = json.loads(line[6:])
        if event["type"] == "content_block_delta" and seconds is None:
            seconds = time.monotonic() - start
        if event["type"] == "message_delta":
            usage = event["usage"]
    c.close()
    return seconds, usage


def test_agent():
    with Server("--quiet", "-c", str(TOKENS + 2048), "--prefix-memory", "2G") as s:
        body = {"max_tokens": 8, "temperature": 0, "tools": TOOLS, "system": "You are an agent that works on a repository."}
        count = 0
        while count < TOKENS:  # files until the prompt is long enough
            body["system"] += "".join(f"\n# file {n}\n{source(n)}" for n in range(count, count + 2 + (TOKENS - count) // 1200))
            body["messages"] = [{"role": "user", "content": "Which file measures the lanterns?"}]
            count = s.ok("/v1/messages/count_tokens", {k: body[k] for k in ("messages", "system", "tools")})["input_tokens"]
        check(count < TOKENS + 2000, count)
        s.ok("/v1/messages", {"max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]})
        first, used = first_token(s, body)
        check(used["cache_read_input_tokens"] < 64, used)
        body["messages"] += [{"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "read_file", "input": {"path": "a.py"}}]},
                             {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "lantern = light()"}]}]
        second, used = first_token(s, body)
        fresh = used["input_tokens"]
        print(f"      first prompt {count} tokens: {first:.2f} s to the first token; second turn, {fresh} new tokens: {second:.3f} s, {second / first:.2%}")
        check(fresh < 200 and used["cache_read_input_tokens"] > count - 150, used)
        if TOKENS >= 25000:
            check(second < 0.02 * first, f"the second turn took {second / first:.2%} of the first")


sys.exit(1 if main(test_agent) else 0)
