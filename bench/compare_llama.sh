#!/bin/sh
# Decode and prompt speed of flash-moe and of mainline llama.cpp (npm package node-llama-cpp, its
# prebuilt CPU backend), on the same weights, in turns: a busy neighbour hits both.
#
# usage: bench/compare_llama.sh [WORK_DIR] [LAYERS] [ROUNDS] [-- FLASH_MOE_FLAGS...]
#   WORK_DIR (default ./peers-work, outside of git) receives the npm package and the synthetic
#   models: Qwen3-30B-A3B geometry cut to LAYERS (default 12: 5 GB as GGUF Q4_1 and twice as much
#   as MLX affine 4-bit, the same values, original and packed). Give --isa avx2 and the like behind --.
# Needs node, npm, python3 with numpy. Prints a line a run, then medians and ratios.
set -e
work=${1:-peers-work} layers=${2:-12} rounds=${3:-5}
for _ in 1 2 3; do case ${1:---} in --) break ;; *) shift ;; esac; done
[ "${1:-}" = -- ] && shift
here=$(cd "$(dirname "$0")/.." && pwd)
program=${FLASH_MOE:-$here/build/flash-moe}
threads=${THREADS:-2} prompt=${PROMPT:-512} tokens=${TOKENS:-32}
python=${PYTHON:-/usr/bin/python3}
mkdir -p "$work"
work=$(cd "$work" && pwd)
gguf=$work/l$layers.gguf mlx=$work/mlx$layers

[ -d "$work/node_modules/node-llama-cpp" ] ||
    (cd "$work" && npm init -y >/dev/null && npm install node-llama-cpp@3 >&2)
[ -f "$gguf" ] || "$python" "$here/tools/peers/gen_gguf.py" --out "$gguf" --layers "$layers" >&2
[ -f "$mlx/config.json" ] || "$python" "$here/tools/peers/gen_gguf.py" --mlx "$mlx" --layers "$layers" >&2
[ -d "$mlx/flash-moe.pack" ] || "$program" pack "$mlx" >&2
cp "$here/tools/peers/llama_bench.mjs" "$work/"

results=$work/results.jsonl
: >"$results"
round=0
while [ $round -lt "$rounds" ]; do
    round=$((round + 1))
    theirs=$(cd "$work" && node llama_bench.mjs "$gguf" "$prompt" "$tokens" "$threads")
    ours=$("$program" bench "$mlx" --prompt-tokens "$prompt" -n "$tokens" --warm 8 --rounds 1 \
        -t "$threads" --json "$@" 2>/dev/null)
    echo "{\"llama\":$theirs,\"flash_moe\":$ours}" | tee -a "$results" | "$python" -c '
import json, sys
r = json.load(sys.stdin); a = r["flash_moe"]
print("llama.cpp %.1f prompt %.2f decode; flash-moe %.1f prompt %.2f decode (tokens/s)" % (
    r["llama"]["pp"], r["llama"]["tg"], a["prefill_tok_s"], a["decode_tok_s"]["median"]))'
done
"$python" - "$results" <<'END'
import json, statistics, sys
rows = [json.loads(line) for line in open(sys.argv[1])]
arm = lambda r: r["flash_moe"]
for name, ours, theirs in (("prompt", lambda r: arm(r)["prefill_tok_s"], lambda r: r["llama"]["pp"]),
                           ("decode", lambda r: arm(r)["decode_tok_s"]["median"], lambda r: r["llama"]["tg"])):
    ratio = statistics.median(ours(r) / theirs(r) for r in rows)
    print("%s: flash-moe %.2f, llama.cpp %.2f tokens/s (medians of %d); ratio of turns %.2f" % (
        name, statistics.median(map(ours, rows)), statistics.median(map(theirs, rows)), len(rows), ratio))
END
