"""The UNet and its middle: build it, read it, silence it, mix it (paper, section 3).

A UNet is cut in two at its middle: `encode` runs the encoder half and the mid-block, `decode` the
decoder half. Between the two, the features can be changed; that is all that CLSP does to a
diffusion model. `decode(unet, *encode(unet, x, t))` equals `unet(x, t)` bit for bit.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from clsp_utils.config import UNetShape
from clsp_utils.runtime import compiled_on_cuda, upload

# Linear betas from 1e-4 to 0.02, as in DDPM (arXiv 2006.11239).
BETAS: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02,
}  # fmt: skip
# Where betas end elsewhere the UNet says so in its settings, for whoever samples from it. A name
# that begins like this diffusers keeps with the others, and does not read.
BETA_END = "_beta_end"


class Features(NamedTuple):
    """What the encoder half hands to the decoder half.

    Attributes:
        h: mid-block output `(B, C, h, w)`.
        skips: skip connections in the order in which the encoder made them, `(B, C_i, h_i, w_i)`.
        temb: time embedding `(B, D)`.
    """

    h: Tensor
    skips: tuple[Tensor, ...]
    temb: Tensor


def betas_of(unet: UNet2DModel) -> dict[str, Any]:
    """The schedule that a UNet was trained with, as diffusers' schedulers take it."""
    return BETAS | {"beta_end": unet.config.get(BETA_END, BETAS["beta_end"])}


def noise_schedule(unet: UNet2DModel | None = None) -> DDPMScheduler:
    """The schedule of a UNet (None: `BETAS`); `add_noise(x0, noise, t)` noises images."""
    return _schedule((BETAS if unet is None else betas_of(unet))["beta_end"])


@cache
def _schedule(beta_end: float) -> DDPMScheduler:
    return DDPMScheduler(**BETAS | {"beta_end": beta_end})


def build_unet(
    shape: UNetShape,
    size: int,
    n_classes: int = 0,
    n_features: int = 0,
    beta_end: float = BETAS["beta_end"],
) -> UNet2DModel:
    """diffusers' UNet for `size` x `size` RGB images; the mid-block has single-head attention.

    With `n_classes` it is conditional, and class number `n_classes` stands for "no class". With
    `n_features` it is conditioned on vectors r of so many numbers: W r is added to the time
    embedding (arXiv 2312.03701). W is zero at the start, where the UNet is thus an unconditional
    one, and r = 0 stands for "no vector". Its noise is that of `BETAS`, or of others that end at
    `beta_end`.
    """
    sides = [size // 2**i for i in range(len(shape.channels))]
    attends = [side in shape.attention for side in sides]
    unet = UNet2DModel(
        sample_size=size,
        block_out_channels=shape.channels,
        layers_per_block=shape.layers,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        norm_num_groups=shape.groups,
        attention_head_dim=None,
        dropout=shape.dropout,
        num_class_embeds=n_classes + 1 if n_classes else None,
        class_embed_type="identity" if n_features else None,
    )
    if beta_end != BETAS["beta_end"]:
        unet.register_to_config(**{BETA_END: beta_end})
    if n_features:  # W takes the place of the identity: it is trained and saved with the rest
        width = unet.time_embedding.linear_2.out_features
        unet.class_embedding = nn.Linear(n_features, width, bias=False)
        nn.init.zeros_(unet.class_embedding.weight)
    return unet


def hide(unet: UNet2DModel, condition: Tensor, hidden: Tensor) -> Tensor:
    """The condition, where it is hidden replaced by what stands for none (see `build_unet`).

    Args:
        condition: classes `(B,)`, of which -1 are hidden too; or vectors `(B, D)`.
        hidden: `(B,)`, whether a row is hidden.
    """
    if condition.is_floating_point():
        return condition.masked_fill(hidden[:, None], 0)
    return condition.masked_fill(hidden | (condition < 0), unet.config.num_class_embeds - 1)


@compiled_on_cuda
def encode(
    unet: UNet2DModel, x: Tensor, t: Tensor | int, condition: Tensor | None = None
) -> Features:
    """Runs the encoder half and the mid-block.

    Args:
        x: noised images `(B, 3, H, W)`, in the diffusion range [-1, 1] before noising.
        t: time step(s) in 0..T-1, a number or `(B,)`.
        condition: classes `(B,)` or vectors `(B, D)` for a conditional model.
    """
    n = x.shape[0]  # not len(x), which an exported graph would hold as a constant
    t = torch.as_tensor(t, device=x.device).expand(n)
    temb = unet.time_embedding(unet.time_proj(t).to(unet.dtype))
    if condition is not None:
        temb = temb + unet.class_embedding(condition)
    x = unet.conv_in(x)
    skips = [x]
    for block in unet.down_blocks:
        x, new = block(hidden_states=x, temb=temb)
        skips += new
    return Features(unet.mid_block(x, temb), tuple(skips), temb)


@compiled_on_cuda
def decode(unet: UNet2DModel, h: Tensor, skips: tuple[Tensor, ...], temb: Tensor) -> Tensor:
    """Runs the decoder half; returns the predicted noise `(B, 3, H, W)`."""
    for block in unet.up_blocks:
        n = len(block.resnets)
        skips, own = skips[:-n], skips[-n:]
        h = block(h, own, temb)
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(h)))


