#!/usr/bin/env python3
"""`pack --bits` makes a new model: its codes are those that MLX's rule gives (recomputed here), it
answers, more bits stay nearer to the source, an interrupted run goes on, bad orders are refused."""
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time

PROGRAM = os.environ["FLASH_MOE"]
MODEL = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../models/flash-moe-tiny")


def run(*args, ok=True, input=None):
    r = subprocess.run([PROGRAM, *args], capture_output=True, text=True, input=input)
    if ok and r.returncode:
        sys.exit(f"{args}: exit {r.returncode}: {r.stderr}")
    if not ok and r.returncode == 0:
        sys.exit(f"{args}: succeeded")
    return r


def f32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def bf16(x):  # to bfloat16 and back, ties to even
    bits = struct.unpack("I", struct.pack("f", x))[0]
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def from_bf16(v):
    return struct.unpack("f", struct.pack("I", v << 16))[0]


def tensor(name):
    index = json.load(open(os.path.join(MODEL, "model.safetensors.index.json")))["weight_map"]
    with open(os.path.join(MODEL, index[name]), "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        t = json.loads(f.read(n))[name]
        f.seek(8 + n + t["data_offsets"][0])
        return t["shape"], f.read(t["data_offsets"][1] - t["data_offsets"][0])


def source_row(layer, expert, row, bits=4, group=64):
    """Row of the gate projection as float32."""
    base = f"model.layers.{layer}.mlp.switch_mlp.gate_proj"
    shape, codes = tensor(base + ".weight")
    _, scales = tensor(base + ".scales")
    _, biases = tensor(base + ".biases")
    cols = shape[2] * 32 // bits
    at = (expert * shape[1] + row) * cols
    value = []
    for c in range(cols):
        byte = codes[(at + c) // 2]
        code = byte >> 4 if c % 2 else byte & 15
        g = (at + c) // group
        s = from_bf16(struct.unpack_from("<H", scales, 2 * g)[0])
        b = from_bf16(struct.unpack_from("<H", biases, 2 * g)[0])
        value.append(f32(s * code + b))
    return value


def quantise(x, bits):
    """The rule of mlx.core.quantize, one group in float32: codes, scale, bias (bfloat16)."""
    low, high, most = min(x), max(x), (1 << bits) - 1
    scale = max(f32(f32(high - low) / most), f32(1e-7))
    edge = low if abs(low) > abs(high) else high
    if edge == high and not abs(low) > abs(high):
        scale = -scale
    q0 = round(f32(edge / scale))  # Python rounds halves to even
    bias = 0.0
    if q0:
        scale, bias = f32(edge / q0), edge
    return [min(max(round(f32(f32(v - bias) / scale)), 0), most) for v in x], bf16(scale), bf16(bias)


def packed_row(data, record, gate, row):
    """The codes of a row as one number, and its scales and biases, from rows or from strips (docs/FORMAT.md)."""
    part = {name: data[record + gate[name]["offset"]:][:gate["rows"] * gate["scale_row_bytes" if name != "codes" else "row_bytes"]]
            for name in ("codes", "scales", "biases")}
    size, scales = gate["row_bytes"], gate["scale_row_bytes"]
    if not gate["strips"]:
        return (int.from_bytes(part["codes"][row * size:(row + 1) * size], "little"),
                *(struct.unpack(f"<{scales // 2}H", part[name][row * scales:(row + 1) * scales]) for name in ("scales", "biases")))
    strip, at = row // 16 * 16, row % 16
    lanes = [part["codes"][strip * size + 64 * i + 4 * at:][:4] for i in range(size // 4)]
    if gate["bits"] == 8:  # even columns, then odd ones
        lanes = [bytes(b for pair in zip(*lanes[i:i + 2]) for b in pair) for i in range(0, len(lanes), 2)]
    both = [struct.unpack(f"<{8 * scales}H", part[name][strip * scales:(strip + 16) * scales])[at::16] for name in ("scales", "biases")]
    return int.from_bytes(b"".join(lanes), "little"), *both


def check_codes(folder, bits, group):
    pack = os.path.join(folder, "flash-moe.pack")
    layer = json.load(open(os.path.join(pack, "manifest.json")))["layers"][1]
    gate = layer["gate"]
    assert (gate["format"], gate["bits"], gate["group"]) == ("affine", bits, group), gate
    assert gate["strips"] == (bits in (4, 8)), gate
    data = open(os.path.join(pack, layer["file"]), "rb").read()
    start = struct.unpack_from("<Q", data, 32)[0]
    for expert, row in ((0, 0), (5, 17), (63, gate["rows"] - 1)):
        record = start + expert * layer["record_bytes"]
        stream, scales, biases = packed_row(data, record, gate, row)
        x = source_row(1, expert, row)
        for g in range(len(x) // group):
            want, scale, bias = quantise(x[g * group:(g + 1) * group], bits)
            assert (scales[g], biases[g]) == (scale, bias), (bits, expert, row, g)
            got = [stream >> (g * group + i) * bits & (1 << bits) - 1 for i in range(group)]
            assert got == want, (bits, expert, row, g, got, want)


def score(folder):
    text = "Once upon a time there was a fox who lived by the river. " * 8
    ids = run("tokenize", "--text", text).stdout
    lines = run("score", folder, "--ids", "-", "--json", input=ids).stdout.splitlines()
    return [json.loads(line)["logprob"] or 0 for line in lines]


def interrupted(folder):
    """A run that was killed when it had finished some layers, and the next one."""
    order = [PROGRAM, "pack", MODEL, "--bits", "2", "-o", folder]
    p = subprocess.Popen(order, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while p.poll() is None and not os.path.exists(os.path.join(folder, "flash-moe.pack/layer-001.pack")):
        time.sleep(0.005)
    p.kill()
    if p.wait() != 0:
        assert not os.path.exists(os.path.join(folder, "config.json"))
        r = run("pack", MODEL, "--bits", "3", "-o", folder, ok=False)
        assert "not empty" in r.stderr, r.stderr
        run(*order[1:])
    assert not os.path.exists(os.path.join(folder, ".unfinished"))
    check_codes(folder, 2, 64)


def small_disk(folder):
    """Too little room is said with both numbers, before experts are written."""
    os.mkdir(folder)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", folder], capture_output=True).returncode:
        print("a small disk: not tried, mounting is not allowed here")
        return
    try:
        r = run("pack", MODEL, "--bits", "4", "-o", os.path.join(folder, "q4"), ok=False)
        assert "are needed" in r.stderr and "are free" in r.stderr, r.stderr
        assert not os.path.exists(os.path.join(folder, "q4/flash-moe.pack")), "began all the same"
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


def main():
    work = tempfile.mkdtemp()
    try:
        dry = run("pack", MODEL, "--bits", "2", "--dry-run")
        assert "with 2 bits" in dry.stderr and not dry.stdout, dry
        logprobs = {0: score(MODEL)}
        for bits, group in ((2, 64), (3, 128), (4, 64), (8, 32)):
            folder = os.path.join(work, f"q{bits}")
            made = run("pack", MODEL, "--bits", str(bits), "--group-size", str(group), "-o", folder)
            assert made.stdout.strip() == folder
            check_codes(folder, bits, group)
            run("pack", folder, "--verify")
            logprobs[bits] = score(folder)
        off = {b: sum(abs(x - y) for x, y in zip(logprobs[b], logprobs[0])) / len(logprobs[0]) for b in logprobs}
        assert off[8] < 0.05 < off[3] < off[2], off
        answer = run("run", os.path.join(work, "q8"), "-p", "Hello", "-n", "8", "--temp", "0", "--json")
        assert json.loads(answer.stdout)["text"]
        # From a store that stands alone to fewer bits: what a download with --pack leaves, too.
        run("pack", os.path.join(work, "q8"), "--bits", "4", "-o", os.path.join(work, "q84"))
        assert os.path.getsize(os.path.join(work, "q84/flash-moe.pack/layer-000.pack")) < \
            os.path.getsize(os.path.join(work, "q8/flash-moe.pack/layer-000.pack"))
        interrupted(os.path.join(work, "half"))
        run("pack", MODEL, "--bits", "2", "-o", os.path.join(work, "q8"), ok=False)
        run("pack", MODEL, "--bits", "2", ok=False)
        run("pack", MODEL, "--bits", "7", "-o", os.path.join(work, "q7"), ok=False)
        run("pack", MODEL, "--dry-run", ok=False)
        assert run("pack", MODEL, "--bits", "2", "--verify", ok=False).returncode == 2
        small_disk(os.path.join(work, "small"))
    finally:
        shutil.rmtree(work)


main()
