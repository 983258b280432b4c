#!/bin/sh
# bench/server_load.py: unrelated and alike requests, alone and four at once. It compares every answer with the same alone.
for kind in "" --alike; do
    out=$(AT_ONCE="1 4" python3 bench/server_load.py --tokens 8 --rounds 1 $kind 2>&1) || { echo "$out"; exit 1; }
    [ "$(echo "$out" | grep -c 'at once: .* tokens/s .* hits, .* kB read')" = 2 ] || { echo "$out"; exit 1; }
done
