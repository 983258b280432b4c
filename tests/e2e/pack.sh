#!/bin/sh
# A packed store gives the same answer in one read an expert, is found by itself, survives kill -9,
# and is refused when its source changes or a byte rots.
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
fail() { echo "FAIL: $*"; exit 1; }
cp -r "$(dirname "$0")/../../models/flash-moe-tiny" "$out/model" || exit 1
export XDG_CACHE_HOME="$out/cache" XDG_CONFIG_HOME="$out/config"
# Without hints, whose arrival in time is a matter of luck: hits and misses are compared.
run() {
    "$FLASH_MOE" run "$out/model" -p "The capital of France" -n 30 --temp 0 --capacity 8 --prefetch off --json "$@"
}
field() { python3 -c "
import json, sys
d = json.load(open(sys.argv[1])); d.update(d['stats'])
print(*(d[k] for k in sys.argv[2:]))" "$@"; }

run >"$out/plain" || fail plain run
"$FLASH_MOE" pack "$out/model" 2>"$out/note" || fail pack: "$(cat "$out/note")"
[ -f "$out/model/flash-moe.pack/manifest.json" ] || fail no manifest
run >"$out/packed" || fail packed run
[ "$(field "$out/plain" text tokens expert_hits expert_misses)" = \
  "$(field "$out/packed" text tokens expert_hits expert_misses)" ] || fail another answer
[ "$(field "$out/packed" bytes_read)" -lt "$(field "$out/plain" bytes_read)" ] || fail not fewer bytes
run --pack-dir '' >"$out/again" || fail original run
[ "$(field "$out/plain" bytes_read)" = "$(field "$out/again" bytes_read)" ] || fail pack-dir empty

# A kill in the middle leaves a folder that is no store, and the next run goes on.
rm -r "$out/model/flash-moe.pack"
"$FLASH_MOE" pack "$out/model" 2>/dev/null &
pid=$!
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    [ -f "$out/model/flash-moe.pack/layer-001.pack" ] && break
    sleep 0.02
done
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
"$FLASH_MOE" pack "$out/model" 2>/dev/null || fail resume
"$FLASH_MOE" pack "$out/model" --verify 2>/dev/null || fail verify
ls -a "$out/model/flash-moe.pack" | grep -q tmp && fail temporary file left

# One flipped byte: verify and run both name the file.
printf X | dd of="$out/model/flash-moe.pack/layer-003.pack" bs=1 seek=9000 conv=notrunc 2>/dev/null
"$FLASH_MOE" pack "$out/model" --verify 2>"$out/err" && fail verified damage
grep -q "layer-003.pack.*checksum" "$out/err" || fail "$(cat "$out/err")"
run >"$out/damaged" 2>"$out/err" && fail ran with a damaged store
grep -q "layer-003.pack" "$out/err" || fail "$(cat "$out/err")"

# Another source: an implicit store is left aside with a note, a named one is an error.
touch -d 2001-01-01 "$out"/model/*.safetensors
run >"$out/stale" 2>"$out/err" || fail stale run: "$(cat "$out/err")"
grep -q "reading the original files" "$out/err" || fail no note of the stale store
[ "$(field "$out/plain" text)" = "$(field "$out/stale" text)" ] || fail another answer
run --pack-dir "$out/model/flash-moe.pack" >/dev/null 2>"$out/err" && fail used a stale store
grep -q "changed" "$out/err" || fail "$(cat "$out/err")"

# Eight-bit codes, too, lie otherwise in a store than in the original files, and give the same bits.
"$FLASH_MOE" synth "$out/model/config.json" -o "$out/eight" --bits 8 --group-size 64 --layers 3 2>/dev/null || fail synth
logits() { # name, options
    name=$1; shift
    echo 5 99 1234 77 4242 8000 31 7 19 2 | "$FLASH_MOE" score "$out/eight" --ids - --logits "$out/$name" --capacity 9 "$@" >/dev/null ||
        fail score "$@"
}
for precision in f32 fast; do
    logits rows --pack-dir '' --precision $precision
    [ -d "$out/eight/flash-moe.pack" ] || "$FLASH_MOE" pack "$out/eight" >/dev/null 2>&1 || fail pack eight
    grep -q '"strips": true' "$out/eight/flash-moe.pack/manifest.json" || fail no strips of eight bits
    logits strips --precision $precision
    cmp "$out/rows" "$out/strips" || fail eight bits: other logits with $precision
done
# A manifest that was changed to say rows is left aside: the layer files are bound to what it said.
sed -i 's/"strips": true/"strips": false/' "$out/eight/flash-moe.pack/manifest.json"
logits said --precision fast 2>"$out/err"
grep -q "pack again" "$out/err" || fail "no note of other strips: $(cat "$out/err")"
cmp "$out/rows" "$out/said" || fail logits of a store that says rows

# A model folder that cannot be written: the store goes to the cache folder and is found there.
"$FLASH_MOE" pack /nonexistent 2>/dev/null && fail packed nothing
exit 0
