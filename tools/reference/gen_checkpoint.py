#!/usr/bin/env python3
"""Random tiny checkpoints of any family: every layout, every number format, odd shapes.

    gen_checkpoint.py FAMILY SEED -o DIR     writes config.json, model*.safetensors and about.txt (what is special)
    gen_checkpoint.py --list

The same FAMILY and SEED give the same folder. reference.py computes its logits."""
import argparse
import json
import math
import os
import sys

import numpy as np

import checkpoint
from checkpoint import Raw

W_NAMES = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}


class Sketch:
    """A checkpoint being drawn: config, float tensors under their MLX names, which modules a converter may quantise."""

    def __init__(self, family, rng, small=False):
        self.family, self.rng, self.small = family, rng, small
        self.config, self.tensors, self.linears, self.notes = {}, {}, [], []
        self.root = "model."

    def pick(self, *values):
        return values[int(self.rng.integers(len(values)))]

    def chance(self, p=0.5):
        return bool(self.rng.random() < p)

    def put(self, name, array):
        self.tensors[name] = np.asarray(array, np.float64)

    def linear(self, module, *shape, bias=False, gain=1.0, quantise=True):
        """[.., out, in] with activations kept near size one"""
        self.put(module + ".weight", self.rng.normal(size=shape) * gain / math.sqrt(shape[-1]))
        if quantise:
            self.linears.append(module)
        if bias:
            self.put(module + ".bias", self.rng.normal(size=shape[:-1]) * 0.2)

    def norm(self, module, n, bias=False):
        self.put(module + ".weight", 1 + 0.2 * self.rng.normal(size=n))
        if bias:
            self.put(module + ".bias", 0.1 * self.rng.normal(size=n))

    def mlp(self, module, h, width, **kw):
        self.linear(module + ".gate_proj", width, h, **kw)
        self.linear(module + ".up_proj", width, h, **kw)
        self.linear(module + ".down_proj", h, width, **kw)

    def experts(self, module, n, h, width, **kw):
        for name, shape in (("gate_proj", (n, width, h)), ("up_proj", (n, width, h)), ("down_proj", (n, h, width))):
            self.linear(f"{module}.{name}", *shape, **kw)


# --- configs and tensors ----------------------------------------------------------------------------------------------

