"""A classifier as a judge of images that were made: which class does it see?"""

from dataclasses import dataclass

import numpy as np
from torch import nn

from clsp_utils.data import ChannelStatistics
from clsp_utils.evaluation.features import extract_features


@dataclass(frozen=True)
class Judge:
    """A trained classifier and how it is to be asked.

    Args:
        network: gives logits `(B, classes)`; its `backbone` gives features `(B, D)`. In eval mode.
        statistics: of the data that the network was trained on.
        precision: "auto", "bf16" or "fp32".
    """

    network: nn.Module
    statistics: ChannelStatistics
    precision: str

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Class of each image, uint8 `(N, H, W, 3)` to `(N,)`."""
        logits = extract_features(self.network, images, self.statistics, self.precision)
        return logits.argmax(1).numpy()

    def agreement(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Share of images that are given their label; those without one (-1) do not count.

        Args:
            images: uint8 `(N, H, W, 3)`; labels: `(N,)`.

        Returns:
            In [0, 1].
        """
        known = labels >= 0
        return float((self.classify(images[known]) == labels[known]).mean())

    def features(self, images: np.ndarray) -> np.ndarray:
        """Features of the backbone, uint8 `(N, H, W, 3)` to fp64 `(N, D)`."""
        backbone = self.network.backbone
        found = extract_features(backbone, images, self.statistics, self.precision)
        return found.double().numpy()
