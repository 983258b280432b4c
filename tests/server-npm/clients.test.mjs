// The official packages against the real server with the bundled model.
import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";
import { serve } from "./common.mjs";

const KEY = "a-key-for-tests";
const base = await serve("--api-key", KEY);
const openai = new OpenAI({ baseURL: `${base}/v1`, apiKey: KEY, maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: base, apiKey: KEY, maxRetries: 0 });
const model = "flash-moe-tiny";
const messages = [{ role: "user", content: "Who are you?" }];
const parameters = { type: "object", properties: { city: { type: "string", maxLength: 12 }, unit: { enum: ["C", "F"] } }, required: ["city", "unit"], additionalProperties: false };
const weather = { type: "function", function: { name: "get_weather", description: "Weather of a city", parameters } };

test("openai: chat, whole and streamed", async () => {
  const whole = await openai.chat.completions.create({ model, messages, temperature: 0, max_tokens: 20 });
  assert.ok(whole.choices[0].message.content);
  const stream = await openai.chat.completions.create({ model, messages, temperature: 0, max_tokens: 20, stream: true, stream_options: { include_usage: true } });
  let text = "", usage;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.equal(usage.completion_tokens, whole.usage.completion_tokens);
  assert.ok(usage.prompt_tokens_details.cached_tokens > 0);
  const helper = openai.chat.completions.stream({ model, messages, temperature: 0, max_tokens: 20 });
  assert.equal(await helper.finalContent(), text);
});

test("openai: tools, whole and by the stream helper", async () => {
  const ask = { model, messages, tools: [weather], tool_choice: "required", parallel_tool_calls: false, max_tokens: 200, temperature: 0 };
  const whole = await openai.chat.completions.create(ask);
  const call = whole.choices[0].message.tool_calls[0];
  assert.equal(call.function.name, "get_weather");
  assert.ok(["C", "F"].includes(JSON.parse(call.function.arguments).unit));
  assert.equal(whole.choices[0].finish_reason, "tool_calls");
  const streamed = await openai.chat.completions.stream(ask).finalChatCompletion();
  assert.deepEqual(JSON.parse(streamed.choices[0].message.tool_calls[0].function.arguments), JSON.parse(call.function.arguments));
  const next = await openai.chat.completions.create({ model, max_tokens: 8, tools: [weather], tool_choice: "none", messages: [...messages, whole.choices[0].message, { role: "tool", tool_call_id: call.id, content: "12 C" }] });
  assert.equal(next.choices[0].message.tool_calls, undefined);
});

test("openai: JSON schema", async () => {
  const schema = { type: "object", properties: { name: { type: "string", maxLength: 20 }, age: { type: "integer", minimum: 0, maximum: 120 } }, required: ["name", "age"], additionalProperties: false };
  const a = await openai.chat.completions.create({ model, messages, max_tokens: 200, response_format: { type: "json_schema", json_schema: { name: "person", strict: true, schema } } });
  const value = JSON.parse(a.choices[0].message.content);
  assert.ok(value.age >= 0 && value.age <= 120 && value.name.length <= 20);
});

test("openai: completions, responses, models, errors", async () => {
  const c = await openai.completions.create({ model, prompt: "Once upon", max_tokens: 6, temperature: 0 });
  assert.match(c.choices[0].text, /a time/);
  const r = await openai.responses.create({ model, input: "Who are you?", max_output_tokens: 16, temperature: 0 });
  assert.ok(r.output_text);
  let text = "", last;
  for await (const event of await openai.responses.create({ model, input: "Who are you?", max_output_tokens: 16, temperature: 0, stream: true })) {
    if (event.type === "response.output_text.delta") text += event.delta;
    last = event;
  }
  assert.equal(text, r.output_text);
  assert.equal(last.response.output_text ?? last.response.output[0].content[0].text, text);
  assert.equal((await openai.models.list()).data[0].id, model);
  assert.equal((await openai.models.retrieve(model)).id, model);
  await assert.rejects(openai.chat.completions.create({ model, messages: [] }), (e) => e instanceof OpenAI.BadRequestError && e.param === "messages");
  await assert.rejects(openai.chat.completions.create({ model, messages: [{ role: "user", content: "word ".repeat(6000) }] }), (e) => e.code === "context_length_exceeded");
  await assert.rejects(new OpenAI({ baseURL: `${base}/v1`, apiKey: "wrong", maxRetries: 0 }).models.list(), OpenAI.AuthenticationError);
});

