#!/usr/bin/env python3
"""Every endpoint of the server with the bundled model: answers, streams, fields, errors in each API's shape."""
import json
import os
import shutil
import sys
import tempfile

from server_common import Server, check, main, user

CHAT, RAW, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"
server = None
GREEDY = {"temperature": 0, "max_tokens": 24}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["C", "F"]}}, "required": ["city", "unit"]}}}


def content(answer):
    return answer["choices"][0]["message"]["content"]


def test_information():
    status, headers, health = server.get("/health")
    check(status == 200 and health["status"] == "ok")
    check(headers["X-Content-Type-Options"] == "nosniff" and "default-src 'none'" in headers["Content-Security-Policy"])
    models = server.get("/v1/models")[2]
    check(models["data"][0]["id"] == "flash-moe-tiny" and models["object"] == "list", models)
    check(server.get("/v1/models/flash-moe-tiny")[2]["id"] == "flash-moe-tiny")
    props = server.get("/props")[2]
    check(props["model"]["experts"] == 64 and props["n_ctx"] == 4096 and props["has_chat_template"], props)
    check(server.metric("requests_active") == 0)
    for path, kind in [("/", "text/html"), ("/app.js", "text/javascript"), ("/map.js", "text/javascript"),
                       ("/markdown.js", "text/javascript"), ("/style.css", "text/css"), ("/icon.svg", "image/svg+xml")]:
        status, headers, body = server.get(path)
        check(status == 200 and headers["Content-Type"].startswith(kind) and len(body) > 100, path)
    status, headers, body = server.ask("HEAD", "/health")
    check(status == 200 and body == "")


def test_chat():
    a = server.ok(CHAT, {"messages": user("Who are you?"), **GREEDY})
    check(a["object"] == "chat.completion" and a["id"].startswith("chatcmpl-") and content(a), a)
    check(a["usage"]["total_tokens"] == a["usage"]["prompt_tokens"] + a["usage"]["completion_tokens"], a["usage"])
    check(a["choices"][0]["finish_reason"] in ("stop", "length") and "hit_rate" in a["x_moe"] and "ttft_ms" in a["timings"])
    events = server.stream(CHAT, {"messages": user("Who are you?"), **GREEDY, "stream_options": {"include_usage": True}})
    check(events[-1][1] == "[DONE]")
    chunks = [e for _, e in events[:-1]]
    check(chunks[0]["choices"][0]["delta"]["role"] == "assistant")
    check("".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]) == content(a), "stream and whole agree")
    check(chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == a["usage"]["completion_tokens"])
    check(chunks[-2]["choices"][0]["finish_reason"] == a["choices"][0]["finish_reason"])
    parts = [{"role": "user", "content": [{"type": "text", "text": "Who are you?"}]}]
    check(content(server.ok(CHAT, {"messages": parts, **GREEDY})) == content(a), "parts are text")


def test_sampling_fields():
    ask = {"messages": user("Tell me a story."), "max_tokens": 16, "temperature": 1.2, "seed": 7}
    a, b = (content(server.ok(CHAT, ask)) for _ in range(2))
    check(a == b, "the same seed gives the same text")
    check(content(server.ok(CHAT, {**ask, "seed": 8})) != a, "another seed another text")
    n = server.ok(CHAT, {**ask, "n": 3})
    check(len({c["message"]["content"] for c in n["choices"]}) > 1 and [c["index"] for c in n["choices"]] == [0, 1, 2], n)
    check(n["choices"][0]["message"]["content"] == a, "choice 0 is the answer alone")
    check(content(server.ok(CHAT, {**ask, "top_k": 1})) == content(server.ok(CHAT, {**ask, "temperature": 0})), "top_k 1 is greedy")
    full = content(server.ok(CHAT, {"messages": user("Who are you?"), **GREEDY}))
    word = full.split()[3]
    stopped = server.ok(CHAT, {"messages": user("Who are you?"), **GREEDY, "stop": word})
    check(content(stopped) == full[:full.index(word)] and stopped["choices"][0]["finish_reason"] == "stop", (full, content(stopped)))
    one = server.ok(CHAT, {"messages": user("Who are you?"), "temperature": 0, "max_tokens": 1, "logprobs": True, "top_logprobs": 3})
    first = one["choices"][0]["logprobs"]["content"][0]
    check(len(first["top_logprobs"]) == 3 and first["top_logprobs"][0]["token"] == first["token"] and first["logprob"] <= 0, first)
    banned = server.ok(CHAT, {"messages": user("Who are you?"), "temperature": 0, "max_tokens": 1, "logit_bias": {str(first["id"]): -100}})
    check(content(banned) == first["top_logprobs"][1]["token"], "a banned token gives way to the second")
    for field in ({"min_p": 0.3}, {"presence_penalty": 1}, {"frequency_penalty": 1}, {"repeat_penalty": 1.3}, {"top_p": 0.1}):
        server.ok(CHAT, {**ask, **field})


