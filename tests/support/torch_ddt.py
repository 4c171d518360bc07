"""DiT^DH in torch, small and in the reference's tensor names: an oracle for every switch.

Written from SEMANTICS 4.5; the golden files, which the reference itself made, cover its defaults.
"""

import torch
import torch.nn.functional as F
from torch import nn


class RMSNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Attention(nn.Module):
    def __init__(self, width, heads, qk_norm, rms):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        if qk_norm:
            norm = RMSNorm if rms else nn.LayerNorm
            self.q_norm, self.k_norm = norm(width // heads), norm(width // heads)
        else:
            self.q_norm = self.k_norm = nn.Identity()

    def forward(self, x, rope):
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = self.q_norm(qkv[0]), self.k_norm(qkv[1]), qkv[2]
        q, k = (q, k) if rope is None else (rope(q), rope(k))
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, width))


class Rope(nn.Module):
    def __init__(self, head_width, grid):
        super().__init__()
        half = head_width // 2
        frequency = 1.0 / 10000 ** (torch.arange(0, half, 2).float() / half)
        angle = torch.outer(torch.arange(grid).float(), frequency).repeat_interleave(2, dim=1)
        rows = angle[:, None].expand(grid, grid, half)
        columns = angle[None].expand(grid, grid, half)
        angles = torch.cat([rows, columns], dim=-1).reshape(grid * grid, head_width)
        self.register_buffer("freqs_cos", angles.cos())
        self.register_buffer("freqs_sin", angles.sin())

    def forward(self, x):
        turned = torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
        return x * self.freqs_cos + turned * self.freqs_sin


class MLP(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class SwiGLU(nn.Module):
    def __init__(self, width, hidden):
        super().__init__()
        self.w12, self.w3 = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x):
        gate, up = self.w12(x).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * up)


def norm(width, rms):
    return RMSNorm(width) if rms else nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)


def modulation(width, parts):
    return nn.Sequential(nn.SiLU(), nn.Linear(width, parts * width))


class Block(nn.Module):
    def __init__(self, width, heads, ratio, qk_norm, swiglu, rms):
        super().__init__()
        self.norm1, self.norm2 = norm(width, rms), norm(width, rms)
        self.attn = Attention(width, heads, qk_norm, rms)
        hidden = int(width * ratio)
        self.mlp = SwiGLU(width, int(2 / 3 * hidden)) if swiglu else MLP(width, hidden)
        self.adaLN_modulation = modulation(width, 6)

    def forward(self, x, c, rope):
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(c).chunk(6, dim=-1)
        x = x + gate1 * self.attn(self.norm1(x) * (1 + scale1) + shift1, rope)
        return x + gate2 * self.mlp(self.norm2(x) * (1 + scale2) + shift2)


class Embedding(nn.Module):
    def __init__(self, channels, width):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, 1)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class Time(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.W = nn.Parameter(torch.randn(256))
        self.mlp = nn.Sequential(nn.Linear(512, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t):
        angle = 2 * torch.pi * t[:, None] * self.W
        return self.mlp(torch.cat([angle.sin(), angle.cos()], dim=-1))


class Labels(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, width)


class Final(nn.Module):
    def __init__(self, width, channels, rms):
        super().__init__()
        self.norm_final = norm(width, rms)
        self.linear = nn.Linear(width, channels)
        self.adaLN_modulation = modulation(width, 2)


class TorchDDT(nn.Module):
    def __init__(
        self, *, grid, channels, widths, depths, heads, classes, ratio, qk, swiglu, rope, rms, pos
    ):
        super().__init__()
        narrow, wide = widths
        self.grid, self.depths = grid, depths
        self.x_embedder, self.s_embedder = Embedding(channels, wide), Embedding(channels, narrow)
        self.s_projector = nn.Linear(narrow, wide) if narrow != wide else nn.Identity()
        self.t_embedder, self.y_embedder = Time(narrow), Labels(classes, narrow)
        self.final_layer = Final(wide, channels, rms)
        self.pos_embed = nn.Parameter(torch.randn(1, grid * grid, narrow)) if pos else None
        self.enc_feat_rope = Rope(narrow // heads[0], grid) if rope else None
        self.dec_feat_rope = Rope(wide // heads[1], grid) if rope else None
        parts = [0] * depths[0] + [1] * depths[1]
        self.blocks = nn.ModuleList(
            Block(widths[part], heads[part], ratio, qk, swiglu, rms) for part in parts
        )

    def forward(self, x, t, y):
        time = self.t_embedder(t)
        c = F.silu(time + self.y_embedder.embedding_table(y))[:, None]
        s = self.s_embedder(x)
        s = s if self.pos_embed is None else s + self.pos_embed
        for block in self.blocks[: self.depths[0]]:
            s = block(s, c, self.enc_feat_rope)
        s = self.s_projector(F.silu(time[:, None] + s))
        h = self.x_embedder(x)
        for block in self.blocks[self.depths[0] :]:
            h = block(h, s, self.dec_feat_rope)
        shift, scale = self.final_layer.adaLN_modulation(s).chunk(2, dim=-1)
        h = self.final_layer.linear(self.final_layer.norm_final(h) * (1 + scale) + shift)
        return h.transpose(1, 2).reshape(x.shape)