@torch.inference_mode()
def level_outputs(unet: UNet2DModel, x: Tensor, t: Tensor | int) -> dict[str, Tensor]:
    """What each level hands on: "encoder 1" and so on, "middle", "decoder 1" and so on.

    In the order in which an image passes through them. "middle" is the h of `encode`; the last
    decoder level hands on to the output layer.

    Args:
        x: noised images `(B, 3, H, W)`; t: their time step(s), a number or `(B,)`.

    Returns:
        name -> `(B, C_i, h_i, w_i)`.
    """
    levels = {
        **{f"encoder {i}": block for i, block in enumerate(unet.down_blocks, 1)},
        "middle": unet.mid_block,
        **{f"decoder {i}": block for i, block in enumerate(unet.up_blocks, 1)},
    }
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(block: nn.Module, arguments: tuple, output: Any) -> None:
            found[name] = output[0] if isinstance(output, tuple) else output  # else with skips

        return hook

    hooks = [block.register_forward_hook(keep(name)) for name, block in levels.items()]
    try:
        unet(x, t)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def encode_noised(unet: UNet2DModel, x0: Tensor, t: Tensor | int, g: Generator) -> Features:
    """Noises clean images to step t with fresh noise and encodes them.

    Args:
        x0: `(B, 3, H, W)` in [-1, 1], on the UNet's device.
        t: one time step in 0..T-1 for all of them.
        g: draws the noise, on the CPU, so that it is the same on every device.
    """
    steps = torch.as_tensor(t, device=x0.device).expand(len(x0))
    return encode(unet, noise_schedule(unet).add_noise(x0, noise_for(x0, g), steps), t)


def noise_for(x: Tensor, g: Generator) -> Tensor:
    """Standard normal noise of the shape of `x`, on its device, drawn by `g` on the CPU.

    A GPU goes on with what it has to do while it is drawn.
    """
    return upload(torch.randn(x.shape, generator=g), x.device)


def mix(h: Tensor, h_anchor: Tensor, mix_weight: float) -> Tensor:
    """`w * h + (1 - w) * h_anchor` (paper, eq. 4): w = 1 is the noise branch, w = 0 the anchor."""
    return torch.lerp(h_anchor, h, mix_weight)


def pool(h: Tensor, size: int) -> Tensor:
    """Averages `(B, C, h, w)` to `size x size` and flattens: `(B, C * size * size)`, fp32."""
    return F.adaptive_avg_pool2d(h.float(), size).flatten(1)
