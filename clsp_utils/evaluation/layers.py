"""What each layer of an encoder knows: of the class, and of the background."""

from typing import Any

import numpy as np
import torch
from sklearn.linear_model import RidgeCV
from torch import Tensor, nn
from torch.nn import functional as F

from clsp_utils.config import Probe
from clsp_utils.contrastive import Encoder
from clsp_utils.data import ChannelStatistics, Images
from clsp_utils.evaluation.features import extract_features
from clsp_utils.evaluation.probes import accuracy, linear_probe

GRID = 4  # pixels a side to which backgrounds are averaged before they are read


def layers_of(encoder: Encoder) -> dict[str, nn.Module]:
    """The layers that are read, by name, first to last: stem, levels of the ResNet, projector."""
    net, (_, hidden, last) = encoder.backbone, encoder.projector
    levels = {f"level {i}": getattr(net, f"layer{i}") for i in range(1, 5)}
    levels = {name: m for name, m in levels.items() if not isinstance(m, nn.Identity)}
    return {"stem": net.maxpool} | levels | {"hidden": hidden, "projection": last}


def layer_features(
    encoder: Encoder, images: np.ndarray, statistics: ChannelStatistics, precision: str
) -> dict[str, Tensor]:
    """The output of every layer, averaged over its pixels; the last level is the features.

    Args:
        encoder: in eval mode.
        images: uint8 `(N, H, W, 3)`.

    Returns:
        Name as in `layers_of` -> fp32 `(N, channels)`, on the CPU.
    """
    layers = layers_of(encoder)
    outputs: dict[str, list[Tensor]] = {name: [] for name in layers}

    def keep(name: str) -> Any:
        def hook(module: nn.Module, args: Any, out: Tensor) -> None:
            outputs[name].append(out.float().flatten(2).mean(2) if out.dim() > 2 else out.float())

        return hook

    hooks = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    try:
        extract_features(encoder, images, statistics, precision)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: torch.cat(parts).cpu() for name, parts in outputs.items()}


def background_r2(
    train: Tensor, train_background: np.ndarray, test: Tensor, test_background: np.ndarray
) -> float:
    """How much of the background a linear map reads from features: R², over all of its numbers.

    Ridge regression from standardised features to the background at `GRID` x `GRID` pixels; its
    penalty is chosen by leaving single training images out.

    Args:
        train: features `(N, D)`; test: features `(M, D)`.
        train_background, test_background: `(N, H, W, 3)` and `(M, H, W, 3)`, any linear scale.

    Returns:
        At most 1; 0 is what the mean background says, and what does worse is below.
    """
    mean, std = train.mean(0), train.std(0) + 1e-6
    x, x_test = (((f - mean) / std).double().numpy() for f in (train, test))
    y, y_test = (_coarse(images) for images in (train_background, test_background))
    read = RidgeCV(np.logspace(0, 4, 9)).fit(x, y).predict(x_test)
    return float(1 - ((y_test - read) ** 2).sum() / ((y_test - y.mean(0)) ** 2).sum())


def _coarse(images: np.ndarray) -> np.ndarray:
    """`(N, H, W, 3)` averaged to `(N, GRID * GRID * 3)`, in fp64."""
    x = torch.from_numpy(images.astype(np.float64)).permute(0, 3, 1, 2)
    return F.adaptive_avg_pool2d(x, GRID).flatten(1).numpy()


def score_layers(
    encoder: Encoder,
    train: Images,
    test: Images,
    statistics: ChannelStatistics,
    cfg: Probe,
    seed: int,
    precision: str,
) -> list[dict[str, Any]]:
    """What a linear map reads from every layer. Images without a label are left out.

    Returns:
        A row per layer: "layer", "width" (channels), "linear" (top-1 in [0, 1]) and "background"
        (R² of `background_r2`; of the images themselves where nobody knows their background).
    """
    train, test = train.labelled, test.labelled
    features = [
        layer_features(encoder, part.images, statistics, precision) for part in (train, test)
    ]
    labels = torch.from_numpy(train.labels)
    backgrounds = [part.background_or_image for part in (train, test)]
    return [
        {
            "layer": name,
            "width": x.shape[1],
            "linear": accuracy(linear_probe(x, labels, features[1][name], cfg, seed), test.labels),
            "background": background_r2(x, backgrounds[0], features[1][name], backgrounds[1]),
        }
        for name, x in features[0].items()
    ]
