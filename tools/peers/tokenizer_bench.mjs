// Speed of Hugging Face's Rust tokenizers (npm @anush008/tokenizers, a native build) on one thread, for bench/compare_tokenizers.sh.
//   node tokenizer_bench.mjs TOKENIZER.json TEXT...
// Prints one JSON line {"load_ms", "encode_ms":[..], "decode_ms":[..], "tokens":[..]}, an entry a text. Decoding is one call: it has no stream here.
import fs from "node:fs";
import { createRequire } from "node:module";
const { Tokenizer } = createRequire(process.cwd() + "/")("@anush008/tokenizers");

const [file, ...texts] = process.argv.slice(2);
const out = { load_ms: 0, encode_ms: [], decode_ms: [], tokens: [] };
let start = performance.now();
const tokenizer = Tokenizer.fromFile(file);
out.load_ms = performance.now() - start;
for (const path of texts) {
  const text = fs.readFileSync(path, "utf8");
  start = performance.now();
  const encoding = await tokenizer.encode(text, null, { addSpecialTokens: false });
  out.encode_ms.push(performance.now() - start);
  const ids = Array.from(encoding.getIds());
  start = performance.now();
  await tokenizer.decode(ids, false);
  out.decode_ms.push(performance.now() - start);
  out.tokens.push(ids.length);
}
console.log(JSON.stringify(out));
