// Start the server for a test file and stop it at the end.
import { spawn } from "node:child_process";
import { after } from "node:test";

export async function serve(...options) {
  const program = process.env.FLASH_MOE ?? "build/flash-moe";
  const child = spawn(program, ["serve", "--port", "0", "--quiet", ...options], { stdio: ["ignore", "ignore", "pipe"] });
  const base = await new Promise((resolve, reject) => {
    let text = "";
    child.stderr.on("data", (piece) => {
      text += piece;
      const found = /listening on (\S+)/.exec(text);
      if (found) resolve(found[1]);
    });
    child.on("exit", (code) => reject(new Error(`the server ended (${code}): ${text}`)));
  });
  after(() => new Promise((done) => { child.on("exit", done); child.kill("SIGINT"); }));
  return base;
}