def test_completions():
    a = server.ok(RAW, {"prompt": "Once upon", "max_tokens": 8, "temperature": 0, "logprobs": 2, "echo": True})
    check(a["object"] == "text_completion" and a["choices"][0]["text"].startswith("Once upon"))
    check(len(a["choices"][0]["logprobs"]["tokens"]) == 8)
    ids = server.ok("/tokenize", {"content": "Once upon"})["tokens"]
    check(server.ok("/detokenize", {"tokens": ids})["content"] == "Once upon")
    b = server.ok(RAW, {"prompt": ids, "max_tokens": 8, "temperature": 0})
    check("Once upon" + b["choices"][0]["text"] == a["choices"][0]["text"], "ids and text agree")
    events = server.stream(RAW, {"prompt": "Once upon", "max_tokens": 8, "temperature": 0})
    check("".join(e["choices"][0]["text"] for _, e in events[:-1]) == b["choices"][0]["text"])


def test_json_output():
    for temperature in (0, 1.5):
        a = server.ok(CHAT, {"messages": user("List three animals."), "temperature": temperature, "seed": 3, "max_tokens": 300, "response_format": {"type": "json_object"}})
        if a["choices"][0]["finish_reason"] == "stop":
            check(isinstance(json.loads(content(a)), dict), content(a))
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 15}, "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 2, "maxItems": 3},
                                               "age": {"type": "integer", "minimum": 18, "maximum": 99}}, "required": ["name", "tags", "age"], "additionalProperties": False}
    for seed in range(4):
        ask = {"messages": user("Describe a person as JSON."), "temperature": 1.4, "seed": seed, "max_tokens": 300, "response_format": {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": schema}}}
        a = server.ok(CHAT, ask)
        check(a["choices"][0]["finish_reason"] == "stop", a)
        v = json.loads(content(a))
        check(len(v["name"]) <= 15 and 2 <= len(v["tags"]) <= 3 and set(v["tags"]) <= {"a", "b"} and 18 <= v["age"] <= 99 and set(v) == {"name", "tags", "age"}, v)
        events = server.stream(CHAT, ask)
        check("".join(e["choices"][0]["delta"].get("content", "") for _, e in events[:-1]) == content(a))
    v = server.ok(RESPONSES, {"input": "A person.", "max_output_tokens": 300, "text": {"format": {"type": "json_schema", "name": "p", "schema": schema}}})
    json.loads(v["output"][0]["content"][0]["text"])
    status, e = server.post(CHAT, {"messages": user("x"), "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object", "properties": {"a": {"not": {}}}}}}})
    check(status == 400 and "#/a" in e["error"]["message"] and e["error"]["param"] == "response_format", e)


