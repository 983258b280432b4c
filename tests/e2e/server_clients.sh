#!/bin/sh
# The openai, anthropic and ai packages and the page in a browser, against the server. Needs
# tests/server-npm/node_modules (make check-clients installs it); skips without.
cd "$(dirname "$0")/../server-npm" || exit 1
command -v node >/dev/null || { echo "no node"; exit 77; }
[ -d node_modules/openai ] || { echo "no tests/server-npm/node_modules: run make check-clients"; exit 77; }
exec timeout 300 node --test --test-concurrency=1 clients.test.mjs page.test.mjs
