#!/bin/sh
# bench/slow_disk.c: the same bytes and the same answer from behind it, and never faster than its rate.
skip() { echo "$1" && exit 77; }
[ "$(id -u)" = 0 ] || skip "mounting needs root"
[ -c /dev/fuse ] || skip "no /dev/fuse here"
pkg-config --exists fuse3 2>/dev/null || skip "no libfuse3-dev here"
model=models/flash-moe-tiny
work=$(mktemp -d)
trap 'umount "$work/slow" 2>/dev/null; rm -rf "$work"' EXIT
MAKEFLAGS= make -s BUILD="$work/build" SANITIZE= slow-disk || exit 1
"$work/build/slow_disk" nowhere "$work" 1 2>/dev/null && { echo "a missing folder was taken"; exit 1; }

mkdir "$work/slow"
"$work/build/slow_disk" $model "$work/slow" 0.1 2>"$work/log" &
for _ in 1 2 3 4 5 6 7 8 9 10; do [ -f "$work/slow/config.json" ] && break; sleep 0.2; done
[ -f "$work/slow/config.json" ] || { cat "$work/log"; skip "mounting is refused here"; }

python3 - "$work/slow" $model <<'PY' || exit 1
import os, sys, time
slow, fast = sys.argv[1:]
name = max(os.listdir(fast), key=lambda n: os.path.getsize(os.path.join(fast, n)))
start = time.monotonic()
got = open(os.path.join(slow, name), "rb").read()
took = time.monotonic() - start
assert got == open(os.path.join(fast, name), "rb").read(), "other bytes"
assert took >= len(got) / 0.1e9 * 0.99, f"{len(got)} bytes in {took:.3f} s: faster than 0.1 GB/s"
PY
answer() { "$FLASH_MOE" run -m "$1" -p "What does grep do?" --temp 0 -n 12 --capacity 16 2>"$work/err" || { cat "$work/err" >&2; return 1; }; }
answer $model >"$work/fast" && answer "$work/slow" >"$work/behind" && cmp "$work/fast" "$work/behind" || exit 1
umount "$work/slow" && wait
