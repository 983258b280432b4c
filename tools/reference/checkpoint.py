"""Checkpoint folders in numpy: safetensors files and the number formats of MLX and Hugging Face, both ways.

Written from the format descriptions alone and slow on purpose: it is the yardstick for the C code, which it shares nothing
with. Floats come back as float64."""
import glob
import json
import os
import struct

import numpy as np

PLAIN = {"F32": np.float32, "F16": np.float16, "F64": np.float64, "U8": np.uint8, "I8": np.int8, "U16": np.uint16,
         "I16": np.int16, "U32": np.uint32, "I32": np.int32, "U64": np.uint64, "I64": np.int64, "BOOL": np.bool_}
STORED = {"BF16": np.uint16, "F8_E4M3": np.uint8, "F8_E5M2": np.uint8}  # kept as their bits


class Raw:
    """An array with the name of its stored type (BF16 and F8 have no numpy type of their own)."""

    def __init__(self, array, dtype):
        self.array, self.dtype = np.ascontiguousarray(array), dtype


# --- single formats ---------------------------------------------------------------------------------------------------

def bf16_bits(x):
    """Round to nearest even, as every converter does."""
    u = np.asarray(x, np.float32).view(np.uint32)
    return ((u + 0x7fff + ((u >> 16) & 1)) >> 16).astype(np.uint16)


def bf16_value(bits):
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def e4m3_table():
    v = np.zeros(256)
    for b in range(128):
        e, m = b >> 3, b & 7
        v[b] = m / 8 * 2.0 ** -6 if e == 0 else (1 + m / 8) * 2.0 ** (e - 7)
    v[128:] = -v[:128]
    return v


E4M3 = e4m3_table()
E2M1 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6])