test("openai: abort ends the work", async () => {
  const stream = await openai.chat.completions.create({ model, messages: [{ role: "user", content: "Tell me a long story." }], max_tokens: 3000, temperature: 1, stream: true });
  let n = 0;
  try {
    for await (const _ of stream) if (++n === 3) stream.controller.abort();
  } catch { /* some versions throw */ }
  for (let i = 0; i < 100; i++) {
    const text = await (await fetch(`${base}/metrics`, { headers: { Authorization: `Bearer ${KEY}` } })).text();
    if (/^flash_moe_requests_active 0$/m.test(text)) return;
    await new Promise((done) => setTimeout(done, 100));
  }
  assert.fail("the engine goes on");
});

test("anthropic: messages, whole and streamed, counting, errors", async () => {
  const ask = { model, max_tokens: 20, messages, system: "Be brief.", temperature: 0 };
  const whole = await anthropic.messages.create(ask);
  assert.equal(whole.content[0].type, "text");
  const stream = anthropic.messages.stream(ask);
  let text = "";
  stream.on("text", (piece) => (text += piece));
  const final = await stream.finalMessage();
  assert.equal(text, whole.content[0].text);
  assert.equal(final.stop_reason, whole.stop_reason);
  assert.equal(final.usage.output_tokens, whole.usage.output_tokens);
  const count = await anthropic.messages.countTokens({ model, messages, system: "Be brief." });
  assert.equal(count.input_tokens, whole.usage.input_tokens + whole.usage.cache_read_input_tokens);
  await assert.rejects(anthropic.messages.create({ model, max_tokens: 5, messages: [] }), Anthropic.BadRequestError);
  await assert.rejects(new Anthropic({ baseURL: base, apiKey: "wrong", maxRetries: 0 }).messages.create(ask), Anthropic.AuthenticationError);
});

test("anthropic: tools and abort", async () => {
  const tools = [{ name: "get_weather", description: "Weather", input_schema: parameters }];
  const ask = { model, max_tokens: 200, messages, tools, tool_choice: { type: "tool", name: "get_weather" }, temperature: 0 };
  const final = await anthropic.messages.stream(ask).finalMessage();
  const use = final.content.find((b) => b.type === "tool_use");
  assert.equal(final.stop_reason, "tool_use");
  assert.ok(["C", "F"].includes(use.input.unit));
  await anthropic.messages.create({ model, max_tokens: 8, tools, messages: [...messages, { role: "assistant", content: final.content }, { role: "user", content: [{ type: "tool_result", tool_use_id: use.id, content: "12 C" }] }] });
  const stream = anthropic.messages.stream({ model, max_tokens: 3000, messages });
  stream.on("text", () => stream.abort());
  await assert.rejects(stream.finalMessage(), Anthropic.APIUserAbortError);
});

test("ai: generateText, streamText, tools", async () => {
  const provider = createOpenAICompatible({ name: "flash-moe", baseURL: `${base}/v1`, apiKey: KEY, includeUsage: true });
  const one = await generateText({ model: provider(model), prompt: "Who are you?", temperature: 0, maxOutputTokens: 20, maxRetries: 0 });
  assert.ok(one.text);
  const stream = streamText({ model: provider(model), prompt: "Who are you?", temperature: 0, maxOutputTokens: 20, maxRetries: 0 });
  let text = "";
  for await (const piece of stream.textStream) text += piece;
  assert.equal(text, one.text);
  assert.ok((await stream.usage).outputTokens > 0);
  const called = await generateText({
    model: provider(model), prompt: "Weather in Bern?", temperature: 0, maxOutputTokens: 200, maxRetries: 0, toolChoice: "required",
    tools: { get_weather: tool({ description: "Weather", inputSchema: z.object({ city: z.string().max(12), unit: z.enum(["C", "F"]) }) }) },
  });
  assert.equal(called.toolCalls[0].toolName, "get_weather");
  assert.ok(["C", "F"].includes(called.toolCalls[0].input.unit));
});
