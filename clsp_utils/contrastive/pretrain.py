"""One training loop for every method.

Under `accelerate launch` the processes share each batch and come to the result of one process (see
`runtime.distributed`). Batch norm is the exception on CPUs: there each process normalises over its
own rows.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from clsp_utils import runtime
from clsp_utils.config import METHODS, ConfigError, Training
from clsp_utils.contrastive.augment import augment
from clsp_utils.contrastive.backbone import Encoder
from clsp_utils.contrastive.losses import spread
from clsp_utils.contrastive.methods import Batch, build_method
from clsp_utils.data import ChannelStatistics, recolour
from clsp_utils.positives.bank import draw_candidates, inflate
from clsp_utils.runtime import Share, generator

COLLAPSED = 0.05  # spread of projections below which an encoder tells nothing apart


def pretrain(
    method: str,
    cfg: Training,
    images: np.ndarray,
    labels: np.ndarray,
    statistics: ChannelStatistics,
    seed: int,
    work: Path,
    precision: str,
    bank: np.ndarray | None = None,
    watch: Callable[[nn.Module], float] | None = None,
    share: Share | None = None,
    measures: Mapping[str, Callable[[Tensor, Tensor], float]] = MappingProxyType({}),
    size: int | None = None,
) -> tuple[Encoder, np.ndarray]:
    """Trains an encoder; resumes from `work` if an earlier run was cut off there.

    Anchors, their order and the first two views depend on the seed only, so that methods with the
    same seed are paired.

    Args:
        method: a name of `config.METHODS`.
        cfg: settings of the class that belongs to it there.
        images: anchors, uint8 `(N, H, W, 3)`.
        labels: `(N,)`, read by the methods that need them alone.
        statistics: of the data set.
        bank: candidates, uint8 `(N, k, size, size, 3)`; may be memory-mapped. Methods that show
            candidates need it.
        watch: `backbone -> score`, called every `cfg.watch_every` epochs. Loss, learning rate,
            spread of the projections (see `losses.spread`) and score go to `log.csv` in `work`, a
            row per epoch. Two epochs in a row that end with (nearly) all projections in one place
            bring a warning.
        share: the rows of each batch to compute here; those of this process if left out.
        size: pixels a side of the views; None = H.
        measures: name -> measure of the projections `(N, D)` of the first two views, which the log
            shows for the last step of each epoch, beside what the method itself logs.

    Returns:
        The encoder in eval mode, on the CPU, and the loss of every step.

    Raises:
        ConfigError: the batch cannot be shared by the processes.
        Diverged: the loss is not finite.
        ValueError: the method needs a bank, and there is none.
    """
    recipe = METHODS[method]
    sources = {*recipe.views, recipe.more_anchors} - {"anchor", "recoloured", None}
    if bank is None and sources:
        raise ValueError(f"method={method!r} needs a candidate bank.")
    share = share or runtime.my_share()
    batch = min(cfg.batch, len(images))
    if batch % share.world:
        raise ConfigError(
            f"{recipe.section}.batch={batch} cannot be shared by {share.world} processes: use a "
            f"multiple of {share.world}."
        )
    device = runtime.device()
    net = build_method(method, cfg, int(labels.max()) + 1, seed)
    net = runtime.synchronise_batch_norm(net).to(device, memory_format=torch.channels_last)
    project = runtime.compiled_on_cuda(net.encoder.forward)
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        trained, cfg.lr, momentum=cfg.momentum, weight_decay=cfg.weight_decay
    )
    per_epoch = len(images) // batch  # of the anchors themselves, whatever is added to them
    if recipe.more_anchors:
        assert bank is not None  # or the method would have been refused above
        images, labels = inflate(images, labels, bank)
    total = cfg.epochs * per_epoch
    losses = torch.zeros(total)
    names = ("spread", "knn", *measures, *net.logged)
    further = {name: torch.full((cfg.epochs,), torch.nan) for name in names}  # columns of the log
    parts = {"method": net, "optimizer": optimizer}
    checkpoint = runtime.Checkpoint(work, parts, {"losses": losses} | further)
    start = checkpoint.restore()
    images, labels = torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels)

    def lr(step: int) -> float:
        return cfg.lr * runtime.warmup_cosine(step, total, cfg.warmup * per_epoch)

    @lru_cache(maxsize=1)
    def order(epoch: int) -> Tensor:
        return torch.randperm(len(images), generator=generator(seed, "order", epoch))

    def draw(step: int) -> tuple[list[Tensor], Tensor]:
        """The views that the recipe names, of this process's anchors, and all labels."""
        epoch, i = divmod(step, per_epoch)
        anchors = order(epoch)[i * batch : (i + 1) * batch]
        x = runtime.upload(images[share.rows(anchors)], device)
        first_two, others = (
            generator(seed, name, step, device=device) for name in ("views", "third view")
        )
        choice, colours = (generator(seed, name, step) for name in ("candidates", "colours"))
        views = []
        for number, source in enumerate(recipe.views):
            shown = x
            if source == "recoloured":
                whole = runtime.upload(images[anchors], device)
                shown = share.rows(recolour(whole, colours))
            elif source != "anchor":
                assert bank is not None  # or the method would have been refused above
                turn = epoch * bank.shape[1] // cfg.epochs if recipe.in_turn else None
                candidates = draw_candidates(bank, anchors, choice, share, turn)
                shown = runtime.upload(candidates, device)
            g = first_two if number < 2 else others
            views.append(augment(shown, cfg.views, statistics, g, share, size))
        return views, runtime.upload(labels[anchors], device)

    net.train()
    drawn = None
    steps = range(start, total)
    for step in tqdm(
        steps, method, initial=start, total=total, leave=False, disable=share.rank > 0
    ):
        epoch, i = divmod(step, per_epoch)
        views, own_labels = drawn or draw(step)
        with runtime.autocast(device, precision):
            z = []
            for view, x in enumerate([torch.cat(views)] if cfg.batch_norm == "joint" else views):
                with running_statistics(net.encoder, cfg.batch_norm != "first_view" or view == 0):
                    z.append(project(x.contiguous(memory_format=torch.channels_last)))
            z = [share.gather(own) for own in torch.cat(z).chunk(len(views))]
            loss = net.loss(Batch(z, views, own_labels, share, step, total))
        runtime.set_lr(optimizer, lr(step))
        optimizer.zero_grad()
        loss.backward()
        share.average_gradients(trained)
        optimizer.step()
        net.after_step((step + 1) / total)
        # While a GPU is still at this step, whose loss is waited for below.
        drawn = draw(step + 1) if step + 1 < total else None
        losses[step] = loss.item()
        if i == per_epoch - 1 and share.rank == 0:
            for name, number in net.logged.items():
                further[name][epoch] = number
            if net.encoder.unit_norm:
                seen = [own.detach().float() for own in z[:2]]
                further["spread"][epoch] = spread(seen[0])
                for name, measure in measures.items():
                    further[name][epoch] = measure(*seen)
                warn_of_collapse(method, epoch, further["spread"], losses[step].item())
            if watch and cfg.watch_every and (epoch + 1) % cfg.watch_every == 0:
                net.eval()
                further["knn"][epoch] = watch(net.encoder.backbone)
                net.train()
            runtime.write_log(work / "log.csv", step, per_epoch, losses, lr, further)
        checkpoint.after_step(step, losses[step].item(), f"{recipe.section}.lr={cfg.lr:g}")
    return net.encoder.to("cpu", memory_format=torch.contiguous_format).eval(), losses.numpy()


