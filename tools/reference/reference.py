#!/usr/bin/env python3
"""A slow float64 forward pass of every model family, one token at a time: the yardstick for the C code.

    reference.py FOLDER --ids FILE.json [--logits OUT.f32] [--routing hf|mlx]
    reference.py --check SET                 every folder of SET that has a golden.json

Shares nothing with the C code: no chunks, no caches of experts, no kernels, every weight dequantised where it is used.
Router weights follow Hugging Face; --routing mlx gives mlx-lm's where the two differ (Hunyuan, Jamba, PhiMoE)."""
import argparse
import functools
import json
import os
import sys

import numpy as np

import checkpoint

RENAMED = {"kimi_k2": "deepseek_v3", "joyai_llm_flash": "deepseek_v3", "minimax_m2": "minimax", "solar_open": "glm4_moe",
           "qwen3_vl_moe": "qwen3_moe", "qwen3_vl_moe_text": "qwen3_moe", "qwen3_5_moe_text": "qwen3_5_moe",
           "qwen3_5": "qwen3_5_moe", "hunyuan_v1_moe": "hunyuan"}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def softplus(x):
    return np.logaddexp(0, x)


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def rms(x, w, eps):
    return w * x / np.sqrt((x * x).mean(-1, keepdims=True) + eps)


class Margin:
    """How close the closest decision was: below about 1e-5 float32 may rightly choose another expert."""
    least = np.inf

    @classmethod
    def note(cls, difference):
        cls.least = min(cls.least, float(abs(difference)))


def top(scores, k):
    """Indices of the k largest, equal ones by the lower index."""
    order = np.argsort(-scores, kind="stable")
    if k < len(scores):
        Margin.note(scores[order[k - 1]] - scores[order[k]])
    return order[:k]


# --- positions --------------------------------------------------------------------------------------------------------

def yarn_mscale(factor, m):
    return 1.0 if factor <= 1 else 0.1 * m * np.log(factor) + 1


