"""The architecture of flash-moe-tiny for training: qwen3_next (gated DeltaNet, gated attention, routed and shared experts).

Parameters are laid out as in Hugging Face's `qwen3_next`, so that export.py only renames them. With `Config.qat` every matrix
is used as it will be stored (4 or 8 bit), from the first step on."""
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from quant import fake_quantise


class Config:
    vocab_size = 8192
    hidden_size = 384
    num_hidden_layers = 8
    full_attention_interval = 4
    num_attention_heads = 6
    num_key_value_heads = 2
    head_dim = 64
    partial_rotary_factor = 0.25
    rope_theta = 10000.0
    linear_num_key_heads = 3
    linear_num_value_heads = 6
    linear_key_head_dim = 64
    linear_value_head_dim = 64
    linear_conv_kernel_dim = 4
    num_experts = 64
    num_experts_per_tok = 4
    moe_intermediate_size = 128
    shared_expert_intermediate_size = 256
    rms_norm_eps = 1e-6
    aux_coef = 0.004
    qat = False


def rms(x, w, eps):
    x32 = x.float()
    x32 = x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + eps)
    return (x32 * w.float()).to(x.dtype)


class Norm(nn.Module):
    """RMSNorm with a zero-centred weight, y = x/rms(x) * (1 + w), as in the HF checkpoint."""

    def __init__(self, d, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(d))
        self.eps = eps

    def forward(self, x):
        return rms(x, 1.0 + self.weight, self.eps)


