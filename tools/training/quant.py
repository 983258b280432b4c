"""MLX affine quantisation of a tensor's last axis, for training (straight through) and for export."""
import torch


def affine(w, bits=4, group=64):
    """-> codes (float, [groups, group]), scale and bias ([groups, 1], rounded to bfloat16 as they are stored)"""
    g = w.float().reshape(-1, group)
    n = (1 << bits) - 1
    high, low = g.amax(1, keepdim=True), g.amin(1, keepdim=True)
    low_edge = low.abs() > high.abs()
    scale = ((high - low) / n).clamp_min(1e-7)
    scale = torch.where(low_edge, scale, -scale)
    edge = torch.where(low_edge, low, high)
    at_edge = torch.round(edge / scale)
    used = at_edge != 0
    scale = torch.where(used, edge / torch.where(used, at_edge, torch.ones_like(at_edge)), scale)
    bias = torch.where(used, edge, torch.zeros_like(edge))
    scale, bias = scale.bfloat16().float(), bias.bfloat16().float()
    return torch.round((g - bias) / scale).clamp(0, n), scale, bias


def fake_quantise(w, bits=4, group=64):
    """The value that will be read back, with the gradient of w."""
    codes, scale, bias = affine(w, bits, group)
    stored = (codes * scale + bias).reshape(w.shape)
    return w + (stored - w).detach()
