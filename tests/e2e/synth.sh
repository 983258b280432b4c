#!/bin/sh
# synth: every family's config becomes a checkpoint that loads and runs; the same seed gives the same bytes; a packed store
# computes what the files compute; formats, layer counts and mistakes.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fixtures=tests/fixtures/families
echo '[3, 1, 4, 1, 5, 9, 2, 6]' >"$work/ids.json"

run() { # name, then arguments of synth
    what=$1
    shift
    "$FLASH_MOE" synth "$@" -o "$work/$what" 2>"$work/log" || { cat "$work/log"; echo "synth $what failed"; exit 1; }
}
logits() { # name, then more arguments of score
    what=$1
    shift
    "$FLASH_MOE" score "$work/$what" --ids "$work/ids.json" --logits "$work/$what.f32" "$@" 2>"$work/log" ||
        { cat "$work/log"; echo "score $what failed"; exit 1; }
}
same() { cmp "$work/$1.f32" "$work/$2.f32" || { echo "$1 and $2 give other logits"; exit 1; }; }

for folder in "$fixtures"/mlx_*; do
    name=$(basename "$folder")
    run "$name" "$folder" --skew 0.6
    logits "$name"
    run "$name-packed" "$folder/config.json" --skew 0.6 --packed
    logits "$name-packed"
    same "$name" "$name-packed"
    echo "ok $name"
done

config=$fixtures/mlx_qwen3_next
run again "$config" --skew 0.6
cmp "$work/again/model.safetensors" "$work/mlx_qwen3_next/model.safetensors"
run other "$config" --skew 0.6 --seed 2
! cmp -s "$work/other/model.safetensors" "$work/again/model.safetensors"
for bits in 2 3 5 6 8; do
    run "bits$bits" "$config" --bits $bits --group-size 32
    logits "bits$bits"
done
for mode in mxfp4 nvfp4 mxfp8; do
    run $mode "$config" --quant-mode $mode
    logits $mode
done
run short "$config" --layers 1
logits short

fails() { # what the message must hold, then arguments
    want=$1
    shift
    if "$FLASH_MOE" synth "$@" >"$work/log" 2>&1; then echo "synth $* succeeded"; exit 1; fi
    grep -q "$want" "$work/log" || { cat "$work/log"; echo "no '$want' in it"; exit 1; }
}
fails "holds a model already" "$config" -o "$work/short"
fails "neither a config.json" nosuchmodel -o "$work/x"
fails "name the folder" "$config"
echo '{"model_type": "qwen3_next"}' >"$work/bad.json"
fails "bad.json: .* is missing" "$work/bad.json" -o "$work/x"
[ ! -e "$work/x" ]
