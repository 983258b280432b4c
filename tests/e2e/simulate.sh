#!/bin/sh
# The simulator over the real traces of ../shared: Belady is the ceiling, and the default policy is
# not worse than the seed's.
traces=$(dirname "$0")/../../../shared/traces
[ -f "$traces/olmoe-1b-7b.jsonl" ] || { echo "no shared traces here"; exit 77; }
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for t in olmoe-1b-7b.jsonl qwen3-30b-a3b.route.csv; do
    "$FLASH_MOE" simulate "$traces/$t" --json --svg "$out/plot.svg" >"$out/json" || exit 1
    python3 - "$out/json" <<'PY' || exit 1
import json, sys
for r in json.load(open(sys.argv[1]))["results"]:
    p = r["policies"]
    rate = lambda name: p[name]["hit_rate"]
    assert all(rate("belady") >= rate(n) for n in p if "fixed" in n or n == "lcp"), r
    assert rate("lfru") >= rate("lcp") - 0.002, r
PY
    grep -q "</svg>" "$out/plot.svg" || exit 1
    "$FLASH_MOE" simulate "$traces/$t" | grep -q belady || exit 1
done
"$FLASH_MOE" simulate "$traces/olmoe-1b-7b.jsonl" --capacity 2 2>"$out/err" && exit 1
grep -q "below the 8 experts" "$out/err" || exit 1
"$FLASH_MOE" simulate "$traces/olmoe-1b-7b.jsonl" --capacity x 2>/dev/null && exit 1
"$FLASH_MOE" simulate /nonexistent 2>/dev/null && exit 1
exit 0
