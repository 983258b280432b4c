#!/usr/bin/env python3
"""Damaged, lying and hostile models: every one gets exit 1 and a message that names the file, tensor or field; none crashes."""
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile

PROGRAM = os.environ["FLASH_MOE"]
FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "families")
CASES = []


def case(want, base="mlx_mixtral"):
    """Register a function that damages a copy of a fixture; `want` is a regular expression for the message."""
    def register(fn):
        CASES.append((fn.__name__.replace("_", " "), want, base, fn))
        return fn
    return register


# --- tools ------------------------------------------------------------------------------------------------------------

def weights(folder):
    return os.path.join(folder, "model.safetensors")


def load(path):
    with open(path, "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + n]), bytearray(data[8 + n:])


def save(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def edit_header(folder, change):
    header, data = load(weights(folder))
    save(weights(folder), change(header) or header, data)


def edit_config(folder, **fields):
    path = os.path.join(folder, "config.json")
    with open(path) as f:
        config = json.load(f)
    for name, value in fields.items():
        if value is None:
            config.pop(name)
        else:
            config[name] = value
    with open(path, "w") as f:
        json.dump(config, f)


def tensor_like(header, *parts):
    return next(n for n in sorted(header) if all(p in n for p in parts))


def poison(folder, value, *parts):
    """The first 16-bit number of a tensor becomes `value`."""
    header, data = load(weights(folder))
    t = header[tensor_like(header, *parts)]
    begin = t["data_offsets"][0]
    size = {"F32": 4}.get(t["dtype"], 2)
    data[begin:begin + size] = value[size]
    save(weights(folder), header, data)


NAN = {2: struct.pack("<H", 0x7fff), 4: struct.pack("<f", float("nan"))}
INF = {2: struct.pack("<H", 0x7c00), 4: struct.pack("<f", float("inf"))}


# --- files ------------------------------------------------------------------------------------------------------------

@case(r"model\.safetensors: 0 bytes")
def no_bytes(folder):
    open(weights(folder), "wb").close()


@case(r"model\.safetensors: 7 bytes")
def seven_bytes(folder):
    with open(weights(folder), "wb") as f:
        f.write(b"1234567")


@case(r"model\.safetensors: header length 9223372036854775808")
def header_of_2_63(folder):
    with open(weights(folder), "r+b") as f:
        f.write(struct.pack("<Q", 1 << 63))


@case(r"model\.safetensors.*past the end of the file")
def cut_off(folder):
    os.truncate(weights(folder), os.path.getsize(weights(folder)) - 1)


@case(r"model\.safetensors: header")
def cut_in_the_header(folder):
    os.truncate(weights(folder), 1000)


@case(r"Git LFS")
def lfs_pointer(folder):
    with open(weights(folder), "w") as f:
        f.write("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")


@case(r"model\.safetensors: is not a regular file")
def a_folder_for_a_file(folder):
    os.remove(weights(folder))
    os.mkdir(weights(folder))


@case(r"model\.safetensors: is not a regular file")
def a_fifo_for_a_file(folder):
    os.remove(weights(folder))
    os.mkfifo(weights(folder))


@case(r"model\.safetensors: cannot open")
def symlink_loop(folder):
    os.remove(weights(folder))
    os.symlink("model.safetensors", weights(folder))


@case(r"no model\*\.safetensors|holds no weights")
def without_weights(folder):
    os.remove(weights(folder))


@case(r"config\.json")
def without_config(folder):
    os.remove(os.path.join(folder, "config.json"))


@case(r"config\.json: line")
def broken_config(folder):
    os.truncate(os.path.join(folder, "config.json"), 40)


@case(r"shard model-00002-of-00003\.safetensors is missing", base="mlx_qwen3_next")
def missing_shard(folder):
    os.remove(os.path.join(folder, "model-00002-of-00003.safetensors"))


@case(r"shard model-00009-of-00009\.safetensors is missing", base="mlx_qwen3_next")
def shard_only_in_the_index(folder):
    path = os.path.join(folder, "model.safetensors.index.json")
    with open(path) as f:
        index = json.load(f)
    index["weight_map"]["x"] = "model-00009-of-00009.safetensors"
    with open(path, "w") as f:
        json.dump(index, f)


@case(r"tensor .* is also in", base="mlx_qwen3_next")
def same_tensor_in_two_shards(folder):
    shutil.copy(os.path.join(folder, "model-00001-of-00003.safetensors"), os.path.join(folder, "model.safetensors"))


# --- headers ----------------------------------------------------------------------------------------------------------

@case(r"embed_tokens.*does not take the")
def shape_larger_than_data(folder):
    edit_header(folder, lambda h: h["model.embed_tokens.weight"].update(shape=[1 << 40, 1 << 40]))


@case(r"embed_tokens.*negative")
def negative_shape(folder):
    edit_header(folder, lambda h: h["model.embed_tokens.weight"].update(shape=[-1, 4]))


@case(r"embed_tokens.*dtype")
def unknown_dtype(folder):
    edit_header(folder, lambda h: h["model.embed_tokens.weight"].update(dtype="Q9_K"))


@case(r"overlap")
def overlapping_tensors(folder):
    def change(h):
        t = h["model.norm.weight"]
        n = t["data_offsets"][1] - t["data_offsets"][0]
        t["data_offsets"] = [2, 2 + n]
    edit_header(folder, change)


@case(r"stands in it twice")
def tensor_twice(folder):
    header, data = load(weights(folder))
    text = json.dumps(header)
    one = json.dumps({"model.norm.weight": header["model.norm.weight"]})
    save(weights(folder), (text[:-1] + ", " + one[1:]).encode(), data)


@case(r"nested too deeply")
def deep_nesting(folder):
    _, data = load(weights(folder))
    save(weights(folder), b'{"x":{"y":' + b"[" * 100000 + b"]" * 100000 + b"}}", data)


@case(r"model\.norm\.weight is missing")
def missing_tensor(folder):
    edit_header(folder, lambda h: {k: v for k, v in h.items() if k != "model.norm.weight"})


@case(r"q_proj\.scales.*shape|q_proj\.weight.*shape|q_proj.*group")
def swapped_shape(folder):
    def change(h):
        t = h[tensor_like(h, "layers.0", "q_proj.weight")]
        t["shape"] = t["shape"][::-1]
    edit_header(folder, change)


@case(r"switch_mlp\.up_proj")
def one_expert_less(folder):
    header, data = load(weights(folder))
    name = tensor_like(header, "layers.0", "switch_mlp.up_proj.weight")
    t = header[name]
    whole = t["data_offsets"][1] - t["data_offsets"][0]
    t["data_offsets"][1] -= whole // t["shape"][0]
    t["shape"][0] -= 1
    save(weights(folder), header, data)


@case(r"AWQ or GPTQ")
def quantised_by_awq(folder):
    def change(h):
        name = tensor_like(h, "layers.0", "q_proj.weight")
        h[name.replace(".weight", ".qweight")] = h.pop(name)
    edit_header(folder, change)


# --- numbers ----------------------------------------------------------------------------------------------------------

@case(r"scale.*not a finite|NaN|not finite", base="mlx_olmoe_single")
def nan_scale(folder):
    poison(folder, NAN, "layers.0", "q_proj.scales")


@case(r"norm\.weight: value 0 is NaN", base="mlx_olmoe_single")
def nan_norm(folder):
    poison(folder, NAN, "model.norm.weight")


@case(r"not a number|NaN|not finite|scale", base="mlx_olmoe_single")
def nan_in_every_expert(folder):
    header, data = load(weights(folder))
    for name, t in header.items():
        if "switch_mlp" in name and name.endswith(".scales"):
            begin, end = t["data_offsets"]
            data[begin:end] = NAN[2] * ((end - begin) // 2)
    save(weights(folder), header, data)


# --- configs ----------------------------------------------------------------------------------------------------------

def config_case(want, base="mlx_mixtral", **fields):
    name = "config " + ", ".join(f"{k}={v}" for k, v in fields.items())
    CASES.append((name, want, base, lambda folder: edit_config(folder, **fields)))


for value in (0, -1, 10**6, 10**30, 2.5, "4", [], {}):
    config_case(r"num_hidden_layers|too big integer", num_hidden_layers=value)
config_case(r"num_hidden_layers is missing", base="mlx_qwen3_next", num_hidden_layers=None)
config_case(r"hidden_size", hidden_size=-64)
config_case(r"hidden_size", hidden_size=1 << 40)
config_case(r"num_attention_heads", num_attention_heads=0)
config_case(r"num_key_value_heads", num_key_value_heads=7)
config_case(r"num_experts_per_tok", num_experts_per_tok=100)
config_case(r"num_experts_per_tok", num_experts_per_tok=0)
config_case(r"num_local_experts|experts", num_local_experts=10**9)
config_case(r"switch_mlp|gate", num_local_experts=64)
config_case(r"vocab_size|embed_tokens", vocab_size=10**6)
config_case(r"rope_theta", rope_theta=0)
config_case(r"rope_theta", rope_theta=-5)
config_case(r"rms_norm_eps", rms_norm_eps=-1)
config_case(r"group_size", quantization={"group_size": 0, "bits": 4})
config_case(r"bits", quantization={"group_size": 64, "bits": 7})
config_case(r"rope_scaling.*spiral", base="mlx_olmoe", rope_scaling={"type": "spiral", "factor": 2})
config_case(r"factor", base="mlx_olmoe", rope_scaling={"type": "yarn", "factor": 0})
config_case(r"gpt7.*qwen3_next.*|gpt7", model_type="gpt7")
config_case(r"model_type", model_type=None)
config_case(r"linear_num_value_heads", base="mlx_qwen3_next", linear_num_value_heads=0)
config_case(r"linear_conv_kernel_dim", base="mlx_qwen3_next", linear_conv_kernel_dim=10**6)
config_case(r"full_attention_interval", base="mlx_qwen3_next", full_attention_interval=0)
config_case(r"kv_lora_rank", base="mlx_deepseek_v3", kv_lora_rank=-1)
config_case(r"topk_group|n_group", base="mlx_deepseek_v3", n_group=7)
config_case(r"topk_method", base="mlx_deepseek_v3", topk_method="lottery")
config_case(r"mamba_d_state", base="mlx_jamba", mamba_d_state=0)
config_case(r"long_factor", base="mlx_phimoe", rope_scaling={"type": "longrope", "long_factor": [1]})


# --- running ----------------------------------------------------------------------------------------------------------

def run(arguments):
    """-> (exit status, stderr)"""
    p = subprocess.run([PROGRAM, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    return p.returncode, p.stderr.decode("utf-8", "replace")


def judge(status, err, want):
    """-> problem or ''"""
    if status < 0 or re.search(r"AddressSanitizer|runtime error|LeakSanitizer", err):
        return f"crashed ({status}): {err[-300:]}"
    if status != 1:
        return f"exit {status}, not 1: {err[-300:]}"
    return "" if re.search(want, err) else f"the message does not match /{want}/: {err[-300:]}"


def check(name, want, base, damage, work):
    folder = os.path.join(work, "model")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(os.path.join(FIXTURES, base.replace("_single", "")), folder)
    if base.endswith("_single"):
        join_shards(folder)
    damage(folder)
    ids = os.path.join(work, "ids.json")
    with open(ids, "w") as f:
        f.write("[1, 2, 3]")
    return judge(*run(["score", "-m", folder, "--ids", ids, "--logits", os.path.join(work, "out")]), want)


def join_shards(folder):
    names = sorted(n for n in os.listdir(folder) if n.endswith(".safetensors"))
    whole, blob = {}, bytearray()
    for n in names:
        header, data = load(os.path.join(folder, n))
        header.pop("__metadata__", None)
        for name, t in header.items():
            begin, end = t["data_offsets"]
            whole[name] = dict(t, data_offsets=[len(blob), len(blob) + end - begin])
            blob += data[begin:end]
        os.remove(os.path.join(folder, n))
    index = os.path.join(folder, "model.safetensors.index.json")
    if os.path.exists(index):
        os.remove(index)
    save(weights(folder), whole, blob)


def flip_bytes(work):
    """Random damage to headers and configs may be refused or not be noticed, but must not crash. -> problem or ''"""
    rng = random.Random(5)
    ids = os.path.join(work, "ids.json")
    for i in range(60):
        folder = os.path.join(work, "model")
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(os.path.join(FIXTURES, "mlx_jamba" if i % 2 else "mlx_deepseek_v2"), folder)
        path = weights(folder) if i % 3 else os.path.join(folder, "config.json")
        with open(path, "r+b") as f:
            size = min(os.path.getsize(path), 8000)
            for _ in range(rng.choice((1, 2, 8))):
                f.seek(rng.randrange(size))
                f.write(bytes([rng.choice((rng.randrange(256), ord("9"), ord("-"), ord("0")))]))
        status, err = run(["score", "-m", folder, "--ids", ids, "--logits", os.path.join(work, "out")])
        if status not in (0, 1) or "Sanitizer" in err or "runtime error" in err:
            return f"round {i}: exit {status}: {err[-500:]}"
    return ""


def main():
    bad = 0
    with tempfile.TemporaryDirectory() as work:
        for name, want, base, damage in CASES:
            problem = check(name, want, base, damage, work)
            bad += bool(problem)
            print(f"{'FAIL' if problem else 'ok  '} {name} {problem}".rstrip(), flush=True)
        problem = flip_bytes(work)
        bad += bool(problem)
        print(f"{'FAIL' if problem else 'ok  '} random damage {problem}".rstrip())
        status, err = run(["score", "nosuchmodel", "--ids", os.path.join(work, "ids.json")])
        problem = judge(status, err, "nosuchmodel")
        bad += bool(problem)
        print(f"{'FAIL' if problem else 'ok  '} no such model {problem}".rstrip())
    print(f"{bad} of {len(CASES) + 2} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
