"""Networks of others, written from their descriptions, and how a test damages them."""

import math

import torch
from diffusers import UNet2DModel
from torch import nn
from torch.nn import functional as F


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@torch.no_grad()
def randomised(net, gain=1.0):
    """Every parameter and statistic random: zeros and ones would hide a mistake."""
    g = seeded()
    for name, value in [*net.named_parameters(), *net.named_buffers()]:
        if not value.is_floating_point() or name == TABLE:
            continue
        if value.dim() > 1:
            value.copy_(torch.randn(value.shape, generator=g) * gain / math.sqrt(value[0].numel()))
        elif name.endswith(("weight", "running_var")):
            value.copy_(0.5 + torch.rand(value.shape, generator=g))
        else:
            value.copy_(torch.randn(value.shape, generator=g) * 0.3)
    return net.eval()


# The authors' UNet, written from its description (method, section 4) ------------------------------

TABLE = "time_embedding.timembedding.0.weight"


class Residual(nn.Module):
    def __init__(self, c_in, c_out, d_temb, attends, groups):
        super().__init__()
        self.block1 = nn.Sequential(
            nn.GroupNorm(groups, c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, padding=1)
        )
        self.temb_proj = nn.Sequential(nn.SiLU(), nn.Linear(d_temb, c_out))
        self.block2 = nn.Sequential(
            nn.GroupNorm(groups, c_out),
            nn.SiLU(),
            nn.Dropout(0.1),
            nn.Conv2d(c_out, c_out, 3, padding=1),
        )
        self.shortcut = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)
        self.attn = Attention(c_out, groups) if attends else nn.Identity()

    def forward(self, x, temb):
        h = self.block1(x) + self.temb_proj(temb)[:, :, None, None]
        return self.attn(self.block2(h) + self.shortcut(x))


class Attention(nn.Module):
    def __init__(self, c, groups):
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, c)
        self.proj_q, self.proj_k, self.proj_v, self.proj = (nn.Conv2d(c, c, 1) for _ in range(4))

    def forward(self, x):
        y = self.group_norm(x)
        q, k, v = (f(y).flatten(2) for f in (self.proj_q, self.proj_k, self.proj_v))  # (B, C, H W)
        weights = torch.einsum("bci,bcj->bij", q, k).mul(x.shape[1] ** -0.5).softmax(2)
        return x + self.proj(torch.einsum("bij,bcj->bci", weights, v).view_as(x))


class Resampling(nn.Module):
    def __init__(self, c, up):
        super().__init__()
        self.up, self.main = up, nn.Conv2d(c, c, 3, stride=1 if up else 2, padding=1)

    def forward(self, x, temb):
        return self.main(F.interpolate(x, scale_factor=2, mode="nearest") if self.up else x)


class AuthorsUNet(nn.Module):
    def __init__(self, channels, attention=(), groups=8, width_temb=4, blocks=2):
        super().__init__()
        d, d_temb = channels[0], channels[0] * width_temb
        table = torch.zeros(1000, d)
        for i in range(d // 2):
            angle = torch.arange(1000) * math.exp(-math.log(10000) * 2 * i / d)
            table[:, 2 * i], table[:, 2 * i + 1] = angle.sin(), angle.cos()
        self.time_embedding = nn.Module()
        self.time_embedding.timembedding = nn.Sequential(
            nn.Embedding.from_pretrained(table),
            nn.Linear(d, d_temb),
            nn.SiLU(),
            nn.Linear(d_temb, d_temb),
        )
        self.encoder, self.decoder = nn.Module(), nn.Module()
        self.encoder.head = nn.Conv2d(3, d, 3, padding=1)
        self.encoder.downblocks, self.decoder.upblocks = nn.ModuleList(), nn.ModuleList()
        c, skips = d, [d]
        for level, c_out in enumerate(channels):
            for _ in range(blocks):
                self.encoder.downblocks.append(
                    Residual(c, c_out, d_temb, level in attention, groups)
                )
                c = c_out
                skips.append(c)
            if level < len(channels) - 1:
                self.encoder.downblocks.append(Resampling(c, up=False))
                skips.append(c)
        self.encoder.middleblocks = nn.ModuleList(
            [Residual(c, c, d_temb, True, groups), Residual(c, c, d_temb, False, groups)]
        )
        self.encoder.projector = nn.Sequential(
            nn.Linear(c, 5), nn.ReLU(), nn.Linear(5, 4)
        )  # never run
        for level, c_out in reversed(list(enumerate(channels))):
            for _ in range(blocks + 1):
                self.decoder.upblocks.append(
                    Residual(c + skips.pop(), c_out, d_temb, level in attention, groups)
                )
                c = c_out
            if level > 0:
                self.decoder.upblocks.append(Resampling(c, up=True))
        self.decoder.tail = nn.Sequential(
            nn.GroupNorm(groups, c), nn.SiLU(), nn.Conv2d(c, 3, 3, padding=1)
        )

    def encode(self, x, t):
        temb = self.time_embedding.timembedding(t)
        x = self.encoder.head(x)
        skips = [x]
        for block in self.encoder.downblocks:
            x = block(x, temb)
            skips.append(x)
        for block in self.encoder.middleblocks:
            x = block(x, temb)
        return x, skips, temb

    def decode(self, h, skips, temb):
        skips = list(skips)
        for block in self.decoder.upblocks:
            h = block(torch.cat([h, skips.pop()], 1) if isinstance(block, Residual) else h, temb)
        assert not skips
        return self.decoder.tail(h)

    def forward(self, x, t):
        return self.decode(*self.encode(x, t))


def authors(channels=(8, 16), **more):
    return randomised(AuthorsUNet(channels, **more))


def batch(t, seed=0, size=16):
    return torch.randn(2, 3, size, size, generator=seeded(seed)), torch.full((2,), t)


def without(*names):
    return lambda tensors: {key: value for key, value in tensors.items() if key not in names}


def plus(name, *shape):
    return lambda tensors: {**tensors, name: torch.zeros(shape)}


def one_sentence(error):
    text = str(error.value)
    assert text.endswith(".") and "\n" not in text and len(text) < 400
    assert error.value.__suppress_context__ or error.value.__context__ is None


WRAPPED = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"state_dict": s, "epoch": 3},
    "model": lambda s: {"model": s, "optimizer": {"state": {}}},
    "ema before model": lambda s: {"model": {key: 0 * value for key, value in s.items()}, "ema": s},
    "DataParallel": lambda s: {"module." + key: value for key, value in s.items()},
    "nested": lambda s: {
        "model": {"state_dict": {"module._orig_mod." + key: value for key, value in s.items()}}
    },
}

TINY = dict(
    block_out_channels=(8,),
    down_block_types=("DownBlock2D",),
    up_block_types=("UpBlock2D",),
    norm_num_groups=4,
)


def tiny_unet(**more):
    return randomised(UNet2DModel(**(TINY | more)))