@contextmanager
def running_statistics(net: nn.Module, moved: bool) -> Iterator[None]:
    """Whether batches that pass inside move the running statistics of batch norm."""
    kind = nn.modules.batchnorm._BatchNorm
    norms = [] if moved else [m for m in net.modules() if isinstance(m, kind)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def warn_of_collapse(method: str, epoch: int, spreads: Tensor, loss: float) -> None:
    """Warns when an epoch is the second in a row that ends collapsed.

    Args:
        spreads: of the projections at the end of each epoch, `(epochs,)`.
    """
    flat = spreads < COLLAPSED
    if epoch > 0 and flat[epoch] and flat[epoch - 1] and not (epoch > 1 and flat[epoch - 2]):
        recipe = METHODS[method]
        remedy = f"lower {recipe.section}.lr"
        if len(recipe.views) > 2 and hasattr(recipe.settings, "third_view"):
            remedy += f" or {recipe.section}.third_view.weight, or raise its ramp"
        elif hasattr(recipe.settings, "ramp"):
            remedy += f" or raise {recipe.section}.ramp"
        warnings.warn(
            f"{method}: for two epochs all projections have been (nearly) one vector, and the loss "
            f"{loss:.2f} is that of an encoder that tells nothing apart. If it stays so, nothing "
            f"is learned: {remedy}.",
            stacklevel=3,
        )
