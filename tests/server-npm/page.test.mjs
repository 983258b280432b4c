// The page in a real browser. Screenshots go to SHOTS (a folder) when it is set.
import assert from "node:assert/strict";
import { existsSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { chromium } from "playwright-core";
import { serve } from "./common.mjs";

const browser = "/usr/bin/chromium";
const args = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const skip = existsSync(browser) ? false : "no chromium: apt-get install chromium";
const base = skip ? "" : await serve("--capacity", "26");

async function open(options = {}) {
  const context = await chromium.launchPersistentContext(mkdtempSync(join(tmpdir(), "chromium-")), { executablePath: browser, args, viewport: { width: 1360, height: 860 }, ...options });
  const page = context.pages()[0] ?? await context.newPage();
  const errors = [];
  page.on("pageerror", (e) => errors.push(e.message));
  page.on("console", (m) => { if (m.type() === "error") errors.push(m.text()); });
  await page.goto(base);
  await page.waitForFunction(() => document.getElementById("model").textContent === "flash-moe-tiny");
  return { context, page, errors, shot: (name) => process.env.SHOTS && page.screenshot({ path: join(process.env.SHOTS, `${name}.png`) }) };
}
const idle = (page) => page.waitForFunction(() => document.getElementById("log").getAttribute("aria-busy") === "false", null, { timeout: 60000 });
const ask = async (page, text) => { await page.fill("#prompt", text); await page.keyboard.press("Enter"); };
const answer = (page) => page.locator(".turn.assistant .body").last().innerText();

test("chat: stream, copy, regenerate, edit, reload", { skip }, async () => {
  const { context, page, errors, shot } = await open({ colorScheme: "light" });
  await shot("light-start");
  await ask(page, "Write a C function that reverses a string.");
  await page.waitForFunction(() => document.querySelector(".turn.assistant .body")?.textContent.length > 10);
  await shot("light-streaming");
  await idle(page);
  assert.ok((await answer(page)).length > 20);
  await page.getByRole("button", { name: "Answer again" }).click();
  await idle(page);
  assert.equal(await page.locator(".turn.assistant").count(), 1);
  await page.getByRole("button", { name: "Edit and send again" }).focus();
  await page.keyboard.press("Enter");
  assert.equal(await page.inputValue("#prompt"), "Write a C function that reverses a string.");
  await ask(page, "Who are you?");
  await idle(page);
  const text = await answer(page);
  await page.reload();
  await page.waitForSelector(".turn.assistant");
  assert.equal(await answer(page), text, "the conversation survives a reload");
  await page.getByRole("button", { name: "New conversation", exact: true }).first().click();
  assert.equal(await page.locator(".turn").count(), 0);
  await shot("light-new");
  assert.deepEqual(errors, []);
  await context.close();
});

test("stop, settings and system prompt", { skip }, async () => {
  const { context, page, errors, shot } = await open({ colorScheme: "dark" });
  await page.getByRole("button", { name: "Settings" }).click();
  await page.getByLabel("System prompt").fill("Answer in one word.");
  await page.getByLabel("Temperature").fill("0");
  await page.getByLabel("Longest answer").fill("2000");
  await shot("dark-settings");
  await page.getByRole("button", { name: "Done" }).click();
  const request = page.waitForRequest("**/v1/chat/completions");
  await ask(page, "Tell me a very long story about a fox.");
  const sent = (await request).postDataJSON();
  assert.equal(sent.messages[0].content, "Answer in one word.");
  assert.equal(sent.temperature, 0);
  await page.waitForFunction(() => document.querySelector(".turn.assistant .body")?.textContent.length > 3);
  await page.keyboard.press("Escape");
  await idle(page);
  await shot("dark-stopped");
  assert.deepEqual(errors, []);
  await context.close();
});

test("the map changes while tokens are made", { skip }, async () => {
  const { context, page, shot } = await open({ colorScheme: "dark" });
  const picture = () => page.evaluate(() => document.getElementById("map").toDataURL());
  await page.waitForFunction(() => document.getElementById("map-say").textContent.includes("experts are in memory"));
  const before = await picture();
  await ask(page, "Tell me a story about a fox and a crow.");
  await page.waitForFunction(() => parseFloat(document.getElementById("n-speed").textContent) > 0);
  assert.notEqual(await picture(), before);
  await page.waitForTimeout(900);
  await shot("dark-map");
  await page.getByRole("button", { name: "Enlarge the map" }).click();
  await page.waitForTimeout(300);
  await shot("dark-map-wide");
  await page.locator("#map").focus();
  await page.keyboard.press("ArrowRight");
  await page.waitForFunction(() => document.getElementById("map-say").textContent.startsWith("Layer 1, expert "));
  await page.keyboard.press("Escape");
  await context.close();
});

test("a narrow screen: nothing sticks out, the map opens and closes", { skip }, async () => {
  const { context, page, errors, shot } = await open({ viewport: { width: 360, height: 740 }, colorScheme: "light", deviceScaleFactor: 2, isMobile: true, hasTouch: true });
  await shot("phone-start");
  await ask(page, "What does the command grep do?");
  await idle(page);
  await shot("phone-chat");
  const width = () => page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(await width() <= 360);
  await page.getByRole("button", { name: "Experts" }).tap();
  await page.waitForSelector("#map-panel", { state: "visible" });
  await page.waitForTimeout(700);
  await shot("phone-map");
  assert.ok(await width() <= 360);
  await page.getByRole("button", { name: "Close the map" }).tap();
  await page.getByRole("button", { name: "Open the list of conversations" }).tap();
  await page.waitForTimeout(350);
  await shot("phone-list");
  assert.deepEqual(errors, []);
  await context.close();
});

test("the model's text is never HTML", { skip }, async () => {
  const { context, page, errors, shot } = await open({ colorScheme: "light" });
  const text = "<img src=x onerror=alert(1)> [x](javascript:alert(1)) **bold** `code` https://example.org/a.\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n1. one\n   - inner\n2. two\n\n> quote\n\n```python\nprint('<b>')  # note\n```";
  await page.evaluate((content) => localStorage.setItem("flash-moe.conversations", JSON.stringify([{ id: "1", title: "Markdown", messages: [{ role: "user", content: "<script>1</script>" }, { role: "assistant", content }] }])), text);
  await page.reload();
  await page.waitForSelector(".turn.assistant .block");
  await shot("light-markdown");
  const found = await page.evaluate(() => ({ img: document.querySelectorAll("#log img, #log script").length, links: [...document.querySelectorAll("#log a")].map((a) => a.href), strong: document.querySelector("#log strong").textContent, cells: document.querySelectorAll("#log td").length, inner: document.querySelectorAll("#log ol ul li").length }));
  assert.deepEqual(found, { img: 0, links: ["https://example.org/a"], strong: "bold", cells: 2, inner: 1 });
  assert.deepEqual(errors, []);
  await context.close();
});
