"""Networks of others, written from their descriptions, and how a test damages them."""

import math
from itertools import pairwise

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


def time_table(d):
    table = torch.zeros(1000, d)
    for i in range(d // 2):
        angle = torch.arange(1000) * math.exp(-math.log(10000) * 2 * i / d)
        table[:, 2 * i], table[:, 2 * i + 1] = angle.sin(), angle.cos()
    return table


def embedding(table, width):
    lookup = nn.Embedding.from_pretrained(table)
    layers = nn.Linear(table.shape[1], width), nn.SiLU(), nn.Linear(width, width)
    return nn.Sequential(lookup, *layers)


class AuthorsUNet(nn.Module):
    def __init__(self, channels, attention=(), groups=8, width_temb=4, blocks=2):
        super().__init__()
        d, d_temb = channels[0], channels[0] * width_temb
        self.time_embedding = nn.Module()
        self.time_embedding.timembedding = embedding(time_table(d), d_temb)
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


# Their conditional UNet, and how they sample from it ----------------------------------------------


class ConditionalResidual(Residual):
    def __init__(self, c_in, c_out, d_temb, attends, groups):
        super().__init__(c_in, c_out, d_temb, attends, groups)
        self.cond_proj = nn.Sequential(nn.SiLU(), nn.Linear(d_temb, c_out))

    def forward(self, x, temb, cemb):
        added = self.temb_proj(temb) + self.cond_proj(cemb)
        h = self.block2(self.block1(x) + added[:, :, None, None])
        return self.attn(h + self.shortcut(x))


class TwoSizesDown(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c1 = nn.Conv2d(c, c, 3, stride=2, padding=1)
        self.c2 = nn.Conv2d(c, c, 5, stride=2, padding=2)

    def forward(self, x, *embeddings):
        return self.c1(x) + self.c2(x)


class TransposedUp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = nn.Conv2d(c, c, 3, padding=1)
        self.t = nn.ConvTranspose2d(c, c, 5, stride=2, padding=2, output_padding=1)

    def forward(self, x, *embeddings):
        return self.c(self.t(x))


class AuthorsConditionalUNet(nn.Module):
    """Attention at all levels of the encoder half, and at none of the decoder half."""

    def __init__(self, channels, n_classes=3, groups=8, blocks=2):
        super().__init__()
        d, d_temb = channels[0], 4 * channels[0]
        self.time_embedding, self.cond_embedding = nn.Module(), nn.Module()
        self.time_embedding.timembedding = embedding(time_table(d), d_temb)
        self.cond_embedding.condEmbedding = embedding(torch.zeros(n_classes + 1, d), d_temb)
        self.head = nn.Conv2d(3, d, 3, padding=1)
        self.downblocks, self.upblocks = nn.ModuleList(), nn.ModuleList()
        c, skips = d, [d]
        for level, c_out in enumerate(channels):
            for _ in range(blocks):
                self.downblocks.append(ConditionalResidual(c, c_out, d_temb, True, groups))
                c = c_out
                skips.append(c)
            if level < len(channels) - 1:
                self.downblocks.append(TwoSizesDown(c))
                skips.append(c)
        attends = (True, False)
        self.middleblocks = nn.ModuleList(
            ConditionalResidual(c, c, d_temb, one, groups) for one in attends
        )
        for level, c_out in reversed(list(enumerate(channels))):
            for _ in range(blocks + 1):
                c += skips.pop()
                self.upblocks.append(ConditionalResidual(c, c_out, d_temb, False, groups))
                c = c_out
            if level > 0:
                self.upblocks.append(TransposedUp(c))
        self.tail = nn.Sequential(nn.GroupNorm(groups, c), nn.SiLU(), nn.Conv2d(c, 3, 3, padding=1))

    def forward(self, x, t, rows):
        """`rows` of the table of classes: class + 1, and 0 for none."""
        both = self.time_embedding.timembedding(t), self.cond_embedding.condEmbedding(rows)
        x = self.head(x)
        skips = [x]
        for block in self.downblocks:
            x = block(x, *both)
            skips.append(x)
        for block in self.middleblocks:
            x = block(x, *both)
        for block in self.upblocks:
            resamples = isinstance(block, TransposedUp)
            x = block(x if resamples else torch.cat([x, skips.pop()], 1), *both)
        return self.tail(x)


@torch.no_grad()
def authors_conditional(channels=(8, 16), **more):
    net = randomised(AuthorsConditionalUNet(channels, **more))
    table = net.time_embedding.timembedding[0].weight
    table += 0.3 * torch.randn(table.shape, generator=seeded())  # they train it
    return net


@torch.no_grad()
def sample_as_the_authors(net, x, classes, steps, eta, guidance, g):
    """Their DDIM, except that the predicted image is clipped at each step, as ours is."""
    alpha_bar = (1 - torch.linspace(1e-4, 0.028, 1000, dtype=torch.float64)).cumprod(0)
    alpha_bar = torch.cat([alpha_bar, torch.ones(1, dtype=torch.float64)])  # that of step -1
    times = torch.linspace(999, -1, steps + 1).round().long().tolist()
    for time, after in pairwise(times):
        t = torch.full((len(x),), time)
        eps = (1 + guidance) * net(x, t, classes + 1) - guidance * net(x, t, 0 * classes)
        now, then = alpha_bar[time], alpha_bar[after]
        clean = ((x - (1 - now).sqrt() * eps) / now.sqrt()).clamp(-1, 1)
        sigma = eta * ((1 - now / then) * (1 - then) / (1 - now)).sqrt()
        noise = torch.randn(x.shape, generator=g) if eta else 0
        x = then.sqrt() * clean + (1 - then - sigma**2).sqrt() * eps + sigma * noise
        x = x.float()
    return x


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
