#!/bin/sh
# The larger set of checkpoints whose logits come from independent software, where it lies beside the project.
set=../shared/fixtures/families
check=../shared/tools/check_families.py
if [ ! -d "$set" ] || [ ! -f "$check" ]; then
    echo "no $set here"
    exit 77
fi
python3 "$check" "$FLASH_MOE" --tol 1e-4 --set "$set" || exit 1
# where mlx-lm and Hugging Face weigh experts differently: the default is Hugging Face's, the switch gives mlx-lm's
two="--only hunyuan --only hunyuan_cla --only jamba --only phimoe"
python3 "$check" "$FLASH_MOE" --tol 1e-4 --set "$set" $two --routing hf || exit 1
python3 "$check" "$FLASH_MOE" --tol 1e-4 --set "$set" $two --routing mlx --args="--router-compat mlx"
