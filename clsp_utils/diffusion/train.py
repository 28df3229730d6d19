"""Training of the diffusion model (method step 1): the UNet predicts the noise (eps)."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, UNet2DModel
from diffusers.training_utils import EMAModel, compute_snr
from torch import Tensor
from tqdm import tqdm

from clsp_utils import runtime
from clsp_utils.config import SNAPSHOTS, Diffusion
from clsp_utils.data import recolour, to_diffusion_range
from clsp_utils.diffusion.unet import BETAS, build_unet, decode, encode, hide, noise_schedule

LABEL_DROPOUT = 0.1  # share of images whose condition a model does not see (2207.12598)


def condition_size(condition: np.ndarray | None) -> tuple[int, int]:
    """How many classes a condition `(N,)` has, and how many numbers a vector of one `(N, D)`.

    What it is not is 0: `build_unet` then builds a UNet without.
    """
    if condition is None:
        return 0, 0
    return (int(condition.max()) + 1, 0) if condition.ndim == 1 else (0, condition.shape[1])


def train(
    cfg: Diffusion,
    images: np.ndarray,
    seed: int,
    work: Path,
    precision: str,
    condition: np.ndarray | None = None,
    unconditional: UNet2DModel | None = None,
    section: str = "diffusion",
    beta_end: float = BETAS["beta_end"],
    condition_lr: float = 1.0,
) -> tuple[UNet2DModel, np.ndarray]:
    """Trains the UNet by `w_t || eps - eps_theta(x_t, t) ||^2`; resumes from `work` if it can.

    w_t is `min_snr_weight`; 1 where `cfg.snr_gamma` is 0, as in the paper.

    A share `cfg.recoloured_pairs` of each batch are pairs: one image in two random colourings, at
    one t, under two noises. The two exchange their mid-block features. Loss and learning rate go to
    `log.csv` in `work`, a row per epoch; the averaged weights after each of `SNAPSHOTS` go to
    `snapshot_0.safetensors` and so on.

    Args:
        images: uint8 `(N, H, W, 3)`.
        condition: makes the model conditional: classes `(N,)`, where -1 is "no class", or fp32
            vectors `(N, D)`.
        unconditional: a model of the same shape, from whose weights a conditional one goes on; the
            condition says nothing at first. None = from random weights.
        section: of the profile, which an error message names.
        beta_end: the last of the betas of the noise.
        condition_lr: learning rate of the condition's own weights, as a multiple of `cfg.lr`.

    Returns:
        The UNet with averaged (EMA) weights, in eval mode on the CPU, and the loss of every step,
        `(steps,)`.

    Raises:
        runtime.Diverged: the loss is not finite.
    """
    device, share = runtime.device(), runtime.my_share()
    with torch.random.fork_rng():
        torch.manual_seed(runtime.seed_for(seed, "unet weights"))
        unet = build_unet(cfg.unet, images.shape[1], *condition_size(condition), beta_end)
    if unconditional is not None:
        unet.load_state_dict(unconditional.state_dict(), strict=False)  # they lack a condition
        torch.nn.init.zeros_(unet.class_embedding.weight)
    runtime.to_device(unet)
    others = [x for name, x in unet.named_parameters() if not name.startswith("class_embedding.")]
    groups: list[dict] = [{"params": others}]
    if condition is not None:
        own_weights = list(unet.class_embedding.parameters())
        groups.append({"params": own_weights, "lr_factor": condition_lr})
    optimizer = torch.optim.AdamW(groups, lr=cfg.lr, weight_decay=cfg.weight_decay, fused=True)
    # All tensors at once where each would be a kernel of its own; on CPUs it rounds otherwise.
    ema = EMAModel(unet.parameters(), decay=cfg.ema_decay, foreach=device.type == "cuda")
    schedule = noise_schedule(unet)
    losses, per_epoch = torch.zeros(cfg.steps), max(1, len(images) // cfg.batch)
    checkpoint = runtime.Checkpoint(
        work, {"unet": unet, "optimizer": optimizer, "ema": ema}, {"losses": losses}
    )
    start = checkpoint.restore()
    ema.to(device)
    pixels = torch.from_numpy(images)
    advice = f"{section}.lr={cfg.lr:g}"  # what to lower if it diverges

    def lr(step: int) -> float:
        if cfg.schedule == "constant":
            return cfg.lr * runtime.warmup_constant(step, cfg.warmup)
        return cfg.lr * runtime.warmup_cosine(step, cfg.steps, cfg.warmup)

    # Rows of the batch: pairs are n_pairs apart; then plain images. A process takes its share of
    # each part, so that pairs stay together.
    n_pairs = int(cfg.recoloured_pairs / 2 * cfg.batch)
    parts = pairwise((0, n_pairs, 2 * n_pairs, cfg.batch))
    sections = [share.rows(torch.arange(a, b)) for a, b in parts]
    own = torch.cat(sections)
    one, other, plain = torch.arange(len(own), device=device).split([len(x) for x in sections])
    first, second, paired = slice(n_pairs), slice(n_pairs, 2 * n_pairs), slice(2 * n_pairs)

    def draw(step: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """This process's images, noise, times and condition, on the device."""
        g = runtime.generator(seed, "diffusion", step)
        pick = torch.randint(len(pixels), (cfg.batch,), generator=g)
        pick[second] = pick[first]
        shown = pixels[pick]
        if n_pairs:
            shown[paired] = recolour(shown[paired], runtime.generator(seed, "colours", step))
        x = to_diffusion_range(shown)
        if cfg.flip:
            mirrored = torch.rand(len(x), 1, 1, 1, generator=g) < 0.5
            mirrored[second] = mirrored[first]
            x = torch.where(mirrored, x.flip(3), x)
        noise = torch.randn(x.shape, generator=g)
        t = torch.randint(1000, (len(x),), generator=g)
        t[second] = t[first]
        given = None
        if condition is not None:
            hidden = torch.rand(len(x), generator=g) < LABEL_DROPOUT
            given = hide(unet, torch.from_numpy(condition)[pick], hidden)[own].to(device)
        x, noise, t = (runtime.upload(part[own], device) for part in (x, noise, t))
        return x, noise, t, given

    unet.train()
    batch = None
    for step in tqdm(
        range(start, cfg.steps),
        "diffusion",
        initial=start,
        total=cfg.steps,
        leave=False,
        disable=share.rank > 0,
    ):
        torch.manual_seed(runtime.seed_for(seed, "dropout", step) + share.rank)
        x, noise, t, given = batch or draw(step)
        with runtime.autocast(device, precision):
            h, skips, temb = encode(unet, schedule.add_noise(x, noise, t), t, given)
            predicted = decode(unet, h[torch.cat([other, one, plain])], skips, temb)
        error = (predicted.float() - noise).square().mean((1, 2, 3))
        loss = (error * min_snr_weight(schedule, t, cfg.snr_gamma)).mean()
        loss = loss * (len(own) * share.world / cfg.batch)  # shares may differ by some rows
        runtime.set_lr(optimizer, lr(step))
        optimizer.zero_grad()
        loss.backward()
        share.average_gradients(unet.parameters())
        torch.nn.utils.clip_grad_norm_(unet.parameters(), cfg.clip)
        optimizer.step()
        ema.step(unet.parameters())
        # While a GPU is still at this step, whose loss is waited for below.
        batch = draw(step + 1) if step + 1 < cfg.steps else None
        for i, part in enumerate(SNAPSHOTS):
            if step + 1 == max(1, round(part * cfg.steps)) and share.rank == 0:
                _keep_snapshot(unet, ema, work / f"snapshot_{i}.safetensors", advice)
        losses[step] = share.mean(loss).item()
        if share.rank == 0 and ((step + 1) % per_epoch == 0 or step + 1 == cfg.steps):
            runtime.write_log(work / "log.csv", step, per_epoch, losses, lr)
        checkpoint.after_step(step, losses[step].item(), advice)
    ema.copy_to(unet.parameters())
    return unet.to("cpu", memory_format=torch.contiguous_format).eval(), losses.numpy()


def _keep_snapshot(unet: UNet2DModel, ema: EMAModel, path: Path, advice: str) -> None:
    """Writes the averaged weights; the UNet has its own again afterwards, bit for bit."""
    ema.store(unet.parameters())
    ema.copy_to(unet.parameters())
    runtime.save_weights(unet, path, advice)
    ema.restore(unet.parameters())


def min_snr_weight(schedule: DDPMScheduler, t: Tensor, gamma: float) -> Tensor:
    """`min(SNR, gamma) / SNR` of steps `(B,)` for eps-prediction (2303.09556); 1 for gamma 0."""
    if gamma == 0:
        return torch.ones(len(t), device=t.device)
    snr = compute_snr(schedule, t)
    return snr.clamp(max=gamma) / snr
