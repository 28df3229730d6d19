"""The unconditional diffusion model: build it, train it, sample from it (method step 1).

Images are in [-1, 1]; T = 1000; the UNet predicts the noise (eps).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel
from diffusers.training_utils import EMAModel, compute_snr
from torch import Generator, Tensor
from torch.nn import functional as F
from tqdm import tqdm

from clsp_utils import processes, training
from clsp_utils.bottleneck import Features, decode, encode
from clsp_utils.config import Diffusion, UNet

LABEL_DROPOUT = 0.1  # share of images whose class a conditional model does not see (arXiv 2207.12598)
# Linear betas from 1e-4 to 0.02, as in DDPM (arXiv 2006.11239).
NOISE = {"num_train_timesteps": 1000, "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}


def to_diffusion_range(images: Tensor) -> Tensor:
    """uint8 `(B, H, W, 3)` to fp32 `(B, 3, H, W)` in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """`(B, 3, H, W)` in [-1, 1] to uint8 `(B, H, W, 3)`, rounded."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def build_unet(cfg: UNet, size: int, n_classes: int = 0) -> UNet2DModel:
    """diffusers' UNet for `size` x `size` RGB images; the mid-block has single-head attention.

    With `n_classes` it is conditional, and class number `n_classes` stands for "no class".
    """
    sides = [size // 2**i for i in range(len(cfg.channels))]
    attends = [side in cfg.attention for side in sides]
    return UNet2DModel(
        sample_size=size,
        block_out_channels=cfg.channels,
        layers_per_block=cfg.layers,
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        norm_num_groups=cfg.groups,
        attention_head_dim=None,
        dropout=cfg.dropout,
        num_class_embeds=n_classes + 1 if n_classes else None,
    )


def train(
    cfg: Diffusion, images: np.ndarray, seed: int, work: Path, precision: str, labels: np.ndarray | None = None
) -> tuple[UNet2DModel, np.ndarray]:
    """Trains the UNet by `|| eps - eps_theta(x_t, t) ||^2`; resumes from `work` if it can.

    A share `cfg.second_noise` of each batch are pairs: one image at one t under two noises. The two
    exchange their mid-block features. For a share `cfg.silent_middle` these features are zero. Loss
    and learning rate go to `log.csv` in `work`, a row an epoch.

    Args:
        images: uint8 `(N, H, W, 3)`.
        labels: classes `(N,)` make the model conditional; -1 is "no class".

    Returns:
        The UNet with averaged (EMA) weights, in eval mode on the CPU, and the loss of every step.

    Raises:
        training.Diverged: the loss is not finite.
    """
    device, rank, world = training.device(), processes.rank(), processes.world()
    n_classes = 0 if labels is None else int(labels.max()) + 1
    with torch.random.fork_rng():
        torch.manual_seed(training.seed_for(seed, "unet weights"))
        unet = build_unet(cfg.unet, images.shape[1], n_classes).to(device)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay, fused=True)
    ema = EMAModel(unet.parameters(), decay=cfg.ema_decay)
    noise_schedule = DDPMScheduler(**NOISE)
    losses, per_epoch = torch.zeros(cfg.steps), max(1, len(images) // cfg.batch)
    lr = lambda step: cfg.lr * training.warmup_cosine(step, cfg.steps, cfg.warmup)  # noqa: E731
    parts = {"unet": unet, "optimizer": optimizer, "ema": ema}
    checkpoint = training.Checkpoint(work, parts, {"losses": losses})
    start = checkpoint.restore()
    ema.to(device)
    images = torch.from_numpy(images)

    # Rows of the batch: pairs are n_pairs apart; then plain images, then those with a silent middle.
    # A process takes every world-th row of each part, so that pairs stay together.
    n_pairs, n_silent = (int(share * cfg.batch) for share in (cfg.second_noise / 2, cfg.silent_middle))
    bounds = (0, n_pairs, 2 * n_pairs, cfg.batch - n_silent, cfg.batch)
    sections = [torch.arange(a, b)[rank::world] for a, b in zip(bounds, bounds[1:])]
    own = torch.cat(sections)
    one, other, plain, silent = torch.arange(len(own), device=device).split([len(rows) for rows in sections])

    unet.train()
    for step in tqdm(
        range(start, cfg.steps), "diffusion", initial=start, total=cfg.steps, leave=False, disable=rank > 0
    ):
        g = training.generator(seed, "diffusion", step)
        torch.manual_seed(training.seed_for(seed, "dropout", step) + rank)
        pick = torch.randint(len(images), (cfg.batch,), generator=g)
        x = to_diffusion_range(images[pick])
        if cfg.flip:
            x = torch.where(torch.rand(len(x), 1, 1, 1, generator=g) < 0.5, x.flip(3), x)
        noise = torch.randn(x.shape, generator=g)
        t = torch.randint(1000, (len(x),), generator=g)
        second, first = slice(n_pairs, 2 * n_pairs), slice(n_pairs)
        pick[second], x[second], t[second] = pick[first], x[first], t[first]
        classes = None
        if n_classes:
            dropped = torch.rand(len(x), generator=g) < LABEL_DROPOUT
            classes = torch.from_numpy(labels)[pick]
            classes = classes.masked_fill(dropped | (classes < 0), n_classes)[own].to(device)
        x, noise, t = (training.upload(part[own], device) for part in (x, noise, t))
        with training.autocast(device, precision):
            h, skips, temb = encode(unet, noise_schedule.add_noise(x, noise, t), t, classes)
            h = torch.cat([h[other], h[one], h[plain], torch.zeros_like(h[silent])])
            predicted = decode(unet, h, skips, temb)
        error = (predicted.float() - noise).square().mean((1, 2, 3))
        loss = (error * min_snr_weight(noise_schedule, t, cfg.snr_gamma)).mean()
        training.set_lr(optimizer, lr(step))
        optimizer.zero_grad()
        loss.backward()
        processes.average_gradients(unet.parameters())
        torch.nn.utils.clip_grad_norm_(unet.parameters(), cfg.clip)
        optimizer.step()
        ema.step(unet.parameters())
        losses[step] = processes.mean(loss).item()
        if rank == 0 and ((step + 1) % per_epoch == 0 or step + 1 == cfg.steps):
            training.write_log(work / "log.csv", step, per_epoch, losses, lr)
        checkpoint.after_step(step, losses[step].item(), f"diffusion.lr={cfg.lr:g}")
    ema.copy_to(unet.parameters())
    return unet.cpu().eval(), losses.numpy()


def min_snr_weight(schedule: DDPMScheduler, t: Tensor, gamma: float) -> Tensor:
    """`min(SNR, gamma) / SNR` for eps-prediction (arXiv 2303.09556); 1 where gamma is 0."""
    if gamma == 0:
        return torch.ones(len(t), device=t.device)
    snr = compute_snr(schedule, t)
    return snr.clamp(max=gamma) / snr


Edit = Callable[[Features, Tensor], Features]


@torch.inference_mode()
def sample(
    unet: UNet2DModel,
    noise: Tensor,
    steps: int,
    eta: float | None,
    g: Generator,
    precision: str,
    edit: Edit | None = None,
    labels: Tensor | None = None,
    guidance: float = 0.0,
) -> Tensor:
    """From noise to images, with an optional change of the features at every step.

    By the stochastic DPM-Solver++ of second order (arXiv 2211.01095, 2M, SDE) in equal steps of the
    logarithm of the signal-to-noise ratio, or by DDIM (arXiv 2010.02502), which needs several times
    as many steps, equal in t. Both clip the predicted clean image to [-1, 1] at each step: at large
    t a small error of the predicted noise is a large one of the image, most of all with features
    from elsewhere. DDIM leaves the predicted noise itself as it is.

    Args:
        noise: `(B, 3, H, W)` standard normal. The UNet decides the device.
        steps: a divisor of 1000.
        eta: DDIM's; 0 is deterministic, 1 as noisy as DDPM. None takes DPM-Solver++.
        g: draws the noise that is added at each step; one of the CPU gives the same images on any device.
        edit: `(features, t) -> features`, applied between encoder and decoder half.
        labels: classes `(B,)` for a conditional model, which is then guided without a classifier
            (arXiv 2207.12598): `eps = (1 + guidance) * eps(class) - guidance * eps(no class)`.

    Returns:
        uint8 `(B, H, W, 3)`, on the CPU.
    """
    if eta is None:  # told the clipped clean image
        scheduler = DPMSolverMultistepScheduler(
            **NOISE, use_lu_lambdas=True, prediction_type="sample", algorithm_type="sde-dpmsolver++",
            final_sigmas_type="zero",
        )
    else:
        scheduler = DDIMScheduler(**NOISE, timestep_spacing="trailing", clip_sample=True)
    scheduler.set_timesteps(steps)
    x = noise.to(unet.device)
    if labels is not None:
        labels = torch.cat([labels, torch.full_like(labels, unet.config.num_class_embeds - 1)]).to(x.device)
    with training.autocast(x.device, precision):  # around all steps: weights are rounded once
        for i, t in enumerate(scheduler.timesteps):
            features = encode(unet, x if labels is None else torch.cat([x, x]), t, labels)
            if edit is not None:
                features = edit(features, t)
            eps = decode(unet, *features).float()
            if labels is not None:
                with_class, without = eps.chunk(2)
                eps = with_class + guidance * (with_class - without)
            if eta is None:
                s = scheduler.sigmas[i]  # noise over signal: x = (x0 + s eps) / sqrt(1 + s^2)
                clean = (x * (1 + s**2).sqrt() - s * eps).clamp(-1, 1)
                x = scheduler.step(clean, t, x, generator=g).prev_sample
            else:
                x = scheduler.step(eps, t, x, eta=eta, generator=g).prev_sample
    return to_uint8(x).cpu()