def nearest_code(x, table):
    """Index of the value of `table` nearest to each x (ties: the even code). Nothing becomes E4M3's 0x7f: it saturates at 448."""
    order = np.argsort(table[:len(table) // 2], kind="stable")
    order = order[order != 127]
    positive = table[:len(table) // 2][order]
    a = np.minimum(np.abs(x), positive[-1])
    hi = np.clip(np.searchsorted(positive, a), 1, len(positive) - 1)
    lo = hi - 1
    dl, dh = a - positive[lo], positive[hi] - a
    pick = np.where((dh < dl) | ((dh == dl) & (order[hi] % 2 == 0)), hi, lo)
    return (order[pick] + np.where(np.signbit(x), len(table) // 2, 0)).astype(np.uint8)


def store(x, dtype):
    """float array -> Raw of a float type"""
    if dtype == "BF16":
        return Raw(bf16_bits(x), "BF16")
    if dtype == "F8_E4M3":
        return Raw(nearest_code(x, E4M3), "F8_E4M3")
    return Raw(np.asarray(x).astype(PLAIN[dtype]), dtype)


def value(raw):
    """Raw of a float type -> float64"""
    if raw.dtype == "BF16":
        return bf16_value(raw.array)
    if raw.dtype == "F8_E4M3":
        return E4M3[raw.array]
    if raw.dtype in ("F32", "F16", "F64"):
        return raw.array.astype(np.float64)
    raise ValueError(f"{raw.dtype} is no float type")


# --- quantised matrices -----------------------------------------------------------------------------------------------

def pack(codes, bits):
    """uint codes [.., n] -> uint32 [.., n*bits/32]: one little-endian bit stream a row"""
    flat = ((codes[..., None].astype(np.uint32) >> np.arange(bits, dtype=np.uint32)) & 1).astype(np.uint8)
    return np.packbits(flat.reshape(*codes.shape[:-1], -1), axis=-1, bitorder="little").view("<u4")


def unpack(words, bits):
    b = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1, bitorder="little")
    b = b.reshape(*words.shape[:-1], -1, bits).astype(np.uint32)
    return (b << np.arange(bits, dtype=np.uint32)).sum(-1)


def quantise_affine(w, bits, group, scale_type):
    """-> {"weight", "scales", "biases"} as MLX makes them"""
    g = np.asarray(w, np.float32).reshape(*w.shape[:-1], -1, group)
    lo, hi, n = g.min(-1, keepdims=True), g.max(-1, keepdims=True), np.float32(2 ** bits - 1)
    s = np.maximum((hi - lo) / n, np.float32(1e-7))
    low = np.abs(lo) > np.abs(hi)
    s, edge = np.where(low, s, -s), np.where(low, lo, hi)
    q0 = np.rint(edge / s)
    with np.errstate(divide="ignore", invalid="ignore"):
        s = np.where(q0 != 0, edge / q0, s)
    b = np.where(q0 != 0, edge, np.float32(0))
    q = np.clip(np.rint((g - b) / s), 0, n).astype(np.uint32)
    return {"weight": Raw(pack(q.reshape(w.shape), bits), "U32"), "scales": store(s[..., 0], scale_type),
            "biases": store(b[..., 0], scale_type)}


def quantise_floating(w, mode):
    group = 16 if mode == "nvfp4" else 32
    g = np.asarray(w, np.float32).reshape(*w.shape[:-1], -1, group)
    top = np.abs(g).max(-1, keepdims=True)
    if mode == "nvfp4":
        code = nearest_code(top / 6, E4M3)
        scale = E4M3[code]
    else:
        with np.errstate(divide="ignore"):
            e = np.rint(np.log2(top / (6 if mode == "mxfp4" else 448)))
        code = (np.clip(np.nan_to_num(e, neginf=-127), -127, 127) + 127).astype(np.uint8)
        scale = 2.0 ** (code.astype(np.float64) - 127)
    with np.errstate(divide="ignore", invalid="ignore"):
        x = np.nan_to_num(g / scale)
    q = nearest_code(x, E4M3 if mode == "mxfp8" else E2M1).reshape(w.shape)
    return {"weight": Raw(pack(q, 8 if mode == "mxfp8" else 4), "U32"), "scales": Raw(code[..., 0], "U8")}


def quantise_fp8_blocks(w):
    """[out, in] -> F8 weight and one F32 scale a 128 x 128 block, as DeepSeek ships"""
    rows, cols = (-(-w.shape[0] // 128), -(-w.shape[1] // 128))
    scale = np.zeros((rows, cols), np.float32)
    q = np.zeros(w.shape, np.uint8)
    for i in range(rows):
        for j in range(cols):
            at = np.s_[i * 128:(i + 1) * 128, j * 128:(j + 1) * 128]
            scale[i, j] = max(np.abs(w[at]).max(), 1e-12) / 448
            q[at] = nearest_code(w[at] / scale[i, j], E4M3)
    return {"weight": Raw(q, "F8_E4M3"), "weight_scale_inv": Raw(scale, "F32")}


def dequantise(weight, scales, biases, cols):
    """The three Raw (biases None for the floating modes) -> float64 [.., cols]"""
    words, s = weight.array, scales.array
    bits, group = 32 * words.shape[-1] // cols, cols // s.shape[-1]
    q = unpack(words, bits)
    if biases is not None:
        g = q.reshape(*q.shape[:-1], -1, group)
        return (value(scales)[..., None] * g + value(biases)[..., None]).reshape(q.shape)
    x = E4M3[q] if bits == 8 else E2M1[q]
    scale = E4M3[s] if group == 16 else 2.0 ** (s.astype(np.float64) - 127)
    return (x.reshape(*x.shape[:-1], -1, group) * scale[..., None]).reshape(x.shape)


def dequantise_fp8_blocks(weight, scale_inv):
    s = np.repeat(np.repeat(value(scale_inv), 128, 0), 128, 1)
    return value(weight) * s[:weight.array.shape[0], :weight.array.shape[1]]


# --- folders ----------------------------------------------------------------------------------------------------------

def read_folder(folder):
    """-> (config, {name: Raw})"""
    tensors = {}
    for path in sorted(glob.glob(os.path.join(folder, "model*.safetensors"))):
        with open(path, "rb") as f:
            data = f.read()
        n = struct.unpack("<Q", data[:8])[0]
        for name, t in json.loads(data[8:8 + n]).items():
            if name == "__metadata__":
                continue
            kind = PLAIN.get(t["dtype"]) or STORED[t["dtype"]]
            begin, end = t["data_offsets"]
            tensors[name] = Raw(np.frombuffer(data[8 + n + begin:8 + n + end], kind).reshape(t["shape"]), t["dtype"])
    with open(os.path.join(folder, "config.json")) as f:
        return json.load(f), tensors


def write_file(path, names, tensors, shift=0):
    """One safetensors file; `shift` spaces more in the header move every address, so that nothing is aligned."""
    header, at = {"__metadata__": {"format": "mlx"}}, 0
    for n in names:
        raw = tensors[n]
        header[n] = {"dtype": raw.dtype, "shape": list(raw.array.shape), "data_offsets": [at, at + raw.array.nbytes]}
        at += raw.array.nbytes
    text = json.dumps(header).encode() + b" " * shift
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for n in names:
            f.write(tensors[n].array.tobytes())


def write_folder(folder, config, tensors, rng=None, shards=1):
    """rng: shuffles the tensors and shifts the addresses, as MLX's own writer does. With shards, neighbours in name order
    are dealt out so that the parts of one expert matrix land in different files."""
    os.makedirs(folder, exist_ok=True)
    names = sorted(tensors)
    parts = [names[i::shards] for i in range(shards)]
    weight_map = {}
    for i, part in enumerate(parts):
        if rng is not None:
            part = list(rng.permutation(part))
        name = "model.safetensors" if shards == 1 else f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        write_file(os.path.join(folder, name), part, tensors, int(rng.integers(8)) if rng is not None else 0)
        weight_map.update({n: name for n in part})
    if shards > 1:
        with open(os.path.join(folder, "model.safetensors.index.json"), "w") as f:
            json.dump({"metadata": {}, "weight_map": weight_map}, f)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config, f, indent=1, sort_keys=True)