def test_tools():
    ask = {"messages": user("What is the weather in Bern?"), "tools": [TOOL], "temperature": 0, "max_tokens": 200}
    a = server.ok(CHAT, {**ask, "tool_choice": "required", "parallel_tool_calls": False})
    call = a["choices"][0]["message"]["tool_calls"][0]
    arguments = json.loads(call["function"]["arguments"])
    check(a["choices"][0]["finish_reason"] == "tool_calls" and call["function"]["name"] == "get_weather" and arguments["unit"] in ("C", "F"), a)
    check(len(a["choices"][0]["message"]["tool_calls"]) == 1 and a["choices"][0]["message"]["content"] is None)
    events = server.stream(CHAT, {**ask, "tool_choice": {"type": "function", "function": {"name": "get_weather"}}})
    deltas = [c["choices"][0]["delta"]["tool_calls"][0] for _, c in events[:-1] if c["choices"][0]["delta"].get("tool_calls")]
    check(deltas[0]["id"].startswith("call_") and deltas[0]["function"]["name"] == "get_weather")
    check(json.loads("".join(d["function"].get("arguments", "") for d in deltas)) == arguments)
    follow = ask["messages"] + [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": call["id"], "content": "12 degrees"}]
    check(server.ok(CHAT, {**ask, "messages": follow, "tool_choice": "none"})["choices"][0]["finish_reason"] in ("stop", "length"))
    m = server.ok(MESSAGES, {"messages": user("Weather in Bern?"), "max_tokens": 200, "tools": [{"name": "get_weather", "input_schema": TOOL["function"]["parameters"]}], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}})
    check(m["stop_reason"] == "tool_use" and m["content"][0]["type"] == "tool_use" and m["content"][0]["input"]["unit"] in ("C", "F"), m)
    r = server.ok(RESPONSES, {"input": "Weather?", "max_output_tokens": 200, "tools": [{"type": "function", **TOOL["function"]}], "tool_choice": "required", "parallel_tool_calls": False})
    check(r["output"][0]["type"] == "function_call" and json.loads(r["output"][0]["arguments"])["city"] is not None, r)


def with_template(template):
    """The bundled model in a temporary folder, with another chat template."""
    bundled, folder = os.path.join(os.path.dirname(__file__), "../../models/flash-moe-tiny"), tempfile.mkdtemp()
    for name in os.listdir(bundled):
        if name != "tokenizer_config.json":
            os.symlink(os.path.abspath(os.path.join(bundled, name)), os.path.join(folder, name))
    settings = json.load(open(os.path.join(bundled, "tokenizer_config.json")))
    with open(os.path.join(folder, "tokenizer_config.json"), "w") as f:
        json.dump({**settings, "chat_template": settings["chat_template"] + template}, f)
    return folder


def test_reasoning():
    """Tokens of the reasoning are counted as such; what follows it is not."""
    folder = with_template("{{- '<think>\n' -}}")
    try:
        with Server("--quiet", model=folder) as s:
            a = s.ok(CHAT, {"messages": user("Who are you?"), **GREEDY})
            check(a["choices"][0]["message"]["reasoning_content"], a)
            answered = a["usage"]["completion_tokens"]  # an end token is the answer's, not the reasoning's
            check(answered - 1 <= a["usage"]["completion_tokens_details"]["reasoning_tokens"] <= answered, a["usage"])
            r = s.ok(RESPONSES, {"input": "Who are you?", "temperature": 0, "max_output_tokens": 24})
            check(r["output"][0]["type"] == "reasoning" and r["usage"]["output_tokens_details"]["reasoning_tokens"] >= answered - 1, r)
            a = s.ok(CHAT, {"messages": user("Say yes."), "temperature": 0, "max_tokens": 400, "response_format": {"type": "json_schema",
                     "json_schema": {"name": "a", "schema": {"const": "yes"}}}})
            used = a["usage"]
            thought = used["completion_tokens_details"]["reasoning_tokens"]
            if a["choices"][0]["finish_reason"] == "stop":
                check(content(a) == '"yes"' and 0 <= thought < used["completion_tokens"], a)
            else:
                check(thought == used["completion_tokens"], a)
    finally:
        shutil.rmtree(folder)
    check(server.ok(CHAT, {"messages": user("Who are you?"), **GREEDY})["usage"]["completion_tokens_details"]["reasoning_tokens"] == 0)


def test_call_lists():
    """Models that write their calls as one list: forced calls parse, one or several."""
    folder = with_template("{%- if tools -%}{{- '[TOOL_CALLS]' ~ tools | tojson -}}{%- endif -%}")
    try:
        with Server("--quiet", model=folder) as s:
            ask = {"messages": user("Weather in Bern and in Rome?"), "tools": [TOOL], "tool_choice": "required", "temperature": 1.5, "max_tokens": 400}
            most = 0
            for seed in range(12):
                a = s.ok(CHAT, {**ask, "seed": seed})["choices"][0]
                check(a["finish_reason"] in ("tool_calls", "length"), a)
                calls = a["message"].get("tool_calls") or []
                most = max(most, len(calls))
                if a["finish_reason"] == "tool_calls":
                    check(all(json.loads(c["function"]["arguments"])["unit"] in ("C", "F") for c in calls), calls)
                one = s.ok(CHAT, {**ask, "seed": seed, "parallel_tool_calls": False})["choices"][0]
                check(len(one["message"].get("tool_calls") or []) <= 1, one)
            check(most > 1, "no answer had several calls")
    finally:
        shutil.rmtree(folder)


