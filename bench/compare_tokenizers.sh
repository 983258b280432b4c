#!/bin/sh
# Our tokenizer and Hugging Face's Rust library (npm @anush008/tokenizers, a native build), one
# thread each, on the same files and texts, in turns: a busy neighbour hits both.
#
# usage: bench/compare_tokenizers.sh WORK_DIR [ROUNDS] TOKENIZER.json...
#   WORK_DIR (outside of git) receives the npm package and the texts: prose (our documents and the
#   licences that every Debian has), code (our sources) and 1 MB of one letter.
# Needs node, npm, python3, and the built library. Prints a table of medians.
set -e
[ $# -ge 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; }
work=$1 rounds=5
shift
case $1 in *[!0-9]*) ;; *) rounds=$1 && shift ;; esac
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$work"
work=$(cd "$work" && pwd)

[ -d "$work/node_modules/@anush008/tokenizers" ] ||
    (cd "$work" && npm init -y >/dev/null && npm install @anush008/tokenizers@0.6.0 >&2)
cat "$here"/docs/*.md "$here/README.md" /usr/share/common-licenses/[A-Z]* >"$work/once"
cat "$work/once" "$work/once" "$work/once" >"$work/prose"
cat "$here"/src/*/*.[ch] >"$work/code"
head -c 1000000 /dev/zero | tr '\0' a >"$work/letter"
set -- "$@" -- "$work/prose" "$work/code" "$work/letter"

# shellcheck disable=SC2046
"${CC:-cc}" -O2 -D_GNU_SOURCE -I"$here/src" -I"$here/include" -o "$work/tokenizer_bench" \
    "$here/tools/peers/tokenizer_bench.c" "$here/build/libflash-moe.a" \
    $(pkg-config --libs jansson libpcre2-8 libutf8proc) -lm -pthread
export TOKENIZERS_PARALLELISM=false RAYON_NUM_THREADS=1 XDG_CACHE_HOME="$work/cache"
exec "${PYTHON:-/usr/bin/python3}" - "$work" "$here/tools/peers/tokenizer_bench.mjs" "$rounds" "$@" <<'END'
import json, os, shutil, statistics, subprocess, sys

work, script, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
split = sys.argv.index("--")
files, texts = sys.argv[4:split], sys.argv[split + 1:]
sizes = [os.path.getsize(t) / 1e6 for t in texts]
shutil.copy(script, work)


def run(command, **settings):
    out = subprocess.run(command, stdout=subprocess.PIPE, cwd=work, check=True, env={**os.environ, **settings}).stdout
    return json.loads(out)


def median(rows, pick):
    return statistics.median(pick(r) for r in rows)


print("| tokenizer | load, ms | from our cache | " + " | ".join(
    "%s, MB/s" % os.path.basename(t) for t in texts) + " | decode, M tokens/s |")
print("| --- " * (4 + len(texts)) + "|")
for file in files:
    file = os.path.abspath(file)
    theirs, ours, cached = [], [], []
    for _ in range(rounds):
        theirs.append(run(["node", "tokenizer_bench.mjs", file, *texts]))
        ours.append(run(["./tokenizer_bench", file, *texts], FLASH_MOE_TOKENIZER_CACHE="off"))
        if not cached:
            run(["./tokenizer_bench", file, texts[0]])  # writes the cache file
        cached.append(run(["./tokenizer_bench", file, texts[0]]))
        if ours[-1]["tokens"] != theirs[-1]["tokens"]:
            sys.exit("%s: the token counts differ: %s, %s" % (file, ours[-1]["tokens"], theirs[-1]["tokens"]))
    speed = lambda rows, i: sizes[i] / median(rows, lambda r: r["encode_ms"][i]) * 1e3
    decode = lambda rows: rows[0]["tokens"][0] / median(rows, lambda r: r["decode_ms"][0]) / 1e3
    load = lambda rows: median(rows, lambda r: r["load_ms"])
    name = os.path.basename(os.path.dirname(file))
    print("| %s | %.0f : %.0f | %.1f | %s | %.1f : %.1f |" % (
        name, load(ours), load(theirs), load(cached),
        " | ".join("%.1f : %.2f" % (speed(ours, i), speed(theirs, i)) for i in range(len(texts))),
        decode(ours), decode(theirs)), flush=True)
print("\nours : theirs, medians of %d turns" % rounds)
END
