"""One training loop for every contrastive method of `methods`.

Under `accelerate launch` the processes share each batch and come to the result of one process (see
`processes`). Batch norm is the exception on CPUs: there each process normalises over its own rows.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from clsp_utils import processes, training
from clsp_utils.config import Pretrain
from clsp_utils.encoders import Encoder
from clsp_utils.losses import clsp_term
from clsp_utils.methods import METHODS, build
from clsp_utils.views import augment


def pretrain(
    cfg: Pretrain,
    images: np.ndarray,
    labels: np.ndarray,
    statistics: tuple,
    work: Path,
    precision: str,
    bank: np.ndarray | None = None,
    watch: Callable[[nn.Module], float] | None = None,
) -> tuple[Encoder, np.ndarray]:
    """Trains an encoder; resumes from `work` if an earlier run was cut off there.

    Anchors, their order and the first two views depend on the seed only, so that methods with the
    same seed are paired.

    Args:
        images: anchors, uint8 `(N, H, W, 3)`; labels: `(N,)`, read by "supervised" and "SupCon" alone.
        statistics: mean and standard deviation of the data set, in [0, 1].
        bank: candidates, uint8 `(N, k, H, W, 3)`; may be memory-mapped. Methods with synthetic or
            class positives need it.
        watch: `backbone -> score`, called every `cfg.watch_every` epochs. Loss, learning rate and
            score go to `log.csv` in `work`, a row an epoch.

    Returns:
        The encoder in eval mode, on the CPU, and the loss of every step.

    Raises:
        training.Diverged: the loss is not finite.
    """
    recipe = METHODS[cfg.method]
    if recipe.needs_bank and bank is None:
        raise ValueError(f"method={cfg.method!r} needs a candidate bank.")
    rank, world = processes.rank(), processes.world()
    batch = min(cfg.batch, len(images)) // world * world
    device = training.device()
    method = build(cfg, int(labels.max()) + 1)
    method = processes.synchronise_batch_norm(method).to(device, memory_format=torch.channels_last)
    project = training.compiled_on_cuda(method.encoder.forward)
    trained = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, cfg.lr, momentum=cfg.momentum, weight_decay=cfg.weight_decay)
    per_epoch = len(images) // batch
    total = cfg.epochs * per_epoch
    lr = lambda step: cfg.lr * training.warmup_cosine(step, total, cfg.warmup * per_epoch)  # noqa: E731
    losses, scores = torch.zeros(total), torch.full((cfg.epochs,), -1.0)
    checkpoint = training.Checkpoint(work, {"method": method, "optimizer": optimizer}, {"losses": losses, "scores": scores})
    start = checkpoint.restore()
    images, labels = torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels)

    method.train()
    for step in tqdm(range(start, total), cfg.method, initial=start, total=total, leave=False, disable=rank > 0):
        epoch, i = divmod(step, per_epoch)
        if i == 0 or step == start:
            order = torch.randperm(len(images), generator=training.generator(cfg.seed, "order", epoch))
        anchors = order[i * batch : (i + 1) * batch]
        x = training.upload(images[anchors[rank::world]], device)
        g = training.generator(cfg.seed, "views", step, device=device)
        views = [augment(x, cfg.views, statistics, g, rank, world) for _ in range(method.n_views)]
        if recipe.third:
            source = x
            if recipe.needs_bank:
                source = draw_candidates(bank, anchors, training.generator(cfg.seed, "candidates", step), rank, world)
                source = training.upload(source, device)
            g = training.generator(cfg.seed, "third view", step, device=device)
            views.append(augment(source, cfg.views, statistics, g, rank, world))
        with training.autocast(device, precision):
            stacked = torch.cat(views).contiguous(memory_format=torch.channels_last)
            z = [processes.gather(own_z) for own_z in project(stacked).chunk(len(views))]
            loss = method.loss(z, views, labels[anchors].to(device))
            if recipe.third:
                weight = cfg.clsp_weight * min(1.0, (step + 1) / (1 + cfg.clsp_ramp * total))
                loss = loss + weight * clsp_term(z[1], z[2])
        training.set_lr(optimizer, lr(step))
        optimizer.zero_grad()
        loss.backward()
        processes.average_gradients(trained)
        optimizer.step()
        method.after_step((step + 1) / total)
        losses[step] = loss.item()
        if i == per_epoch - 1 and rank == 0:
            if watch and cfg.watch_every and (epoch + 1) % cfg.watch_every == 0:
                method.eval()
                scores[epoch] = watch(method.encoder.backbone)
                method.train()
            training.write_log(work / "log.csv", step, per_epoch, losses, lr, scores)
        checkpoint.after_step(step, losses[step].item(), f"{recipe.settings}.lr={cfg.lr:g}")
    return method.encoder.to("cpu", memory_format=torch.contiguous_format).eval(), losses.numpy()


def draw_candidates(
    bank: np.ndarray, anchors: Tensor, g: torch.Generator, rank: int = 0, world: int = 1
) -> Tensor:
    """One candidate of every `world`-th anchor, drawn at random: uint8 `(B / world, H, W, 3)`."""
    pick = torch.randint(bank.shape[1], (len(anchors),), generator=g)
    return torch.from_numpy(bank[anchors[rank::world].numpy(), pick[rank::world].numpy()])
