"""The methods, one module each: a method owns its networks and turns projections into a loss.

Knows nothing of the loop that trains them. Where their views come from, `config.METHODS` says.
"""

from importlib import import_module

import torch

from clsp_utils.config import METHODS, Training
from clsp_utils.contrastive.methods.base import Batch, Method
from clsp_utils.runtime import seed_for


def build_method(method: str, cfg: Training, n_classes: int, seed: int) -> Method:
    """The networks and the loss that a method's name stands for.

    Their weights depend on the seed alone, so that methods start alike.

    Args:
        method: a name of `config.METHODS`.
        cfg: settings of the class that belongs to it there.
        n_classes: how many classes the labels have.
    """
    module, network = METHODS[method].network.split(".")
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "weights"))
        return getattr(import_module(f"{__name__}.{module}"), network)(cfg, n_classes)
