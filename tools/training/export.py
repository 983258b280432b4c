#!/usr/bin/env python3
"""Write a trained checkpoint as an MLX 4-bit model folder.

    export.py OUT          reads OUT/model.pt, writes config.json, two shards with their index, tokenizer_config.json ...

Two shards, and data that starts at an odd address in both, as in files written by MLX: the bundled model is also a test."""
import json
import os
import struct
import sys

import numpy as np
import torch

from data import SPECIAL
from quant import affine

EIGHT = ("mlp.gate", "shared_expert_gate", "embed_tokens", "lm_head")
NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight", "model.norm.weight", "q_norm.weight", "k_norm.weight")
TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)



def bf16(t):
    bits = t.to(torch.bfloat16).contiguous().view(torch.int16).numpy().view(np.uint16)
    return "BF16", bits.shape, bits.tobytes()


def quantised(module, w, bits, group=64):
    """-> the three tensors of a module"""
    codes, scale, bias = affine(w, bits, group)
    codes = codes.to(torch.int64).reshape(*w.shape[:-1], -1, 32 // bits).numpy().astype(np.uint64)
    words = (codes << (np.arange(32 // bits) * bits).astype(np.uint64)).sum(-1).astype(np.uint32)
    shape = (*w.shape[:-1], w.shape[-1] // group)
    return {module + ".weight": ("U32", words.shape, words.tobytes()), module + ".scales": bf16(scale.reshape(shape)),
            module + ".biases": bf16(bias.reshape(shape))}


def checkpoint_names(state, c):
    """Parameters of model.py -> {name in the checkpoint: tensor}, experts stacked as switch_mlp"""
    out = {}
    for k, v in state.items():
        v = v.float().cpu()
        if k.startswith("lm_head"):
            out[k] = v
            continue
        k = "model." + k
        for a, b in (
            (".mlp.w_gate", ".mlp.switch_mlp.gate_proj.weight"),
            (".mlp.w_up", ".mlp.switch_mlp.up_proj.weight"),
            (".mlp.w_down", ".mlp.switch_mlp.down_proj.weight"),
            (".mlp.shared_gate_proj", ".mlp.shared_expert.gate_proj"),
            (".mlp.shared_up_proj", ".mlp.shared_expert.up_proj"),
            (".mlp.shared_down_proj", ".mlp.shared_expert.down_proj"),
            (".mix.norm_weight", ".mix.norm.weight"),
        ):
            k = k.replace(a, b)
        if ".mix." in k:
            li = int(k.split(".")[2])
            k = k.replace(".mix.", ".linear_attn." if (li + 1) % c["full_attention_interval"] else ".self_attn.")
        out[k] = v
    return out


def model_config(c):
    return {
        "architectures": ["Qwen3NextForCausalLM"],
        "model_type": "qwen3_next",
        "vocab_size": c["vocab_size"],
        "hidden_size": c["hidden_size"],
        "intermediate_size": c["hidden_size"] * 4,
        "num_hidden_layers": c["num_hidden_layers"],
        "num_attention_heads": c["num_attention_heads"],
        "num_key_value_heads": c["num_key_value_heads"],
        "head_dim": c["head_dim"],
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "rms_norm_eps": c["rms_norm_eps"],
        "rope_theta": c["rope_theta"],
        "partial_rotary_factor": c["partial_rotary_factor"],
        "rope_scaling": None,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "linear_conv_kernel_dim": c["linear_conv_kernel_dim"],
        "linear_key_head_dim": c["linear_key_head_dim"],
        "linear_value_head_dim": c["linear_value_head_dim"],
        "linear_num_key_heads": c["linear_num_key_heads"],
        "linear_num_value_heads": c["linear_num_value_heads"],
        "decoder_sparse_step": 1,
        "full_attention_interval": c["full_attention_interval"],
        "moe_intermediate_size": c["moe_intermediate_size"],
        "shared_expert_intermediate_size": c["shared_expert_intermediate_size"],
        "num_experts": c["num_experts"],
        "num_experts_per_tok": c["num_experts_per_tok"],
        "norm_topk_prob": True,
        "mlp_only_layers": [],
        "bos_token_id": None,
        "eos_token_id": 2,
        "torch_dtype": "bfloat16",
    }


def tensors_of(state, c, quantization):
    """-> {name: (dtype, shape, bytes)}; the 8-bit modules are added to `quantization`"""
    out = {}
    for name, v in checkpoint_names(state, c).items():
        if name.endswith("conv1d.weight"):  # [C, 1, K] there, [C, K, 1] here
            out[name] = bf16(v.transpose(1, 2))
        elif v.dim() >= 2:
            module = name[: -len(".weight")]
            bits = 8 if module.endswith(EIGHT) else 4
            if bits == 8:
                quantization[module] = {"group_size": 64, "bits": 8}
            out.update(quantised(module, v, bits))
        elif name.endswith("A_log"):
            out[name] = ("F32", v.shape, v.numpy().tobytes())
        else:  # norms are w while training and 1 + w in a converted checkpoint
            out[name] = bf16(v + 1.0 if name.endswith(NORMS) else v)
    return out


def write_shard(path, tensors):
    header, at = {"__metadata__": {"format": "mlx"}}, 0
    for name, (dtype, shape, data) in tensors:
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (1 - len(text) % 2)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for _, (_, _, data) in tensors:
            f.write(data)


def write_shards(out, tensors):
    half, at, parts = sum(len(t[2]) for t in tensors.values()) / 2, 0, ([], [])
    for item in tensors.items():
        parts[at >= half].append(item)
        at += len(item[1][2])
    weight_map = {}
    for i, part in enumerate(parts):
        name = f"model-{i + 1:05d}-of-00002.safetensors"
        write_shard(os.path.join(out, name), part)
        weight_map.update({n: name for n, _ in part})
    write_json(out, "model.safetensors.index.json", {"metadata": {"total_size": at}, "weight_map": weight_map})


def write_json(out, name, value):
    with open(os.path.join(out, name), "w") as f:
        json.dump(value, f, indent=2)


def tokenizer_config():
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "added_tokens_decoder": {str(i): {"content": t, **plain} for i, t in enumerate(SPECIAL)},
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }


def export(checkpoint, out):
    saved = torch.load(checkpoint, map_location="cpu", weights_only=False)
    quantization = {"group_size": 64, "bits": 4, "mode": "affine"}
    write_shards(out, tensors_of(saved["state"], saved["config"], quantization))
    config = model_config(saved["config"])
    config["quantization"] = config["quantization_config"] = quantization
    write_json(out, "config.json", config)
    write_json(out, "generation_config.json", {"bos_token_id": None, "eos_token_id": [2, 0], "do_sample": True,
                                               "temperature": 0.7, "top_k": 40, "top_p": 0.95})
    write_json(out, "tokenizer_config.json", tokenizer_config())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    export(os.path.join(sys.argv[1], "model.pt"), sys.argv[1])
