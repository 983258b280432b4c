#!/bin/sh
# The large set of text fixtures, where it lies beside the project: templates of published models, 13 small
# tokenizers, and the real ones when FLASH_MOE_TOKENIZERS names a folder that holds them.
shared=$(dirname "$0")/../../../shared
if [ ! -d "$shared/fixtures/text" ] || ! command -v python3 >/dev/null; then
    echo "no ../shared/fixtures/text beside the project (or no python3): the large text fixtures are not checked"
    exit 77
fi
program=${FLASH_MOE:-build/flash-moe}
python3 "$shared/tools/check_templates.py" "$program" || exit 1
only=
if [ -z "$FLASH_MOE_TOKENIZERS" ]; then
    for folder in "$shared"/fixtures/text/tokenizers/syn_*/; do only="$only --only $(basename "$folder")"; done
fi
# shellcheck disable=SC2086
python3 "$shared/tools/check_tokenizers.py" "$program" --skip-flag=--skip-special $only
