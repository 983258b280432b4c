#!/bin/sh
# Installs into an empty folder, then compiles and runs the examples against that alone: with the
# shared library, with the static one, and as C++.
cd "$(dirname "$0")/../.." || exit 2
set -e
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
${MAKE:-make} --no-print-directory BUILD="$BUILD" PREFIX="$tmp/usr" install >"$tmp/log" 2>&1 ||
    { cat "$tmp/log"; exit 1; }
export PKG_CONFIG_PATH="$tmp/usr/lib/pkgconfig"
model="$tmp/usr/share/flash-moe/models/flash-moe-tiny"
sanitize=${SANITIZE:+-fsanitize=$SANITIZE}
flags="-std=c11 -Wall -Wextra -Werror -pthread $sanitize $(pkg-config --cflags flash-moe)"
for example in one_call chat threads; do
    cc $flags examples/$example.c -o "$tmp/$example" $(pkg-config --libs flash-moe) \
        -Wl,-rpath,"$tmp/usr/lib"
    cc $flags examples/$example.c -o "$tmp/$example-static" "$tmp/usr/lib/libflash-moe.a" \
        $(pkg-config --static --libs flash-moe | sed 's/-lflash-moe//')
done
for kind in "" -static; do
    "$tmp/one_call$kind" "$model" "What does grep do?" | grep grep
    "$tmp/chat$kind" "$model" 600 | grep "prompt tokens were there already"
    "$tmp/threads$kind" "$model" | grep -c "^> " | grep -x 3
done
ldd "$tmp/one_call" | grep "$tmp/usr/lib/libflash-moe.so.0"
if "$tmp/one_call" /nowhere hello 2>"$tmp/err"; then exit 1; fi
grep /nowhere "$tmp/err"

# Only what the headers declare can be seen.
nm -D --defined-only "$tmp/usr/lib/libflash-moe.so" | awk '{print $3}' >"$tmp/names"
for name in $(sed 's/@.*//' "$tmp/names" | grep -v '^FLASH_MOE_'); do
    grep -q "\b$name(" include/*.h || { echo "$name is visible"; exit 1; }
done

# The installed program finds the bundled model from anywhere; its pages and scripts are there.
cd /
"$tmp/usr/bin/flash-moe" run --temp 0 -n 8 -p "Who are you?" | grep .
test -s "$tmp/usr/share/man/man1/flash-moe-run.1"
bash -n "$tmp/usr/share/bash-completion/completions/flash-moe"
cd - >/dev/null
${MAKE:-make} --no-print-directory BUILD="$BUILD" PREFIX="$tmp/usr" uninstall >/dev/null
test -z "$(find "$tmp/usr" -type f)"