def test_messages():
    ask = {"system": "Be brief.", "messages": user("Who are you?"), "max_tokens": 24, "temperature": 0}
    a = server.ok(MESSAGES, ask)
    check(a["type"] == "message" and a["role"] == "assistant" and a["content"][0]["type"] == "text" and a["stop_reason"] in ("end_turn", "max_tokens"), a)
    count = server.ok("/v1/messages/count_tokens", {k: ask[k] for k in ("system", "messages")})["input_tokens"]
    check(count == a["usage"]["input_tokens"] + a["usage"]["cache_read_input_tokens"], (count, a["usage"]))
    events = server.stream(MESSAGES, ask)
    names = [n for n, _ in events]
    check(names[0] == "message_start" and names[-1] == "message_stop" and names[-2] == "message_delta" and "content_block_start" in names, names)
    check("".join(e["delta"]["text"] for n, e in events if n == "content_block_delta") == a["content"][0]["text"])
    check(all(e["type"] == n for n, e in events))
    begun = server.ok(MESSAGES, {**ask, "messages": user("Who are you?") + [{"role": "assistant", "content": "I am a"}]})
    check(begun["content"][0]["text"], "an answer that was begun is gone on with")
    noted = [{"type": "text", "text": "x-anthropic-billing-header: cch=1"}, {"type": "text", "text": "Be brief."}]
    check(server.ok(MESSAGES, {**ask, "system": noted})["content"] == a["content"], "the billing note is not for the model")
    stop = a["content"][0]["text"].split()[2]
    s = server.ok(MESSAGES, {**ask, "stop_sequences": [stop]})
    check(s["stop_reason"] == "stop_sequence" and s["stop_sequence"] == stop, s)


def test_responses():
    ask = {"instructions": "Be brief.", "input": "Who are you?", "max_output_tokens": 24, "temperature": 0}
    a = server.ok(RESPONSES, ask)
    text = a["output"][0]["content"][0]["text"]
    check(a["object"] == "response" and a["status"] in ("completed", "incomplete") and text, a)
    events = server.stream(RESPONSES, ask)
    check([e["sequence_number"] for _, e in events] == list(range(len(events))), "numbered")
    check(events[0][0] == "response.created" and events[-1][0] in ("response.completed", "response.incomplete"))
    check("".join(e["delta"] for n, e in events if n == "response.output_text.delta") == text)
    check(events[-1][1]["response"]["output"][0]["content"][0]["text"] == text)
    items = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
             {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}, {"type": "function_call_output", "call_id": "c1", "output": "done"}]
    server.ok(RESPONSES, {"input": items, "max_output_tokens": 5})