def base(s, head_dim=None):
    """Sizes that every family has. head_dim None: hidden / heads."""
    c = s.config
    h = s.pick(32, 64) if s.small else s.pick(64, 96, 128, 160, 192, 256)
    if head_dim and s.small:
        nq, nkv = s.pick((4, 2), (3, 1), (2, 2))
    elif head_dim:
        nkv, ratio = s.pick((1, 4), (2, 2), (2, 3), (1, 5), (3, 1), (4, 2))
        nq = nkv * ratio
    else:
        nq = s.pick(*[n for n in (2, 4, 6, 8) if h % n == 0 and (h // n) % 4 == 0])
        nkv = s.pick(*[n for n in (1, 2, 3, 4, 6, 8) if nq % n == 0])
    c.update(hidden_size=h, num_hidden_layers=s.pick(2, 3, 4, 5), num_attention_heads=nq, num_key_value_heads=nkv,
             vocab_size=s.pick(97, 101, 128, 150), rms_norm_eps=s.pick(1e-5, 1e-6), max_position_embeddings=512,
             rope_theta=s.pick(1e4, 5e4, 1e6), intermediate_size=s.pick(64, 96, 128, 160), model_type=s.family)
    if s.small:
        c.update(num_hidden_layers=s.pick(2, 3), vocab_size=s.pick(40, 53), intermediate_size=s.pick(32, 64))
    if head_dim:
        c["head_dim"] = head_dim
    return c


def scaling(s, dims, *kinds):
    """A rope_scaling dict of one of the kinds; None: no scaling."""
    kind = s.pick(*kinds)
    if kind is None:
        return None
    s.notes.append(f"rope {kind}")
    if kind == "linear":
        return {"type": "linear", "factor": s.pick(2.0, 4.0, 2.5)}
    if kind == "llama3":
        return {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": s.pick(16, 64, 256)}
    if kind == "yarn":
        return {s.pick("type", "rope_type"): "yarn", "factor": s.pick(4.0, 40.0), "beta_fast": 32, "beta_slow": 1,
                "original_max_position_embeddings": s.pick(32, 64, 4096)}
    if kind == "yarn-mscale":
        m = s.pick((1.0, 1.0), (0.707, 0.707), (0.707, 0.5), (1.0, 0.0))
        return {"type": "yarn", "factor": s.pick(4, 40), "beta_fast": 32, "beta_slow": 1, "mscale": m[0],
                "mscale_all_dim": m[1], "original_max_position_embeddings": s.pick(32, 64, 4096)}
    return {"type": "longrope", "short_factor": [1.0] * (dims // 2), "short_mscale": 1.2, "long_mscale": s.pick(1.24, 1.0, 1.4),
            "long_factor": [round(1 + 0.37 * i, 3) for i in range(dims // 2)]}


def finish(s, tied, norm="norm", **norm_kw):
    c = s.config
    s.linear(s.root + "embed_tokens", c["vocab_size"], c["hidden_size"], gain=4.0)
    s.norm(s.root + norm, c["hidden_size"], **norm_kw)
    if not tied:
        s.linear(s.root.replace("model.", "", 1) + "lm_head" if s.root.startswith("language") else "lm_head",
                 c["vocab_size"], c["hidden_size"], bias=norm_kw.get("bias", False))


def attention(s, n, hd, qkv_bias=False, o_bias=False, out_gate=False, own_kv=True):
    c, p = s.config, f"{s.root}layers.{n}.self_attn"
    h, nq, nkv = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"]
    s.linear(p + ".q_proj", nq * hd * (2 if out_gate else 1), h, bias=qkv_bias)
    if own_kv:
        s.linear(p + ".k_proj", nkv * hd, h, bias=qkv_bias)
        s.linear(p + ".v_proj", nkv * hd, h, bias=qkv_bias)
    s.linear(p + ".o_proj", h, nq * hd, bias=o_bias)
    return p


def layer_norms(s, n, second="post_attention_layernorm", **kw):
    for name in ("input_layernorm", second):
        s.norm(f"{s.root}layers.{n}.{name}", s.config["hidden_size"], **kw)


def expert_count(s, c, experts="num_experts", width="moe_intermediate_size"):
    c[experts] = s.pick(3, 5, 6) if s.small else s.pick(3, 5, 6, 7, 8, 12)
    c["num_experts_per_tok"] = s.pick(1, 2, 3)
    if width:
        c[width] = 32 if s.small else s.pick(32, 48, 64, 96)


def qwen2_moe(s):
    c = base(s)
    expert_count(s, c)
    c["shared_expert_intermediate_size"] = s.pick(32, 48, 96)
    for n in range(c["num_hidden_layers"]):
        attention(s, n, c["hidden_size"] // c["num_attention_heads"], qkv_bias=True)
        layer_norms(s, n)
        qwen_moe(s, n, shared=True)
    finish(s, False)


def qwen_moe(s, n, shared):
    c, p = s.config, f"{s.root}layers.{n}.mlp"
    h = c["hidden_size"]
    s.linear(p + ".gate", c["num_experts"], h, gain=2)
    s.experts(p + ".switch_mlp", c["num_experts"], h, c["moe_intermediate_size"])
    if shared:
        s.mlp(p + ".shared_expert", h, c["shared_expert_intermediate_size"])
        s.linear(p + ".shared_expert_gate", 1, h)


def qwen3_moe(s):
    c = base(s, head_dim=s.pick(16, 24, 32))
    expert_count(s, c)
    layers = c["num_hidden_layers"]
    c.update(norm_topk_prob=s.chance(), tie_word_embeddings=s.chance(0.3), decoder_sparse_step=s.pick(1, 1, 2),
             mlp_only_layers=[] if s.chance() else [int(s.rng.integers(layers))])
    c["rope_scaling"] = scaling(s, c["head_dim"], None, None, "yarn", "linear")
    if s.family == "qwen3_vl_moe":
        c["rope_scaling"] = {"mrope_section": [2, 3, 3], "rope_type": "default"}
    sparse = False
    for n in range(layers):
        p = attention(s, n, c["head_dim"])
        s.norm(p + ".q_norm", c["head_dim"])
        s.norm(p + ".k_norm", c["head_dim"])
        layer_norms(s, n)
        moe = n not in c["mlp_only_layers"] and (n + 1) % c["decoder_sparse_step"] == 0
        sparse = sparse or moe
        if moe:
            qwen_moe(s, n, shared=False)
        else:
            s.mlp(f"{s.root}layers.{n}.mlp", c["hidden_size"], c["intermediate_size"])
    finish(s, c["tie_word_embeddings"])


def qwen3_vl_moe(s):
    s.root = "language_model.model."
    qwen3_moe(s)
    nest(s)


def nest(s):
    """The language model's fields move into text_config."""
    s.config = {"model_type": s.family, "text_config": dict(s.config, model_type=s.family + "_text")}


def delta_net(s, n, flat):
    c, p = s.config, f"{s.root}layers.{n}.linear_attn"
    h = c["hidden_size"]
    nv, nk, dk, dv, kc = (c["linear_" + k] for k in
                          ("num_value_heads", "num_key_heads", "key_head_dim", "value_head_dim", "conv_kernel_dim"))
    kd, vd = nk * dk, nv * dv
    if flat:
        for name, rows in (("in_proj_qkv", 2 * kd + vd), ("in_proj_z", vd), ("in_proj_b", nv), ("in_proj_a", nv)):
            s.linear(f"{p}.{name}", rows, h)
    else:
        s.linear(p + ".in_proj_qkvz", 2 * kd + 2 * vd, h)
        s.linear(p + ".in_proj_ba", 2 * nv, h)
    s.put(p + ".conv1d.weight", s.rng.normal(size=(2 * kd + vd, kc, 1)) * 0.6)
    s.put(p + ".A_log", np.log(s.rng.uniform(0.2, 8, nv)))
    s.put(p + ".dt_bias", s.rng.normal(size=nv))
    s.norm(p + ".norm", dv)
    s.linear(p + ".out_proj", h, vd)


def qwen3_next(s, flat=False):
    c = base(s, head_dim=s.pick(16, 32))
    expert_count(s, c)
    nk = s.pick(1, 2, 3)
    c.update(linear_num_key_heads=nk, linear_num_value_heads=nk * s.pick(1, 2, 3), linear_key_head_dim=s.pick(16, 32),
             linear_value_head_dim=s.pick(16, 24, 32), linear_conv_kernel_dim=s.pick(4, 4, 3), decoder_sparse_step=1,
             mlp_only_layers=[], shared_expert_intermediate_size=s.pick(32, 48, 96), norm_topk_prob=s.chance(0.7),
             full_attention_interval=s.pick(2, 3, 4), tie_word_embeddings=s.chance(0.3))
    fraction = s.pick(0.25, 0.5, 1.0)
    if flat:
        c["rope_parameters"] = {"rope_type": "default", "mrope_section": [1, 1, 0], "rope_theta": c.pop("rope_theta"),
                                "partial_rotary_factor": fraction}
    else:
        c.update(partial_rotary_factor=fraction, decoder_sparse_step=s.pick(1, 1, 2))
        c["rope_scaling"] = scaling(s, c["head_dim"], None, None, "linear", "llama3", "yarn")
    for n in range(c["num_hidden_layers"]):
        if (n + 1) % c["full_attention_interval"]:
            delta_net(s, n, flat)
        else:
            p = attention(s, n, c["head_dim"], out_gate=True)
            s.norm(p + ".q_norm", c["head_dim"])
            s.norm(p + ".k_norm", c["head_dim"])
        layer_norms(s, n)
        if (n + 1) % c["decoder_sparse_step"]:
            s.mlp(f"{s.root}layers.{n}.mlp", c["hidden_size"], c["intermediate_size"])
        else:
            qwen_moe(s, n, shared=True)
    finish(s, c["tie_word_embeddings"])


def qwen3_5_moe(s):
    s.root = "language_model.model."
    qwen3_next(s, flat=True)
    nest(s)


def mixtral(s):
    c = base(s)
    expert_count(s, c, "num_local_experts", None)
    c["tie_word_embeddings"] = s.chance(0.2)
    for n in range(c["num_hidden_layers"]):
        attention(s, n, c["hidden_size"] // c["num_attention_heads"])
        layer_norms(s, n)
        p = f"{s.root}layers.{n}.block_sparse_moe"
        s.linear(p + ".gate", c["num_local_experts"], c["hidden_size"], gain=2)
        s.experts(p + ".switch_mlp", c["num_local_experts"], c["hidden_size"], c["intermediate_size"])
    finish(s, c["tie_word_embeddings"])


def olmoe(s):
    c = base(s)
    expert_count(s, c, width=None)
    hd = c["hidden_size"] // c["num_attention_heads"]
    c.update(norm_topk_prob=s.chance(0.3), attention_bias=s.chance(0.3), tie_word_embeddings=s.chance(0.3))
    c["rope_scaling"] = scaling(s, hd, None, "linear", "llama3", "yarn")
    for n in range(c["num_hidden_layers"]):
        p = attention(s, n, hd, c["attention_bias"], c["attention_bias"])
        s.norm(p + ".q_norm", c["num_attention_heads"] * hd)
        s.norm(p + ".k_norm", c["num_key_value_heads"] * hd)
        layer_norms(s, n)
        s.linear(f"{s.root}layers.{n}.mlp.gate", c["num_experts"], c["hidden_size"], gain=2)
        s.experts(f"{s.root}layers.{n}.mlp.switch_mlp", c["num_experts"], c["hidden_size"], c["intermediate_size"])
    finish(s, c["tie_word_embeddings"])


def noaux_config(s, c):
    groups = s.pick(1, 2, 4)
    c.update(n_group=groups, topk_group=max(1, groups // 2), n_routed_experts=groups * s.pick(2, 3, 4) if groups > 1 else s.pick(5, 6, 7),
             num_experts_per_tok=s.pick(1, 2, 3), norm_topk_prob=s.chance(0.8), routed_scaling_factor=s.pick(1.0, 2.5, 1.8),
             n_shared_experts=s.pick(1, 2), first_k_dense_replace=s.pick(0, 1), moe_intermediate_size=s.pick(32, 48, 64, 96))
    if s.small:
        c.update(moe_intermediate_size=32, n_routed_experts=8 if groups == 4 else 4 if groups == 2 else 5)
    # the kept groups must hold enough experts
    c["num_experts_per_tok"] = min(c["num_experts_per_tok"], c["topk_group"] * c["n_routed_experts"] // groups)


def deepseek_moe(s, n, bias=True):
    c, p = s.config, f"{s.root}layers.{n}.mlp"
    h = c["hidden_size"]
    if n < c["first_k_dense_replace"] or n % c.get("moe_layer_freq", 1):
        s.mlp(p, h, c["intermediate_size"])
        return
    s.linear(p + ".gate", c["n_routed_experts"], h, gain=2, quantise=False)
    if bias:
        s.put(p + ".gate.e_score_correction_bias", s.rng.normal(size=c["n_routed_experts"]) * 0.3)
    s.experts(p + ".switch_mlp", c["n_routed_experts"], h, c["moe_intermediate_size"])
    s.mlp(p + ".shared_experts", h, c["moe_intermediate_size"] * c["n_shared_experts"])


def glm4_moe(s):
    c = base(s, head_dim=s.pick(16, 32))
    noaux_config(s, c)
    c.update(use_qk_norm=s.chance(), attention_bias=s.chance(), partial_rotary_factor=s.pick(0.5, 1.0, 0.25),
             rope_scaling=None, tie_word_embeddings=False, first_k_dense_replace=s.pick(0, 1))
    for n in range(c["num_hidden_layers"]):
        p = attention(s, n, c["head_dim"], c["attention_bias"])
        if c["use_qk_norm"]:
            s.norm(p + ".q_norm", c["head_dim"])
            s.norm(p + ".k_norm", c["head_dim"])
        layer_norms(s, n)
        deepseek_moe(s, n)
    finish(s, False)


def dots1(s):
    c = base(s, head_dim=s.pick(16, 32))
    noaux_config(s, c)
    c.update(attention_bias=False, rope_scaling=None, tie_word_embeddings=False)
    for n in range(c["num_hidden_layers"]):
        p = attention(s, n, c["head_dim"])
        s.norm(p + ".q_norm", c["head_dim"])
        s.norm(p + ".k_norm", c["head_dim"])
        layer_norms(s, n)
        deepseek_moe(s, n)
    finish(s, False)
    rename(s, ".mlp.switch_mlp.", ".mlp.experts.")


def rename(s, old, new):
    s.tensors = {k.replace(old, new): v for k, v in s.tensors.items()}
    s.linears = [k.replace(old, new) for k in s.linears]


def mla(s, n, split):
    c, p = s.config, f"{s.root}layers.{n}.self_attn"
    h, nq = c["hidden_size"], c["num_attention_heads"]
    lora, nope, qr, vh = (c[k] for k in ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
    bias = c.get("attention_bias", False)
    if c["q_lora_rank"]:
        s.linear(p + ".q_a_proj", c["q_lora_rank"], h, bias=bias)
        s.norm(p + ".q_a_layernorm", c["q_lora_rank"])
        s.linear(p + ".q_b_proj", nq * (nope + qr), c["q_lora_rank"])
    else:
        s.linear(p + ".q_proj", nq * (nope + qr), h)
    s.linear(p + ".kv_a_proj_with_mqa", lora + qr, h, bias=bias)
    s.norm(p + ".kv_a_layernorm", lora)
    if split:
        s.linear(p + ".embed_q", nq, lora, nope)
        s.linear(p + ".unembed_out", nq, vh, lora)
    else:
        s.linear(p + ".kv_b_proj", nq * (nope + vh), lora)
    s.linear(p + ".o_proj", h, nq * vh, bias=bias)


def deepseek_v3(s):
    c = base(s)
    noaux_config(s, c)
    c.update(kv_lora_rank=s.pick(32, 64, 96), q_lora_rank=s.pick(None, 32, 64, 40), qk_nope_head_dim=s.pick(16, 32, 24),
             qk_rope_head_dim=s.pick(8, 16), v_head_dim=s.pick(16, 32, 24), num_key_value_heads=c["num_attention_heads"],
             moe_layer_freq=1, attention_bias=s.chance(0.3))
    c["rope_scaling"] = scaling(s, c["qk_rope_head_dim"], None, "yarn-mscale")
    if s.family == "glm4_moe_lite":
        c["rope_scaling"] = None
    s.old_mla = s.chance(0.4)
    if s.old_mla:
        s.notes.append("kv_b_proj unsplit")
    for n in range(c["num_hidden_layers"]):
        mla(s, n, split=not s.old_mla)
        layer_norms(s, n)
        deepseek_moe(s, n)
    finish(s, False)


def deepseek_v2(s):
    c = base(s)
    noaux_config(s, c)
    c.update(kv_lora_rank=s.pick(32, 64, 96), q_lora_rank=s.pick(None, 32, 64), qk_nope_head_dim=s.pick(16, 32),
             qk_rope_head_dim=s.pick(8, 16), v_head_dim=s.pick(16, 32), num_key_value_heads=c["num_attention_heads"],
             moe_layer_freq=1, norm_topk_prob=False, topk_method=s.pick("greedy", "group_limited_greedy"),
             routed_scaling_factor=s.pick(1.0, 16.0), attention_bias=False)
    c["rope_scaling"] = scaling(s, c["qk_rope_head_dim"], "yarn-mscale")
    s.old_mla = True
    for n in range(c["num_hidden_layers"]):
        mla(s, n, split=False)
        layer_norms(s, n)
        deepseek_moe(s, n, bias=False)
    finish(s, False)


def deepseek(s):
    c = base(s)
    noaux_config(s, c)
    c.update(moe_layer_freq=s.pick(1, 2), attention_bias=s.chance(0.3), norm_topk_prob=False, rope_scaling=None)
    for k in ("n_group", "topk_group", "routed_scaling_factor"):
        del c[k]
    for n in range(c["num_hidden_layers"]):
        attention(s, n, c["hidden_size"] // c["num_attention_heads"], c["attention_bias"], c["attention_bias"])
        layer_norms(s, n)
        deepseek_moe(s, n, bias=False)
    finish(s, False)


def hunyuan(s):
    c = base(s)
    layers, h = c["num_hidden_layers"], c["hidden_size"]
    hd = h // c["num_attention_heads"]
    lists = s.chance()
    c.update(num_experts=s.pick(4, 5, 8), attention_bias=s.chance(0.3), use_mixed_mlp_moe=True, use_qk_norm=s.chance(0.8),
             use_cla=s.chance(0.4), cla_share_factor=2, rope_scaling={"type": "dynamic", "alpha": s.pick(1000.0, 50.0), "factor": 1.0},
             moe_topk=[s.pick(1, 2, 3) for _ in range(layers)] if lists else s.pick(1, 2, 3),
             num_shared_expert=[s.pick(1, 2) for _ in range(layers)] if lists else 1,
             moe_intermediate_size=s.pick(None, 48, 64))
    width = c["moe_intermediate_size"] or c["intermediate_size"]
    for n in range(layers):
        p = attention(s, n, hd, c["attention_bias"], c["attention_bias"],
                      own_kv=not (c["use_cla"] and n % c["cla_share_factor"]))
        if c["use_qk_norm"]:
            s.norm(p + ".query_layernorm", hd)
            s.norm(p + ".key_layernorm", hd)
        layer_norms(s, n)
        p = f"{s.root}layers.{n}.mlp"
        s.linear(p + ".gate.wg", c["num_experts"], h, gain=2)
        s.experts(p + ".switch_mlp", c["num_experts"], h, width)
        shared = c["num_shared_expert"][n] if lists else c["num_shared_expert"]
        s.mlp(p + ".shared_mlp", h, c["intermediate_size"] * shared)
    finish(s, True)


def jamba(s):
    c = base(s)
    h = c["hidden_size"]
    period = s.pick(2, 3, 4)
    c.update(attn_layer_period=period, attn_layer_offset=int(s.rng.integers(period)), expert_layer_period=2,
             expert_layer_offset=1, mamba_d_conv=s.pick(4, 3), mamba_d_state=s.pick(8, 16), mamba_expand=2,
             num_experts=s.pick(3, 4, 7), num_experts_per_tok=2, tie_word_embeddings=s.chance(), num_hidden_layers=4)
    if s.chance(0.3):
        c["mamba_dt_rank"] = 5
    di, ds = c["mamba_expand"] * h, c["mamba_d_state"]
    rank = c.get("mamba_dt_rank", -(-h // 16))
    for n in range(4):
        if n % period == c["attn_layer_offset"]:
            attention(s, n, h // c["num_attention_heads"])
        else:
            p = f"{s.root}layers.{n}.mamba"
            s.linear(p + ".in_proj", 2 * di, h)
            s.put(p + ".conv1d.weight", s.rng.normal(size=(di, c["mamba_d_conv"], 1)) * 0.6)
            s.put(p + ".conv1d.bias", s.rng.normal(size=di) * 0.2)
            s.linear(p + ".x_proj", rank + 2 * ds, di)
            s.linear(p + ".dt_proj", di, rank, bias=True)
            s.put(p + ".A_log", np.log(s.rng.uniform(0.5, 8, (di, ds))))
            s.put(p + ".D", s.rng.normal(size=di))
            for k, width in (("dt", rank), ("b", ds), ("c", ds)):
                s.norm(f"{p}.{k}_layernorm", width)
            s.linear(p + ".out_proj", h, di)
        layer_norms(s, n, "pre_ff_layernorm")
        p = f"{s.root}layers.{n}.feed_forward"
        if n % 2 == 1:
            s.linear(p + ".router", c["num_experts"], h, gain=2)
            s.experts(p + ".switch_mlp", c["num_experts"], h, c["intermediate_size"])
        else:
            s.mlp(p, h, c["intermediate_size"])
    finish(s, c["tie_word_embeddings"], "final_layernorm")


def phimoe(s):
    c = base(s)
    expert_count(s, c, "num_local_experts", None)
    hd = c["hidden_size"] // c["num_attention_heads"]
    c.update(num_experts_per_tok=2, original_max_position_embeddings=64, tie_word_embeddings=False)
    c["rope_scaling"] = scaling(s, hd, "longrope")
    for n in range(c["num_hidden_layers"]):
        attention(s, n, hd, True, True)
        layer_norms(s, n, bias=True)
        p = f"{s.root}layers.{n}.block_sparse_moe"
        s.linear(p + ".gate", c["num_local_experts"], c["hidden_size"], gain=2)
        s.experts(p + ".switch_mlp", c["num_local_experts"], c["hidden_size"], c["intermediate_size"])
    finish(s, False, bias=True)


def minimax_m2(s):
    c = base(s, head_dim=s.pick(16, 32))
    expert_count(s, c, "num_local_experts", None)
    c.update(rotary_dim=s.pick(8, 16, c["head_dim"]), shared_intermediate_size=0, scoring_func="sigmoid", use_qk_norm=True,
             tie_word_embeddings=s.chance(0.2))
    for n in range(c["num_hidden_layers"]):
        p = attention(s, n, c["head_dim"])
        s.norm(p + ".q_norm", c["num_attention_heads"] * c["head_dim"])
        s.norm(p + ".k_norm", c["num_key_value_heads"] * c["head_dim"])
        layer_norms(s, n)
        p = f"{s.root}layers.{n}.block_sparse_moe"
        s.linear(p + ".gate", c["num_local_experts"], c["hidden_size"], gain=2)
        s.put(p + ".e_score_correction_bias", s.rng.normal(size=c["num_local_experts"]) * 0.3)
        s.experts(p + ".switch_mlp", c["num_local_experts"], c["hidden_size"], c["intermediate_size"])
    finish(s, c["tie_word_embeddings"])


def granitemoe(s, hybrid=False):
    c = base(s)
    h = c["hidden_size"]
    expert_count(s, c, "num_local_experts", None)
    hd = h // c["num_attention_heads"]
    c.update(logits_scaling=s.pick(6.0, 8.0), attention_multiplier=s.pick(0.1, 0.25), embedding_multiplier=s.pick(1.5, 12.0),
             residual_multiplier=s.pick(0.22, 0.5), attention_bias=s.chance(0.3), tie_word_embeddings=s.chance(0.7))
    if not hybrid:
        c["rope_scaling"] = scaling(s, hd, None, "linear", "llama3")
    else:
        c.update(position_embedding_type=s.pick("nope", "rope"), shared_intermediate_size=s.pick(32, 48, 64),
                 mamba_n_heads=s.pick(4, 6), mamba_d_head=s.pick(16, 24), mamba_d_state=s.pick(16, 24), mamba_d_conv=4,
                 mamba_n_groups=s.pick(1, 2), mamba_proj_bias=False, mamba_conv_bias=s.chance(0.8),
                 layer_types=["attention" if s.chance(0.4) else "mamba" for _ in range(c["num_hidden_layers"])])
    for n in range(c["num_hidden_layers"]):
        if hybrid and c["layer_types"][n] == "mamba":
            mamba2(s, n)
        else:
            attention(s, n, hd, c["attention_bias"], c["attention_bias"])
        layer_norms(s, n)
        p = f"{s.root}layers.{n}."
        s.linear(p + "block_sparse_moe.router.layer", c["num_local_experts"], h, gain=2)
        s.experts(p + "block_sparse_moe.switch_mlp", c["num_local_experts"], h, c["intermediate_size"])
        if hybrid:
            s.linear(p + "shared_mlp.input_linear", 2 * c["shared_intermediate_size"], h)
            s.linear(p + "shared_mlp.output_linear", h, c["shared_intermediate_size"])
    finish(s, c["tie_word_embeddings"])


def mamba2(s, n):
    c, p = s.config, f"{s.root}layers.{n}.mamba"
    h, nh, g, ds = c["hidden_size"], c["mamba_n_heads"], c["mamba_n_groups"], c["mamba_d_state"]
    di = nh * c["mamba_d_head"]
    s.linear(p + ".in_proj", 2 * di + 2 * g * ds + nh, h)
    s.put(p + ".conv1d.weight", s.rng.normal(size=(di + 2 * g * ds, c["mamba_d_conv"], 1)) * 0.6)
    if c["mamba_conv_bias"]:
        s.put(p + ".conv1d.bias", s.rng.normal(size=di + 2 * g * ds) * 0.2)
    s.put(p + ".dt_bias", s.rng.normal(size=nh))
    s.put(p + ".A_log", np.log(s.rng.uniform(0.5, 8, nh)))
    s.put(p + ".D", s.rng.normal(size=nh))
    s.norm(p + ".norm", di)
    s.linear(p + ".out_proj", h, di)


def granitemoehybrid(s):
    granitemoe(s, hybrid=True)


def gpt_oss(s):
    c = base(s, head_dim=s.pick(16, 32))
    expert_count(s, c, "num_local_experts", None)
    layers, h = c["num_hidden_layers"], c["hidden_size"]
    c.update(sliding_window=s.pick(4, 16), layer_types=["sliding_attention" if n % 2 == 0 else "full_attention" for n in range(layers)],
             swiglu_limit=7.0, tie_word_embeddings=False, attention_bias=True)
    c["rope_scaling"] = dict(scaling(s, c["head_dim"], "yarn"), truncate=s.chance())
    for n in range(layers):
        p = attention(s, n, c["head_dim"], True, True)
        s.put(p + ".sinks", s.rng.normal(size=c["num_attention_heads"]))
        layer_norms(s, n)
        p = f"{s.root}layers.{n}.mlp"
        s.linear(p + ".router", c["num_local_experts"], h, gain=2, bias=True)
        s.experts(p + ".experts", c["num_local_experts"], h, c["intermediate_size"], bias=True, gain=2)
    finish(s, False)


def ernie4_5_moe(s):
    c = base(s, head_dim=s.pick(16, 32))
    layers, h = c["num_hidden_layers"], c["hidden_size"]
    c.update(moe_num_experts=s.pick(5, 6, 8), moe_k=s.pick(1, 2, 3), moe_intermediate_size=s.pick(32, 64), use_bias=False,
             moe_num_shared_experts=s.pick(0, 1, 2), moe_layer_start_index=s.pick(0, 1), moe_layer_end_index=layers - 1,
             moe_layer_interval=1, tie_word_embeddings=s.chance(), moe_use_aux_free=True)
    for n in range(layers):
        attention(s, n, c["head_dim"])
        layer_norms(s, n)
        p = f"{s.root}layers.{n}.mlp"
        if n < c["moe_layer_start_index"]:
            s.mlp(p, h, c["intermediate_size"])
            continue
        s.linear(p + ".gate", c["moe_num_experts"], h, gain=2)
        s.put(p + ".moe_statics.e_score_correction_bias", s.rng.normal(size=(1, c["moe_num_experts"])) * 0.05)
        s.experts(p + ".switch_mlp", c["moe_num_experts"], h, c["moe_intermediate_size"])
        if c["moe_num_shared_experts"]:
            s.mlp(p + ".shared_experts", h, c["moe_intermediate_size"] * c["moe_num_shared_experts"])
    finish(s, c["tie_word_embeddings"])


def Klear(s):
    c = base(s, head_dim=s.pick(16, 32))
    expert_count(s, c)
    c.update(norm_topk_prob=s.chance(), n_shared_experts=s.pick(1, 2), decoder_sparse_step=s.pick(1, 1, 2), mlp_only_layers=[],
             tie_word_embeddings=s.chance(0.3), attention_bias=False, rope_scaling=None)
    for n in range(c["num_hidden_layers"]):
        p = attention(s, n, c["head_dim"])
        s.norm(p + ".q_norm", c["head_dim"])
        s.norm(p + ".k_norm", c["head_dim"])
        layer_norms(s, n)
        p, h = f"{s.root}layers.{n}.mlp", c["hidden_size"]
        if (n + 1) % c["decoder_sparse_step"]:
            s.mlp(p, h, c["intermediate_size"])
            continue
        s.linear(p + ".gate", c["num_experts"], h, gain=2)
        s.put(p + ".expert_bias", s.rng.normal(size=c["num_experts"]) * 0.2)
        s.experts(p + ".experts", c["num_experts"], h, c["moe_intermediate_size"])
        s.mlp(p + ".shared_experts", h, c["moe_intermediate_size"] * c["n_shared_experts"])
        s.linear(p + ".coefficient", 2, h, bias=True)
    finish(s, c["tie_word_embeddings"])


def bailing_moe(s):
    c = base(s, head_dim=s.pick(16, 32))
    noaux_config(s, c)
    c["num_experts"], c["num_shared_experts"] = c.pop("n_routed_experts"), c.pop("n_shared_experts")
    c.update(use_qk_norm=s.chance(), partial_rotary_factor=s.pick(0.5, 1.0), score_function=s.pick("softmax", "sigmoid"),
             use_bias=False, use_qkv_bias=False, norm_head=False, rope_scaling=None, tie_word_embeddings=False)
    h, nq, nkv, hd = (c[k] for k in ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim"))
    for n in range(c["num_hidden_layers"]):
        p = f"{s.root}layers.{n}.attention"
        s.linear(p + ".query_key_value", (nq + 2 * nkv) * hd, h)
        s.linear(p + ".dense", h, nq * hd)
        if c["use_qk_norm"]:
            s.norm(p + ".query_layernorm", hd)
            s.norm(p + ".key_layernorm", hd)
        layer_norms(s, n)
        p = f"{s.root}layers.{n}.mlp"
        if n < c["first_k_dense_replace"]:
            s.mlp(p, h, c["intermediate_size"])
            continue
        s.linear(p + ".gate.gate_proj", c["num_experts"], h, gain=2)
        if c["score_function"] == "sigmoid" or s.chance():
            s.put(p + ".gate.expert_bias", s.rng.normal(size=c["num_experts"]) * 0.05)
        s.experts(p + ".switch_mlp", c["num_experts"], h, c["moe_intermediate_size"])
        s.mlp(p + ".shared_experts", h, c["moe_intermediate_size"] * c["num_shared_experts"])
    finish(s, False)
    rename(s, ".embed_tokens.", ".word_embeddings.")
    s.linears = [k.replace(".embed_tokens", ".word_embeddings") for k in s.linears]


FAMILIES = {f.__name__: f for f in (
    qwen2_moe, qwen3_moe, qwen3_vl_moe, qwen3_next, qwen3_5_moe, mixtral, olmoe, glm4_moe, deepseek, deepseek_v2, deepseek_v3,
    hunyuan, jamba, phimoe, minimax_m2, granitemoe, granitemoehybrid, gpt_oss, dots1, ernie4_5_moe, Klear,
    bailing_moe)}
FAMILIES.update(glm4_moe_lite=deepseek_v3, kimi_k2=deepseek_v3)
RAW_FP8 = {"deepseek_v3", "kimi_k2", "minimax_m2"}
# what has the layout G, G-T or L when raw; the others keep one tensor an expert
RAW_STACKED = {"qwen3_5_moe": "G", "qwen3_vl_moe": "G-T", "granitemoe": "L", "granitemoehybrid": "L"}
RAW_W = {"mixtral", "phimoe", "minimax_m2"}


# --- layouts ----------------------------------------------------------------------------------------------------------

def quantised(s, per_expert=False, mode=None):
    """-> Raw tensors in MLX's layout, and the config's quantization section"""
    mode = mode or s.pick("affine", "affine", "affine", "mixed", "mixed", "mxfp4", "nvfp4", "mxfp8")
    dtype = s.pick("F32", "F16", "BF16")
    if per_expert or s.family in ("phimoe",):
        mode = "affine"
    bits, group = s.pick(2, 3, 4, 5, 6, 8), s.pick(32, 64, 128)
    if s.small:
        bits, group = s.pick(3, 4, 5), 32
    if mode in ("mxfp4", "nvfp4", "mxfp8"):
        bits, group = (8 if mode == "mxfp8" else 4), (16 if mode == "nvfp4" else 32)
    section = {"bits": bits, "group_size": group}
    if mode not in ("affine", "mixed") or s.chance():
        section["mode"] = "affine" if mode == "mixed" else mode
    s.notes.append(f"MLX {mode} {bits} bit group {group} {dtype}")
    out = {}
    for module in s.linears:
        w = s.tensors[module + ".weight"]
        if s.small and w.shape[-1] % 64 == 0 and mode == "mixed":
            group = 64
        b, g, m = bits, group, "affine" if mode == "mixed" else mode
        gate = module.endswith((".gate", ".router", ".shared_expert_gate", ".router.layer"))
        if gate and m != "affine" or mode == "mixed" and s.chance(0.6):
            b, g, m = s.pick(2, 3, 4, 5, 6, 8), s.pick(32, 64, 128), "affine"
            if gate and mode != "mixed":
                b = 8
            section[module] = {"bits": b, "group_size": g}
        if w.shape[-1] % g or (mode == "mixed" and s.chance(0.1)):
            section.pop(module, None)
            if s.chance(0.3):
                section[module] = False
            continue
        parts = checkpoint.quantise_affine(w, b, g, dtype) if m == "affine" else checkpoint.quantise_floating(w, m)
        out.update({f"{module}.{k}": v for k, v in parts.items()})
    for name, w in s.tensors.items():
        if name not in out:
            kept = name.endswith(("_bias", ".A_log")) and dtype != "F32"
            out[name] = checkpoint.store(w, "F32" if kept else dtype)
    return out, section


def unstack(s, tensors):
    """S -> P: one module an expert."""
    out = {}
    for name, raw in tensors.items():
        head, dot, tail = name.replace(".mlp.experts.", ".mlp.switch_mlp.").partition(".switch_mlp.")
        if not dot:
            out[name] = raw
            continue
        proj, kind = tail.split(".", 1)
        proj = W_NAMES[proj] if s.family in RAW_W else proj
        for e in range(raw.array.shape[0]):
            out[f"{head}.experts.{e}.{proj}.{kind}"] = Raw(raw.array[e], raw.dtype)
    return out


def raw_stacks(s, tensors, style):
    out = dict(tensors)
    for name in list(tensors):
        head, dot, _ = name.partition(".switch_mlp.gate_proj.weight")
        if not dot:
            continue
        gate, up, down = (out.pop(f"{head}.switch_mlp.{p}_proj.weight") for p in ("gate", "up", "down"))
        both = np.concatenate([gate.array, up.array], 1)
        if style == "L":
            out[head + ".input_linear.weight"] = Raw(both, gate.dtype)
            out[head + ".output_linear.weight"] = down
            continue
        turn = (0, 2, 1) if style == "G-T" else (0, 1, 2)
        out[head + ".experts.gate_up_proj"] = Raw(both.transpose(turn), gate.dtype)
        out[head + ".experts.down_proj"] = Raw(down.array.transpose(turn), down.dtype)
    return out


def raw_names(s, tensors):
    """The other differences of the original: conv axes, norms stored as w where 1 + w is meant, prefixes, extra tensors."""
    out = {}
    minus_one = s.family in ("qwen3_next", "qwen3_5_moe")
    for name, raw in tensors.items():
        if name.endswith("conv1d.weight"):
            raw = Raw(raw.array.transpose(0, 2, 1), raw.dtype)
        if minus_one and raw.array.ndim == 1 and name.endswith("norm.weight") and ".linear_attn." not in name:
            raw = checkpoint.store(checkpoint.value(raw) - 1, raw.dtype)
        if name.startswith("language_model.model."):
            name = "model.language_model." + name[len("language_model.model."):]
        elif name.startswith("language_model."):
            name = name[len("language_model."):]
        out[name] = raw
    extra = Raw(np.ones((2, 2), np.float32), "F32")
    layers = s.config.get("num_hidden_layers")
    if s.root != "model.":
        out["model.visual.blocks.0.attn.qkv.weight"] = extra
    if minus_one:
        out["mtp.layers.0.mlp.gate.weight"] = extra
    elif layers and s.family in ("glm4_moe", "glm4_moe_lite", "deepseek_v3", "kimi_k2", "dots1"):
        out[f"model.layers.{layers}.eh_proj.weight"] = extra
        out["model.layers.0.self_attn.rotary_emb.inv_freq"] = Raw(np.ones(4, np.float32), "F32")
    return out


def mxfp4_blocks(tensors):
    """gpt-oss as published: gate and up rows alternate, codes in blocks of 32 columns."""
    out = dict(tensors)
    for name in list(tensors):
        p, dot, _ = name.partition(".gate_proj.weight")
        if not dot:
            continue
        for kind in ("weight", "bias"):
            gate, up, down = (out.pop(f"{p}.{m}_proj.{kind}") for m in ("gate", "up", "down"))
            both = np.stack([gate.array, up.array], 2).reshape(gate.array.shape[0], -1, *gate.array.shape[2:])
            for module, raw in (("gate_up_proj", Raw(both, gate.dtype)), ("down_proj", down)):
                if kind == "bias":
                    out[f"{p}.{module}_bias"] = raw
                    continue
                q = checkpoint.quantise_floating(checkpoint.value(raw), "mxfp4")
                codes = q["weight"].array.view(np.uint8)
                out[f"{p}.{module}_blocks"] = Raw(codes.reshape(*codes.shape[:-1], -1, 16), "U8")
                out[f"{p}.{module}_scales"] = q["scales"]
    return out


def split_back(s, tensors):
    """embed_q and unembed_out -> kv_b_proj"""
    out = dict(tensors)
    for name in list(tensors):
        p, dot, _ = name.partition(".embed_q.weight")
        if dot:
            q, v = out.pop(name), out.pop(p + ".unembed_out.weight")
            both = np.concatenate([q.array.transpose(0, 2, 1), v.array], 1)
            out[p + ".kv_b_proj.weight"] = Raw(both.reshape(-1, both.shape[-1]), q.dtype)
    return out


def original(s):
    """-> Raw tensors as Hugging Face has them"""
    dtype = s.pick("F16", "BF16") if s.small else s.pick("F32", "F16", "BF16")
    fp8 = s.family in RAW_FP8 and s.chance(0.4)
    s.notes.append(f"raw {'fp8' if fp8 else dtype}")
    out = split_back(s, {k: checkpoint.store(v, dtype) for k, v in s.tensors.items()})
    if s.family == "gpt_oss":
        s.config["quantization_config"] = {"quant_method": "mxfp4"}
        return mxfp4_blocks(out)
    style = RAW_STACKED.get(s.family)
    out = raw_stacks(s, out, style) if style else unstack(s, out)
    if fp8:
        for name in [n for n in out if n.endswith("proj.weight") or ".experts." in n]:
            parts = checkpoint.quantise_fp8_blocks(checkpoint.value(out.pop(name)))
            out.update({name[:-len("weight")] + k: v for k, v in parts.items()})
    return raw_names(s, out)


def generate(family, seed, folder, layout=None, small=False):
    """layout: "raw", "mlx", "old" (MLX, one module an expert) or the mode of an MLX one; None: any. small: a few tens of
    kilobytes. -> the notes on what is special"""
    rng = np.random.default_rng([seed, sum(family.encode())])
    s = Sketch(family, rng, small)
    FAMILIES[family](s)
    layout = layout or s.pick("mlx", "mlx", "mlx", "raw", "raw", "old")
    if layout == "old" and (family in RAW_STACKED or family in ("gpt_oss", "dots1", "Klear")):
        layout = "mlx"
    if layout == "raw":
        tensors = original(s)
    else:
        tensors, section = quantised(s, layout == "old", None if layout in ("mlx", "old") else layout)
        if layout == "old":
            tensors = unstack(s, tensors)
            s.notes.append("one module an expert")
        s.config["quantization"] = s.config["quantization_config"] = section
    shards = 1 if small else s.pick(1, 1, 2, 3)
    if shards > 1:
        s.notes.append(f"{shards} shards")
    checkpoint.write_folder(folder, s.config, tensors, rng, shards)
    notes = f"{family} seed {seed}: " + ", ".join(s.notes)
    with open(os.path.join(folder, "about.txt"), "w") as f:
        f.write(notes + "\n")
    return notes


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("family", nargs="?", choices=sorted(FAMILIES))
    ap.add_argument("seed", nargs="?", type=int, default=0)
    ap.add_argument("-o", metavar="DIR")
    ap.add_argument("--layout", help="raw, mlx, old, or a mode: affine, mixed, mxfp4, nvfp4, mxfp8 (default: any)")
    ap.add_argument("--small", action="store_true", help="as small as the fixtures of tests/")
    ap.add_argument("--list", action="store_true", help="print the families")
    opt = ap.parse_args()
    if opt.list:
        print("\n".join(sorted(FAMILIES)))
        return 0
    if not opt.family or not opt.o:
        ap.error("give FAMILY, SEED and -o DIR, or --list")
    print(generate(opt.family, opt.seed, opt.o, opt.layout, opt.small))
    return 0


if __name__ == "__main__":
    sys.exit(main())
