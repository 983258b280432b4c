#!/bin/sh
# The simulator counts exactly what the engine counted, for each policy (lending: test_simulate).
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
export XDG_CONFIG_HOME="$out"
for policy in lfru lru lcp; do
    for capacity in 5 8 24; do
        "$FLASH_MOE" run -p "Write a long story about a river, a bridge and two old friends." -n 50 \
            --temp 0 --raw --policy $policy --capacity $capacity --prefetch off --json \
            --trace "$out/trace" >"$out/run" || exit 1
        "$FLASH_MOE" simulate "$out/trace" --capacity $capacity --json >"$out/sim" || exit 1
        python3 - "$out" $policy <<'PY' || exit 1
import json, sys
run = json.load(open(sys.argv[1] + "/run"))["stats"]
sim = json.load(open(sys.argv[1] + "/sim"))["results"][0]["policies"]
sim = sim["lcp" if sys.argv[2] == "lcp" else sys.argv[2] + " fixed"]
live = run["expert_hits"], run["expert_misses"]
assert live == (sim["hits"], sim["misses"]), (sys.argv[2], live, sim)
PY
    done
done
exit 0