def test_errors():
    long = "word " * 6000
    bad = [
        (CHAT, "", 400, None), (CHAT, "{", 400, None), (CHAT, "[]", 400, None), (CHAT, b'{"messages": "\xff"}', 400, None), (CHAT, '{"a":1,"a":2}', 400, None), (CHAT, "[" * 100000, 400, None),
        (CHAT, {}, 400, "messages"), (CHAT, {"messages": []}, 400, "messages"), (CHAT, {"messages": [{"role": "wizard", "content": "x"}]}, 400, "messages"),
        (CHAT, {"messages": [7]}, 400, "messages"), (CHAT, {"messages": user([{"type": "image_url", "image_url": {}}])}, 400, "messages"),
        (CHAT, {"messages": user("x"), "max_tokens": -1}, 400, "max_tokens"), (CHAT, {"messages": user("x"), "max_tokens": 1e308}, 400, "max_tokens"), (CHAT, {"messages": user("x"), "max_tokens": "5"}, 400, "max_tokens"),
        (CHAT, {"messages": user("x"), "temperature": -1}, 400, "temperature"), (CHAT, '{"messages":[{"role":"user","content":"x"}],"temperature":NaN}', 400, None),
        (CHAT, {"messages": user("x"), "stop": ["a"] * 10000}, 400, "stop"), (CHAT, {"messages": user("x"), "n": 10**9}, 400, "n"),
        (CHAT, {"messages": user("x"), "logit_bias": {"-3": 1}}, 400, "logit_bias"), (CHAT, {"messages": user("x"), "logit_bias": {str(i): 1 for i in range(5000)}}, 400, "logit_bias"),
        (CHAT, {"messages": user("x"), "tool_choice": "required"}, 400, "tool_choice"), (CHAT, {"messages": user("x"), "tools": [{"type": "function", "function": {"name": "a b"}}]}, 400, "tools"),
        (CHAT, {"messages": user("x"), "tool_choice": "required", "tools": [{"type": "function", "function": {"name": "f", "parameters": {"$ref": "#"}}}]}, 400, "tools"),
        (CHAT, {"messages": user(long)}, 400, None), (RAW, {}, 400, "prompt"), (RAW, {"prompt": [99999]}, 400, "prompt"), (RAW, {"prompt": [-1]}, 400, "prompt"), (RAW, {"prompt": ""}, 400, None),
        (RESPONSES, {}, 400, "input"), (RESPONSES, {"input": "x", "previous_response_id": "r"}, 400, "previous_response_id"),
    ]
    for path, body, wanted, param in bad:
        status, answer = server.post(path, body)
        check(status == wanted and answer["error"]["message"] and answer["error"].get("param") == param, (path, str(body)[:80], status, answer))
    status, e = server.post(CHAT, {"messages": user(long)})
    check(e["error"]["code"] == "context_length_exceeded", e)
    schema = {}
    for _ in range(3000):
        schema = {"items": schema}
    status, _ = server.post(CHAT, json.dumps({"messages": user("x")})[:-1] + ',"response_format":{"type":"json_schema","json_schema":{"schema":' + '{"items":' * 1500 + "{}" + "}" * 1500 + "}}}")
    check(status == 400)
    status, e = server.post(CHAT, {"messages": user("x"), "response_format": {"type": "json_schema", "json_schema": {"schema": {"pattern": "(" * 60000}}}})
    check(status == 400, e)
    for body in ({}, {"messages": user("x")}, {"messages": user("x"), "max_tokens": 0}, {"messages": [{"role": "user", "content": 5}], "max_tokens": 5}):
        status, e = server.post(MESSAGES, body)
        check(status == 400 and e["type"] == "error" and e["error"]["type"] == "invalid_request_error", e)
    check(server.get("/nowhere")[0] == 404 and server.get("/../../etc/passwd")[0] == 404 and server.get("/v1/models/../../etc")[0] in (200, 404))
    check(server.ask("GET", CHAT)[0] == 405 and server.ask("DELETE", "/health")[0] == 405 and server.ask("OPTIONS", CHAT)[0] == 204)
    status, e = server.post("/v1/messages/nothing", {})
    check(status == 404 and e["type"] == "error", e)
    # A model name is never a path.
    check(server.post(CHAT, {"model": "../../etc/passwd", "messages": user("x"), "max_tokens": 1})[0] == 200)


def test_map():
    c = server.connect()
    c.request("GET", "/v1/x/experts")
    r = c.getresponse()
    server.ok(CHAT, {"messages": user("Who are you?"), "max_tokens": 8})
    text = b""
    while text.count(b"data: ") < 3:
        text += r.read1(65536)
    frame = json.loads(text.split(b"data: ")[1].split(b"\n\n")[0])
    check(frame["layers"] == 8 and frame["experts"] == 64 and len(frame["map"]) == 512, {k: v for k, v in frame.items() if k != "map"})
    check(any((ord(x) - 48) & 1 for x in frame["map"]), "something is in memory")
    c.close()


def run():
    global server
    with Server("--quiet") as server:
        return main(test_information, test_chat, test_sampling_fields, test_completions, test_json_output, test_tools, test_reasoning, test_call_lists,
                    test_messages, test_responses, test_errors, test_map)


sys.exit(1 if run() else 0)