class Lin(nn.Linear):
    bits = 4

    def __init__(self, i, o, cfg, bits=4):
        super().__init__(i, o, bias=False)
        self.cfg, self.bits = cfg, bits

    def w(self):
        return fake_quantise(self.weight, self.bits) if self.cfg.qat else self.weight

    def forward(self, x):
        return F.linear(x, self.w().to(x.dtype))


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        h, kv, d = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        self.q_proj = Lin(c.hidden_size, h * d * 2, c)
        self.k_proj = Lin(c.hidden_size, kv * d, c)
        self.v_proj = Lin(c.hidden_size, kv * d, c)
        self.o_proj = Lin(h * d, c.hidden_size, c)
        self.q_norm = Norm(d, c.rms_norm_eps)
        self.k_norm = Norm(d, c.rms_norm_eps)
        self.rot = int(d * c.partial_rotary_factor)
        inv = 1.0 / (c.rope_theta ** (torch.arange(0, self.rot, 2).float() / self.rot))
        self.register_buffer("inv", inv, persistent=False)

    def rope(self, x):
        T = x.shape[2]
        f = torch.arange(T, device=x.device).float()[:, None] * self.inv[None]
        cos, sin = f.cos(), f.sin()
        r, p = x[..., : self.rot].float(), x[..., self.rot :]
        a, b = r.chunk(2, -1)
        r = torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
        return torch.cat([r.to(x.dtype), p], -1)

    def forward(self, x):
        c = self.c
        B, T, _ = x.shape
        h, kv, d = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        q, gate = self.q_proj(x).view(B, T, h, 2 * d).chunk(2, -1)
        k = self.k_proj(x).view(B, T, kv, d)
        v = self.v_proj(x).view(B, T, kv, d).transpose(1, 2)
        q = self.rope(self.q_norm(q).transpose(1, 2))
        k = self.rope(self.k_norm(k).transpose(1, 2))
        k = k.repeat_interleave(h // kv, 1)
        v = v.repeat_interleave(h // kv, 1)
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        o = o.transpose(1, 2).reshape(B, T, h * d)
        return self.o_proj(o * torch.sigmoid(gate.reshape(B, T, h * d)))


def chunk_gated_delta(q, k, v, g, beta, C=64):
    """Gated delta rule, chunked. q,k: [B,H,T,dk] (k,q already l2-normalised, q scaled), v: [B,H,T,dv], g,beta: [B,H,T]."""
    B, H, T, dk = k.shape
    dv = v.shape[-1]
    N = T // C
    q, k, v = (t.float().view(B, H, N, C, -1) for t in (q, k, v))
    g, beta = g.float().view(B, H, N, C), beta.float().view(B, H, N, C, 1)
    gc = g.cumsum(-1)
    decay = (gc[..., :, None] - gc[..., None, :]).tril().exp().tril()
    kb = k * beta
    A = ((kb @ k.transpose(-1, -2)) * decay).tril(-1)
    eye = torch.eye(C, device=k.device, dtype=torch.float32)
    rhs = torch.cat([v * beta, kb * gc.exp()[..., None]], -1)
    sol = torch.linalg.solve_triangular(eye + A, rhs, upper=False, unitriangular=True)
    u, w = sol[..., :dv], sol[..., dv:]
    attn = (q @ k.transpose(-1, -2)) * decay
    qg = q * gc.exp()[..., None]
    last = gc[..., -1:]
    kd = k * (last - gc).exp()[..., None]
    S = torch.zeros(B, H, dk, dv, device=k.device, dtype=torch.float32)
    outs = []
    for i in range(N):
        vn = u[:, :, i] - w[:, :, i] @ S
        outs.append(qg[:, :, i] @ S + attn[:, :, i] @ vn)
        S = S * last[:, :, i, :, None].exp() + kd[:, :, i].transpose(-1, -2) @ vn
    return torch.stack(outs, 2).view(B, H, T, dv)


def recurrent_gated_delta(q, k, v, g, beta):
    """The same rule, token by token: what chunk_gated_delta is checked against (python3 model.py)."""
    B, H, T, dk = k.shape
    S = torch.zeros(B, H, dk, v.shape[-1], dtype=torch.float64)
    q, k, v, g, beta = (t.double() for t in (q, k, v, g, beta))
    outs = []
    for t in range(T):
        S = S * g[:, :, t, None, None].exp()
        mem = (S * k[:, :, t, :, None]).sum(-2)
        delta = (v[:, :, t] - mem) * beta[:, :, t, None]
        S = S + k[:, :, t, :, None] * delta[:, :, None, :]
        outs.append((S * q[:, :, t, :, None]).sum(-2))
    return torch.stack(outs, 2)


class DeltaNet(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.nk, self.nv = c.linear_num_key_heads, c.linear_num_value_heads
        self.dk, self.dv = c.linear_key_head_dim, c.linear_value_head_dim
        self.kd, self.vd = self.nk * self.dk, self.nv * self.dv
        self.cd = 2 * self.kd + self.vd
        self.in_proj_qkvz = Lin(c.hidden_size, 2 * self.kd + 2 * self.vd, c)
        self.in_proj_ba = Lin(c.hidden_size, 2 * self.nv, c)
        self.conv1d = nn.Conv1d(self.cd, self.cd, c.linear_conv_kernel_dim, groups=self.cd, bias=False)
        self.dt_bias = nn.Parameter(torch.zeros(self.nv))
        self.A_log = nn.Parameter(torch.empty(self.nv).uniform_(0.5, 8).log())
        self.norm_weight = nn.Parameter(torch.ones(self.dv))
        self.out_proj = Lin(self.vd, c.hidden_size, c)
        with torch.no_grad():
            dt = torch.exp(torch.rand(self.nv) * (math.log(0.1) - math.log(0.001)) + math.log(0.001))
            self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(self, x):
        B, T, _ = x.shape
        nk, nv, dk, dv = self.nk, self.nv, self.dk, self.dv
        r = nv // nk
        m = self.in_proj_qkvz(x).view(B, T, nk, 2 * dk + 2 * r * dv)
        q, k, v, z = m.split([dk, dk, r * dv, r * dv], -1)
        ba = self.in_proj_ba(x).view(B, T, nk, 2 * r)
        b, a = ba.split([r, r], -1)
        b, a = b.reshape(B, T, nv), a.reshape(B, T, nv)
        z = z.reshape(B, T, nv, dv)
        mixed = torch.cat([q.reshape(B, T, -1), k.reshape(B, T, -1), v.reshape(B, T, -1)], -1)
        K = self.c.linear_conv_kernel_dim
        w = self.conv1d.weight.to(mixed.dtype)  # [C,1,K]
        pad = F.pad(mixed, (0, 0, K - 1, 0))
        mixed = sum(pad[:, j : j + T] * w[:, 0, j] for j in range(K))
        mixed = F.silu(mixed)
        q, k, v = mixed.split([self.kd, self.kd, self.vd], -1)
        q = F.normalize(q.float().view(B, T, nk, dk), dim=-1, eps=1e-6) * dk**-0.5
        k = F.normalize(k.float().view(B, T, nk, dk), dim=-1, eps=1e-6)
        v = v.float().view(B, T, nv, dv)
        q = q.repeat_interleave(r, 2).transpose(1, 2)
        k = k.repeat_interleave(r, 2).transpose(1, 2)
        v = v.transpose(1, 2)
        g = -self.A_log.float().exp() * F.softplus(a.float() + self.dt_bias.float())
        beta = torch.sigmoid(b.float())
        o = chunk_gated_delta(q, k, v, g.transpose(1, 2), beta.transpose(1, 2))
        o = o.transpose(1, 2)  # B,T,nv,dv
        o = rms(o, self.norm_weight, self.c.rms_norm_eps) * F.silu(z.float())
        return self.out_proj(o.reshape(B, T, nv * dv).to(x.dtype))


def grouped(x, w, offs):
    """x [M,D] rows grouped by expert (offs = cumulative ends), w [E,D,O]."""
    if x.is_cuda:
        return torch._grouped_mm(x, w, offs=offs)
    outs, s = [], 0
    for e, t in enumerate(offs.tolist()):
        outs.append(x[s:t] @ w[e])
        s = t
    return torch.cat(outs)


class MoE(nn.Module):
    ALIGN = 16

    def __init__(self, c):
        super().__init__()
        self.c = c
        E, D, I, S = c.num_experts, c.hidden_size, c.moe_intermediate_size, c.shared_expert_intermediate_size
        self.gate = Lin(D, E, c, bits=8)
        self.w_gate = nn.Parameter(torch.empty(E, I, D))
        self.w_up = nn.Parameter(torch.empty(E, I, D))
        self.w_down = nn.Parameter(torch.empty(E, D, I))
        self.shared_gate_proj = Lin(D, S, c)
        self.shared_up_proj = Lin(D, S, c)
        self.shared_down_proj = Lin(S, D, c)
        self.shared_expert_gate = Lin(D, 1, c, bits=8)
        self.counts = None

    def forward(self, x):
        c = self.c
        E, k, A = c.num_experts, c.num_experts_per_tok, self.ALIGN
        B, T, D = x.shape
        xf = x.reshape(-1, D)
        N = xf.shape[0]
        logits = F.linear(xf.float(), self.gate.w().float())
        probs = logits.softmax(-1)
        topw, topi = probs.topk(k, -1)
        topw = topw / topw.sum(-1, keepdim=True)
        flat = topi.reshape(-1)
        counts = torch.zeros(E, device=x.device, dtype=torch.int64).scatter_add(0, flat, torch.ones_like(flat))
        order = flat.argsort(stable=True)
        fs = flat[order]
        start = counts.cumsum(0) - counts
        pad = (counts + A - 1) // A * A
        pend = pad.cumsum(0)
        pstart = pend - pad
        dest = pstart[fs] + torch.arange(N * k, device=x.device) - start[fs]
        M = N * k + E * A
        offs = torch.cat([pend[:-1], torch.full((1,), M, device=x.device, dtype=pend.dtype)]).to(torch.int32)
        src = torch.full((M,), N, device=x.device, dtype=torch.int64).scatter(0, dest, order // k)
        xs = torch.cat([xf, xf.new_zeros(1, D)])[src]
        fq = (lambda w: fake_quantise(w)) if c.qat else (lambda w: w)
        wg, wu, wd = (fq(w).to(x.dtype).transpose(1, 2) for w in (self.w_gate, self.w_up, self.w_down))
        h = F.silu(grouped(xs, wg, offs)) * grouped(xs, wu, offs)
        y = grouped(h, wd, offs)
        inv = torch.empty_like(order).scatter(0, order, dest)  # position of (token, slot) in padded rows
        y = (y[inv].view(N, k, D) * topw[..., None].to(x.dtype)).sum(1)
        s = self.shared_down_proj(F.silu(self.shared_gate_proj(xf)) * self.shared_up_proj(xf))
        y = y + torch.sigmoid(self.shared_expert_gate(xf)) * s
        frac = counts.float() / (N * k)
        aux = E * (frac * probs.mean(0)).sum()
        self.counts = counts.detach()
        return y.view(B, T, D), aux


class Layer(nn.Module):
    def __init__(self, c, i):
        super().__init__()
        self.linear = (i + 1) % c.full_attention_interval != 0
        self.mix = DeltaNet(c) if self.linear else Attention(c)
        self.mlp = MoE(c)
        self.input_layernorm = Norm(c.hidden_size, c.rms_norm_eps)
        self.post_attention_layernorm = Norm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x):
        x = x + self.mix(self.input_layernorm(x))
        y, aux = self.mlp(self.post_attention_layernorm(x))
        return x + y, aux


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c, i) for i in range(c.num_hidden_layers))
        self.norm = Norm(c.hidden_size, c.rms_norm_eps)
        self.lm_head = Lin(c.hidden_size, c.vocab_size, c, bits=8)
        for n, p in self.named_parameters():
            if p.dim() >= 2 and "conv1d" not in n:
                nn.init.normal_(p, std=0.02)
                if n.endswith(("o_proj.weight", "out_proj.weight", "w_down", "shared_down_proj.weight")):
                    nn.init.normal_(p, std=0.02 / math.sqrt(2 * c.num_hidden_layers))

    def hidden(self, ids, dtype=torch.bfloat16):
        x = F.embedding(ids, fake_quantise(self.embed_tokens.weight, 8) if self.c.qat else self.embed_tokens.weight).to(dtype)
        aux = 0.0
        for l in self.layers:
            x, a = l(x)
            aux = aux + a
        return self.norm(x), aux / len(self.layers)

    def forward(self, ids, targets, dtype=torch.bfloat16):
        h, aux = self.hidden(ids, dtype)
        logits = self.lm_head(h).float()
        ce = F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))
        return ce, aux


def check_delta():
    torch.manual_seed(0)
    B, H, T, d = 2, 3, 128, 16
    q, k = (F.normalize(torch.randn(B, H, T, d, dtype=torch.float64), dim=-1) for _ in range(2))
    v, g, beta = torch.randn(B, H, T, d), -torch.rand(B, H, T), torch.rand(B, H, T)
    error = (chunk_gated_delta(q, k, v, g, beta).double() - recurrent_gated_delta(q, k, v, g, beta)).abs().max()
    print(f"chunked and recurrent gated delta rule differ by {error:.1e}")
    return 0 if error < 1e-4 else 1


if __name__ == "__main__":
    raise SystemExit(check_delta())
