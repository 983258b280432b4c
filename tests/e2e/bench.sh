#!/bin/sh
# bench: one arm, several arms, replayed routing, a plot; figures add up.
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export XDG_CONFIG_HOME="$out"
"$FLASH_MOE" bench -n 6 --warm 2 --rounds 1 --prompt-tokens 5 --capacity 8 --json >"$out/one" 2>/dev/null ||
    exit 1
"$FLASH_MOE" bench -n 6 --cold --rounds 1 --prompt-tokens 5 --capacity 8 --json >"$out/cold" 2>/dev/null ||
    exit 1
"$FLASH_MOE" run -p Hello --raw -n 12 --trace "$out/trace" >/dev/null 2>&1 || exit 1
"$FLASH_MOE" bench -n 6 --warm 2 --rounds 2 --prompt-tokens 5 --trace "$out/trace" --capacity 8 \
    --compare "--capacity 16" --compare "--buffered --policy lru" --svg "$out/plot.svg" --json \
    >"$out/three" 2>/dev/null || exit 1
grep -q '</svg>' "$out/plot.svg" || exit 1
python3 - "$out" <<'PY' || exit 1
import json, sys
one = json.load(open(sys.argv[1] + "/one"))
s = one["stats"]
assert s["tokens"] in (6, 7) and s["decode_tok_s"] > 0 and s["bound_fraction"] > 0, s
assert one["rates"]["disk_bytes_s"] > 0 and one["rates"]["memory_bytes_s"] > 0
assert one["rates"]["expert_bytes_s"] == 0, "51 MB of experts are too few to tell"
assert abs(s["bound_fraction"] * s["bound_tok_s"] / s["decode_tok_s"] - 1) < 1e-3, s
for arm in json.load(open(sys.argv[1] + "/three"))["arms"]:
    assert arm["decode_tok_s"]["median"] == arm["decode_tok_s"]["min"], "of two turns, the slower"
cold = json.load(open(sys.argv[1] + "/cold"))
assert cold["warm_tokens"] == 0, cold
arms = json.load(open(sys.argv[1] + "/three"))["arms"]
assert [a["flags"] for a in arms] == ["", "--capacity 16", "--buffered --policy lru"]
assert arms[1]["stats"]["expert_misses"] <= arms[0]["stats"]["expert_misses"]
assert not arms[2]["stats"]["direct_io"] and arms[2]["stats"]["policy"] == "lru"
for a in arms:
    assert a["decode_tok_s"]["min"] <= a["decode_tok_s"]["median"] <= a["decode_tok_s"]["max"]
PY
"$FLASH_MOE" bench --compare "--nonsense" 2>/dev/null && exit 1
exit 0