def rope_table(dims, base, scaling, config):
    """-> (freqs[dims/2]: a pair's angle is position / freq, factor on the rotated vector)"""
    i = np.arange(0, dims, 2) / dims
    freqs = base ** i
    s = scaling or {}
    kind = s.get("type") or s.get("rope_type") or "default"
    if kind == "linear":
        return freqs * s["factor"], 1.0
    if kind == "llama3":
        old = s.get("original_max_position_embeddings", 8192)
        lo, hi = s.get("low_freq_factor", 1.0), s.get("high_freq_factor", 4.0)
        wave = 2 * np.pi * freqs
        smooth = (old / wave - lo) / (hi - lo)
        between = freqs / ((1 - smooth) / s["factor"] + smooth)
        return np.where(wave > old / lo, freqs * s["factor"], np.where(wave < old / hi, freqs, between)), 1.0
    if kind in ("yarn", "deepseek_yarn"):
        f, old = s["factor"], s.get("original_max_position_embeddings", 4096)

        def turn(r):
            return dims * np.log(old / (2 * np.pi * r)) / (2 * np.log(base))
        low, high = turn(s.get("beta_fast", 32)), turn(s.get("beta_slow", 1))
        if s.get("truncate", True):
            low, high = np.floor(low), np.ceil(high)
        low, high = max(low, 0), min(high, dims - 1)
        if low == high:
            high += 0.001
        m = 1 - np.clip((np.arange(dims // 2) - low) / (high - low), 0, 1)
        scale = yarn_mscale(f, s.get("mscale", 1)) / yarn_mscale(f, s.get("mscale_all_dim", 0))
        return 1 / (m / freqs + (1 - m) / (f * freqs)), s.get("attention_factor") or scale
    if kind == "longrope":
        old = config.get("original_max_position_embeddings") or s["original_max_position_embeddings"]
        ratio = config.get("max_position_embeddings", 131072) / old
        auto = np.sqrt(1 + np.log(ratio) / np.log(old)) if ratio > 1 else 1.0
        return freqs * np.array(s["long_factor"]), s.get("long_mscale") or s.get("attention_factor") or auto
    if kind == "dynamic" and s.get("alpha"):
        return (base * s["alpha"] ** (dims / (dims - 2))) ** i, 1.0
    if kind in ("default", "mrope"):
        return freqs, 1.0
    raise ValueError(f"rope_scaling type {kind}")


def rotate(x, pos, table, interleaved=False):
    """x [heads, dims] with dims = 2 * len(freqs) all rotating"""
    freqs, m = table
    cos, sin = np.cos(pos / freqs), np.sin(pos / freqs)
    x = x * m
    a, b = (x[:, 0::2], x[:, 1::2]) if interleaved else np.split(x, 2, axis=1)
    ra, rb = a * cos - b * sin, a * sin + b * cos
    if not interleaved:
        return np.concatenate([ra, rb], 1)
    out = np.empty_like(x)
    out[:, 0::2], out[:, 1::2] = ra, rb
    return out


# --- the model --------------------------------------------------------------------------------------------------------

class Model:
    def __init__(self, folder, routing="hf"):
        whole, self.tensors = checkpoint.read_folder(folder)
        self.config = {**whole, **whole.get("text_config", {})}
        self.kind = RENAMED.get(self.config["model_type"], self.config["model_type"])
        self.routing = routing
        for name in ("floats", "matrix", "blocks", "expert"):  # each weight is decoded once
            setattr(self, name, functools.lru_cache(maxsize=None)(getattr(self, name)))
        embeds = [n for n in self.tensors if n.endswith((".embed_tokens.weight", ".word_embeddings.weight"))]
        self.root = embeds[0].rsplit(".", 2)[0] + "."
        self.embedding = embeds[0][:-len(".weight")]
        self.raw_norms = self.kind in ("qwen3_next", "qwen3_5_moe") and any(
            n.endswith("conv1d.weight") and t.array.shape[-1] != 1 for n, t in self.tensors.items())
        self.state = {}
        self.pos = 0
        c = self.config
        self.hidden = c["hidden_size"]
        self.eps = c.get("rms_norm_eps", 1e-6 if self.kind != "phimoe" else 1e-6)
        self.n_layers = c["num_hidden_layers"]
        rope = c.get("rope_parameters") or {}
        self.theta = rope.get("rope_theta") or c.get("rope_theta") or {"mixtral": 1e6, "qwen2_moe": 1e6,
                                                                     "glm4_moe_lite": 1e6}.get(self.kind, 10000.0)
        self.scaling = c.get("rope_scaling") or (rope if rope.get("rope_type", "default") != "default" else None)
        self.partial = rope.get("partial_rotary_factor") or c.get("partial_rotary_factor")

    # weights

    def floats(self, name):
        return checkpoint.value(self.tensors[name])

    def norm_weight(self, name):
        return self.floats(name) + (1 if self.raw_norms and not name.endswith("linear_attn.norm.weight") else 0)

    def matrix(self, module, cols):
        t = self.tensors
        w = t.get(module + ".weight") or t[module]
        if module + ".scales" in t:
            return checkpoint.dequantise(w, t[module + ".scales"], t.get(module + ".biases"), cols)
        if module + ".weight_scale_inv" in t:
            return checkpoint.dequantise_fp8_blocks(w, t[module + ".weight_scale_inv"])
        return checkpoint.value(w)

    def blocks(self, module):
        """mxfp4 as gpt-oss publishes it: [.., columns / 32, 16] bytes"""
        codes, scales = self.tensors[module + "_blocks"], self.tensors[module + "_scales"]
        words = np.ascontiguousarray(codes.array.reshape(*codes.array.shape[:-2], -1)).view(np.uint32)
        return checkpoint.dequantise(checkpoint.Raw(words, "U32"), scales, None, words.shape[-1] * 8)

    def linear(self, module, x):
        y = self.matrix(module, x.shape[-1]) @ x
        return y + self.floats(module + ".bias") if module + ".bias" in self.tensors else y

    def has(self, module):
        return module + ".weight" in self.tensors

    def expert(self, moe, e, width):
        """gate, up [I, H] and down [H, I], wherever they are"""
        h, t = self.hidden, self.tensors
        for stack in ("switch_mlp", "experts"):
            if self.has(f"{moe}.{stack}.gate_proj"):
                m = [self.matrix(f"{moe}.{stack}.{p}_proj", h if p != "down" else width)[e] for p in ("gate", "up", "down")]
                return m
        for names in (("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2")):
            if self.has(f"{moe}.experts.{e}.{names[0]}"):
                return [self.matrix(f"{moe}.experts.{e}.{n}", h if i < 2 else width) for i, n in enumerate(names)]
        if f"{moe}.experts.gate_up_proj_blocks" in t:
            both, down = (self.blocks(f"{moe}.experts.{n}")[e] for n in ("gate_up_proj", "down_proj"))
            return [both[0::2], both[1::2], down]
        if f"{moe}.experts.gate_up_proj" in t:
            both, down = (self.matrix(f"{moe}.experts.{n}", 0)[e] for n in ("gate_up_proj", "down_proj"))
            if self.config["model_type"].startswith(("qwen3_vl_moe", "llama4")):
                both, down = both.T, down.T
            return [both[:width], both[width:], down]
        both = self.matrix(f"{moe}.input_linear", h)[e]
        return [both[:width], both[width:], self.matrix(f"{moe}.output_linear", width)[e]]

    # blocks

    def mlp(self, module, x):
        return self.linear(module + ".down_proj", silu(self.linear(module + ".gate_proj", x)) * self.linear(module + ".up_proj", x))

    def heads(self, q, key, value_, layer, scale, sinks=None, window=None):
        """q [nq, d] against the cache of this layer, to which key and value [nkv, d] are added first"""
        cache = self.state.setdefault((layer, "kv"), [])
        cache.append((key, value_))
        seen = cache if window is None else cache[-window:]
        k, v = (np.stack([entry[i] for entry in seen]) for i in (0, 1))
        out = []
        for j in range(len(q)):
            g = j // (len(q) // k.shape[1])
            s = scale * (k[:, g] @ q[j])
            if sinks is not None:
                s = np.append(s, sinks[j])
            p = softmax(s)[:len(seen)]
            out.append(p @ v[:, g])
        return np.stack(out)

    def gqa(self, n, x):
        c, kind, p = self.config, self.kind, f"{self.root}layers.{n}.self_attn"
        if kind == "bailing_moe":
            p = f"{self.root}layers.{n}.attention"
        nq = c["num_attention_heads"]
        nkv = c.get("num_key_value_heads") or nq
        own = kind in ("mixtral", "qwen2_moe", "hunyuan", "jamba", "phimoe", "granitemoe", "granitemoehybrid", "deepseek")
        hd = self.hidden // nq if own else c.get("head_dim") or self.hidden // nq
        if kind == "bailing_moe":
            q, k, v = np.split(self.linear(p + ".query_key_value", x), [nq * hd, (nq + nkv) * hd])
        else:
            q = self.linear(p + ".q_proj", x)
        gate = None
        if kind in ("qwen3_next", "qwen3_5_moe"):
            q, gate = (part.reshape(-1) for part in np.split(q.reshape(nq, 2 * hd), 2, axis=1))
        if kind == "hunyuan" and c.get("use_cla") and n % c.get("cla_share_factor", 2):
            k, v = self.state["shared kv"]
        elif kind != "bailing_moe":
            k, v = self.linear(p + ".k_proj", x), self.linear(p + ".v_proj", x)
            self.state["shared kv"] = k, v
        if kind in ("olmoe", "minimax") and (kind == "olmoe" or c.get("use_qk_norm", True)):
            q = rms(q, self.floats(p + ".q_norm.weight"), self.eps)
            k = rms(k, self.floats(p + ".k_norm.weight"), self.eps)
        if kind == "olmoe" and c.get("clip_qkv"):
            q, k, v = (np.clip(t, -c["clip_qkv"], c["clip_qkv"]) for t in (q, k, v))
        q, k, v = q.reshape(nq, hd), k.reshape(nkv, hd), v.reshape(nkv, hd)
        if kind == "bailing_moe" and c.get("use_qk_norm"):
            q = rms(q, self.floats(p + ".query_layernorm.weight"), self.eps)
            k = rms(k, self.floats(p + ".key_layernorm.weight"), self.eps)
        if kind in ("qwen3_moe", "qwen3_next", "qwen3_5_moe", "dots1", "Klear") or (kind == "glm4_moe" and c.get("use_qk_norm")):
            q = rms(q, self.norm_weight(p + ".q_norm.weight"), self.eps)
            k = rms(k, self.norm_weight(p + ".k_norm.weight"), self.eps)
        if not (kind == "jamba" or (kind == "granitemoehybrid" and c.get("position_embedding_type", "rope") == "nope")):
            dims = c["rotary_dim"] if kind == "minimax" else int(hd * (self.partial or 1))
            table = rope_table(dims, self.theta, self.scaling, c)
            q, k = (np.concatenate([rotate(t[:, :dims], self.pos, table, kind == "ernie4_5_moe"), t[:, dims:]], 1) for t in (q, k))
        if kind == "hunyuan" and c.get("use_qk_norm"):
            q = rms(q, self.floats(p + ".query_layernorm.weight"), self.eps)
            k = rms(k, self.floats(p + ".key_layernorm.weight"), self.eps)
        scale = c["attention_multiplier"] if kind.startswith("granite") else hd ** -0.5
        sinks = window = None
        if kind == "gpt_oss":
            sinks = self.floats(p + ".sinks")
            types = c.get("layer_types") or ["sliding_attention", "full_attention"] * self.n_layers
            window = c["sliding_window"] if types[n] == "sliding_attention" else None
        out = self.heads(q, k, v, n, scale, sinks, window).reshape(-1)
        if kind == "bailing_moe":
            return self.linear(p + ".dense", out)
        return self.linear(p + ".o_proj", out if gate is None else out * sigmoid(gate))

    def mla(self, n, x):
        c, p = self.config, f"{self.root}layers.{n}.self_attn"
        nq, lora, nope, qr, vh = (c[k] for k in ("num_attention_heads", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
        eps = self.eps if self.kind == "glm4_moe_lite" else 1e-6
        if c.get("q_lora_rank"):
            q = self.linear(p + ".q_b_proj", rms(self.linear(p + ".q_a_proj", x), self.floats(p + ".q_a_layernorm.weight"), eps))
        else:
            q = self.linear(p + ".q_proj", x)
        q = q.reshape(nq, nope + qr)
        kv = self.linear(p + ".kv_a_proj_with_mqa", x)
        latent = rms(kv[:lora], self.floats(p + ".kv_a_layernorm.weight"), eps)
        table = rope_table(qr, self.theta, self.scaling, c)
        q_pe = rotate(q[:, nope:], self.pos, table, True)
        k_pe = rotate(kv[None, lora:], self.pos, table, True)[0]
        if self.has(p + ".kv_b_proj"):
            b = self.matrix(p + ".kv_b_proj", lora).reshape(nq, nope + vh, lora)
            wk, wv = b[:, :nope], b[:, nope:]
        else:
            wk = self.matrix(p + ".embed_q", nope).transpose(0, 2, 1)
            wv = self.matrix(p + ".unembed_out", lora)
        scale = (nope + qr) ** -0.5
        s = self.scaling or {}
        if s.get("mscale_all_dim"):
            scale *= yarn_mscale(s["factor"], s["mscale_all_dim"]) ** 2
        key = np.concatenate([wk @ latent, np.tile(k_pe, (nq, 1))], 1)
        out = self.heads(np.concatenate([q[:, :nope], q_pe], 1), key, wv @ latent, n, scale)
        return self.linear(p + ".o_proj", out.reshape(-1))

    def conv(self, key, module, x):
        w = self.floats(module + ".weight")
        w = w.reshape(w.shape[0], -1)
        past = self.state.setdefault(key, [np.zeros_like(x)] * (w.shape[1] - 1))
        past.append(x)
        self.state[key] = past[-(w.shape[1] - 1):] if w.shape[1] > 1 else []
        y = (np.stack(past[-w.shape[1]:], 1) * w).sum(1)
        return silu(y + (self.floats(module + ".bias") if module + ".bias" in self.tensors else 0))

    def delta(self, n, x):
        c, p = self.config, f"{self.root}layers.{n}.linear_attn"
        nv, nk, dk, dv = (c["linear_" + k] for k in ("num_value_heads", "num_key_heads", "key_head_dim", "value_head_dim"))
        r, kd, vd = nv // nk, nk * dk, nv * dv
        if self.kind == "qwen3_next":
            m = self.linear(p + ".in_proj_qkvz", x).reshape(nk, 2 * dk + 2 * r * dv)
            q, k, v, z = (t.reshape(-1) for t in np.split(m, [dk, 2 * dk, 2 * dk + r * dv], 1))
            ba = self.linear(p + ".in_proj_ba", x).reshape(nk, 2 * r)
            b, a = ba[:, :r].reshape(-1), ba[:, r:].reshape(-1)
            mixed = np.concatenate([q, k, v])
        else:
            mixed, z, b, a = (self.linear(f"{p}.in_proj_{t}", x) for t in ("qkv", "z", "b", "a"))
        q, k, v = np.split(self.conv((n, "conv"), p + ".conv1d", mixed), [kd, 2 * kd])
        q, k, v, z = q.reshape(nk, dk), k.reshape(nk, dk), v.reshape(nv, dv), z.reshape(nv, dv)
        q = q / np.sqrt((q * q).mean(1, keepdims=True) + 1e-6) / dk
        k = k / np.sqrt((k * k).mean(1, keepdims=True) + 1e-6) / np.sqrt(dk)
        beta = sigmoid(b)
        decay = np.exp(-np.exp(self.floats(p + ".A_log")) * softplus(a + self.floats(p + ".dt_bias")))
        S = self.state.setdefault((n, "S"), np.zeros((nv, dv, dk)))
        out = np.empty((nv, dv))
        for j in range(nv):
            g = j // r
            S[j] *= decay[j]
            S[j] += np.outer((v[j] - S[j] @ k[g]) * beta[j], k[g])
            out[j] = S[j] @ q[g]
        out = rms(out, self.floats(p + ".norm.weight"), self.eps) * silu(z)
        return self.linear(p + ".out_proj", out.reshape(vd))

    def mamba1(self, n, x):
        c, p = self.config, f"{self.root}layers.{n}.mamba"
        ds = c["mamba_d_state"]
        rank = c.get("mamba_dt_rank", "auto")
        rank = -(-self.hidden // 16) if rank == "auto" else rank
        u, z = np.split(self.linear(p + ".in_proj", x), 2)
        u = self.conv((n, "conv"), p + ".conv1d", u)
        dt, B, C = np.split(self.linear(p + ".x_proj", u), [rank, rank + ds])
        dt, B, C = (rms(t, self.floats(f"{p}.{k}_layernorm.weight"), self.eps) for t, k in ((dt, "dt"), (B, "b"), (C, "c")))
        dt = softplus(self.linear(p + ".dt_proj", dt))
        A = -np.exp(self.floats(p + ".A_log"))
        S = self.state.get((n, "S"), 0) * np.exp(dt[:, None] * A) + (dt * u)[:, None] * B
        self.state[n, "S"] = S
        return self.linear(p + ".out_proj", (S @ C + self.floats(p + ".D") * u) * silu(z))

    def mamba2(self, n, x):
        c, p = self.config, f"{self.root}layers.{n}.mamba"
        nh, dh, ds, g = (c["mamba_" + k] for k in ("n_heads", "d_head", "d_state", "n_groups"))
        di = nh * dh
        gate, mixed, dt = np.split(self.linear(p + ".in_proj", x), [di, 2 * di + 2 * g * ds])
        u, B, C = np.split(self.conv((n, "conv"), p + ".conv1d", mixed), [di, di + g * ds])
        u, B, C = u.reshape(nh, dh), B.reshape(g, ds), C.reshape(g, ds)
        limit = c.get("time_step_limit") or (0, np.inf)
        dt = np.clip(softplus(dt + self.floats(p + ".dt_bias")), *limit)
        decay = np.exp(-np.exp(self.floats(p + ".A_log")) * dt)
        D = self.floats(p + ".D")
        S = self.state.setdefault((n, "S"), np.zeros((nh, dh, ds)))
        y = np.empty((nh, dh))
        for h in range(nh):
            S[h] = decay[h] * S[h] + dt[h] * np.outer(u[h], B[h // (nh // g)])
            y[h] = S[h] @ C[h // (nh // g)] + D[h] * u[h]
        y = rms(y.reshape(di) * silu(gate), self.floats(p + ".norm.weight"), self.eps)
        return self.linear(p + ".out_proj", y)

    # routers: -> (experts, weights)

    def noaux(self, logits, bias, k, config_norm, scale, single=False, scored=False):
        """single: also a single chosen expert is normalised; scored: the logits are scores already"""
        c = self.config
        s = logits if scored else sigmoid(logits)
        choice = s + bias
        groups = c.get("n_group") or 1
        if groups > 1:
            grouped = choice.reshape(groups, -1)
            score = np.sort(grouped, 1)[:, -2:].sum(1)
            kept = top(score, c["topk_group"])
            for g in set(range(groups)) - set(kept):
                grouped[g] = 0
            choice = grouped.reshape(-1)
        e = top(choice, k)
        w = s[e]
        if config_norm and (k > 1 or single):
            w = w / (w.sum() + 1e-20)
        return e, w * scale

    def sparsemixer(self, logits):
        jitter, rest, picked, weights = 0.01, logits.copy(), [], []
        for _ in range(2):
            best = int(np.argmax(rest))
            distance = (rest[best] - logits) / np.maximum(np.abs(logits), rest[best])
            Margin.note(np.abs(distance - 2 * jitter).min())
            Margin.note(np.diff(np.sort(rest[np.isfinite(rest)])[-2:]).min(initial=np.inf))
            kept = np.where((distance <= 2 * jitter) & np.isfinite(rest), rest, -np.inf)
            picked.append(best)
            weights.append(softmax(kept)[best])
            rest[best] = -np.inf
        return np.array(picked), np.array(weights)

    def route(self, n, moe, x):
        c, kind = self.config, self.kind
        k = c.get("num_experts_per_tok")
        if kind == "hunyuan":
            k = c["moe_topk"][n] if isinstance(c["moe_topk"], list) else c["moe_topk"]
        gate = {"hunyuan": ".gate.wg", "jamba": ".router", "gpt_oss": ".router", "granitemoe": ".router.layer",
                "granitemoehybrid": ".router.layer",
                "bailing_moe": ".gate.gate_proj" if self.has(moe + ".gate.gate_proj") else ".gate"}.get(kind, ".gate")
        logits = self.linear(moe + gate, x)
        if kind in ("glm4_moe", "glm4_moe_lite", "deepseek_v3", "dots1"):
            bias = self.floats(moe + ".gate.e_score_correction_bias")
            scale = c.get("routed_scaling_factor", 1.8 if kind == "glm4_moe_lite" else 1.0)
            return self.noaux(logits, bias, k, c.get("norm_topk_prob", True), scale)
        if kind == "Klear":
            s = sigmoid(logits)
            e = top(s + self.floats(moe + ".expert_bias"), k)
            return e, s[e] / s[e].sum() if c.get("norm_topk_prob") else s[e]
        if kind == "bailing_moe":
            s = sigmoid(logits) if c.get("score_function") == "sigmoid" else softmax(logits)
            name = moe + ".gate.expert_bias"
            bias = self.floats(name) if name in self.tensors else 0
            return self.noaux(s, bias, k, c.get("norm_topk_prob"), c.get("routed_scaling_factor", 1.0), scored=True)
        if kind == "minimax":
            return self.noaux(logits, self.floats(moe + ".e_score_correction_bias"), k, True, 1.0, single=True)
        if kind == "phimoe" and self.routing == "hf":
            return self.sparsemixer(logits)
        p = softmax(logits)
        if kind == "ernie4_5_moe":
            k = c["moe_k"]
            bias = moe + ".moe_statics.e_score_correction_bias"
            e = top(p + (self.floats(bias).reshape(-1) if bias in self.tensors else 0), k)
            return e, p[e] / max(p[e].sum(), 1e-12)
        if kind == "deepseek_v2" and c.get("topk_method") == "group_limited_greedy":
            grouped = p.reshape(c["n_group"], -1).copy()
            kept = top(grouped.max(1), c["topk_group"])
            for g in set(range(c["n_group"])) - set(kept):
                grouped[g] = 0
            e = top(grouped.reshape(-1), k)
            return e, p[e] * c["routed_scaling_factor"]
        e = top(p, k)
        w = p[e]
        if kind == "deepseek_v2":
            return e, w * (c.get("routed_scaling_factor") or 1.0)
        normalise = {"qwen3_moe": c.get("norm_topk_prob", False), "qwen3_next": c.get("norm_topk_prob", False),
                     "qwen3_5_moe": c.get("norm_topk_prob", True), "olmoe": c.get("norm_topk_prob", False),
                     "hunyuan": self.routing == "hf" and k > 1, "jamba": self.routing == "mlx",
                     "qwen2_moe": False, "deepseek": False}.get(kind, True)
        return e, w / w.sum() if normalise else w

    def expert_out(self, moe, e, x, width):
        gate, up, down = self.expert(moe, e, width)
        if self.kind != "gpt_oss":
            return down @ (silu(gate @ x) * (up @ x))
        if f"{moe}.experts.gate_up_proj_bias" in self.tensors:
            both = self.floats(f"{moe}.experts.gate_up_proj_bias")[e]
            bias = [both[0::2], both[1::2], self.floats(f"{moe}.experts.down_proj_bias")[e]]
        else:
            bias = [self.floats(f"{moe}.experts.{p}_proj.bias")[e] for p in ("gate", "up", "down")]
        limit = self.config.get("swiglu_limit", 7.0)
        g, u = np.minimum(gate @ x + bias[0], limit), np.clip(up @ x + bias[1], -limit, limit)
        return down @ ((u + 1) * g * sigmoid(1.702 * g)) + bias[2]

    def moe(self, n, module, x):
        c, kind = self.config, self.kind
        width = c.get("moe_intermediate_size") or c["intermediate_size"]
        if isinstance(width, list):
            width = width[n]
        if kind in ("mixtral", "olmoe", "minimax", "jamba", "phimoe", "granitemoe", "granitemoehybrid", "gpt_oss"):
            width = c["intermediate_size"]
        experts, weights = self.route(n, module, x)
        y = sum(w * self.expert_out(module, int(e), x, width) for e, w in zip(experts, weights))
        for shared in ("shared_expert", "shared_experts", "shared_mlp"):
            if self.has(f"{module}.{shared}.gate_proj"):
                s = self.mlp(f"{module}.{shared}", x)
                if self.has(module + ".coefficient"):
                    routed, c2 = softmax(self.linear(module + ".coefficient", x))
                    y, s = y * routed, s * c2
                if self.has(module + ".shared_expert_gate"):
                    s = s * sigmoid(self.linear(module + ".shared_expert_gate", x))
                y = y + s
        return y

    def feed_forward(self, n, x):
        layer = f"{self.root}layers.{n}"
        if self.kind == "jamba":
            module = layer + ".feed_forward"
            return self.moe(n, module, x) if self.has(module + ".router") else self.mlp(module, x)
        if self.kind in ("mixtral", "phimoe", "minimax", "granitemoe", "granitemoehybrid"):
            y = 0
            if self.has(layer + ".block_sparse_moe.gate") or self.has(layer + ".block_sparse_moe.router.layer"):
                y = self.moe(n, layer + ".block_sparse_moe", x)
            if self.has(layer + ".shared_mlp.input_linear"):
                g, u = np.split(self.linear(layer + ".shared_mlp.input_linear", x), 2)
                y = y + self.linear(layer + ".shared_mlp.output_linear", silu(g) * u)
            return y + (self.mlp(layer + ".mlp", x) if self.has(layer + ".mlp.gate_proj") else 0)
        module = layer + ".mlp"
        dense = self.has(module + ".gate_proj")
        return self.mlp(module, x) if dense else self.moe(n, module, x)

    def mixer(self, n, x):
        layer = f"{self.root}layers.{n}"
        if self.has(layer + ".self_attn.kv_a_proj_with_mqa"):
            return self.mla(n, x)
        if self.has(layer + ".self_attn.o_proj") or self.kind == "bailing_moe":
            return self.gqa(n, x)
        if self.has(layer + ".linear_attn.out_proj"):
            return self.delta(n, x)
        return self.mamba1(n, x) if self.kind == "jamba" else self.mamba2(n, x)

    def norm(self, name, x):
        if self.kind != "phimoe":
            return rms(x, self.norm_weight(name + ".weight"), self.eps)
        x = x - x.mean()
        return self.floats(name + ".weight") * x / np.sqrt((x * x).mean() + self.eps) + self.floats(name + ".bias")

    def step(self, token):
        """Logits after this token; the model remembers it."""
        c, root = self.config, self.root
        x = self.matrix(self.embedding, self.hidden)[token] * (c.get("embedding_multiplier") or 1)
        residual = c.get("residual_multiplier") or 1
        second = "pre_ff_layernorm" if self.kind == "jamba" else "post_attention_layernorm"
        for n in range(self.n_layers):
            layer = f"{root}layers.{n}."
            x = x + residual * self.mixer(n, self.norm(layer + "input_layernorm", x))
            x = x + residual * self.feed_forward(n, self.norm(layer + second, x))
        self.pos += 1
        x = self.norm(root + ("final_layernorm" if self.kind == "jamba" else "norm"), x)
        for head in ("lm_head", "language_model.lm_head", self.embedding):
            if self.has(head) and not (head != self.embedding and self.tied()):
                return self.linear(head, x) / (c.get("logits_scaling") or 1)
        raise KeyError("lm_head")

    def tied(self):
        default = self.kind in ("olmoe", "jamba", "granitemoe", "granitemoehybrid", "hunyuan")
        if self.kind == "hunyuan":
            return True
        return self.config.get("tie_word_embeddings", default)


def logits(folder, tokens, routing="hf"):
    model = Model(folder, routing)
    return np.stack([model.step(t) for t in tokens])


def check(folder_set):
    worst = 0.0
    for name in sorted(os.listdir(folder_set)):
        path = os.path.join(folder_set, name, "golden.json")
        if not os.path.isfile(path):
            continue
        with open(path) as f:
            golden = json.load(f)
        for routing, key in (("mlx", "logits"), ("hf", "logits_hf_routing")):
            if key in golden:
                want = np.array(golden[key])
                error = np.abs(logits(os.path.dirname(path), golden["tokens"], routing) - want).max() / np.abs(want).max()
                worst = max(worst, error)
                print(f"{name:32} {routing:4} {error:.1e}", flush=True)
    print(f"worst {worst:.1e}")
    return 0 if worst < 1e-5 else 1


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("folder", nargs="?")
    ap.add_argument("--ids", help="a JSON array of token ids")
    ap.add_argument("--logits", help="write [tokens][vocab] little-endian float32")
    ap.add_argument("--routing", choices=("hf", "mlx"), default="hf")
    ap.add_argument("--check", metavar="SET")
    opt = ap.parse_args()
    if opt.check:
        return check(opt.check)
    if not opt.folder or not opt.ids:
        ap.error("give FOLDER and --ids, or --check SET")
    with open(opt.ids) as f:
        rows = logits(opt.folder, json.load(f), opt.routing)
    if opt.logits:
        rows.astype("<f4").tofile(opt.logits)
    for row in rows:
        print(int(row.argmax()), f"{row.max():.6f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
