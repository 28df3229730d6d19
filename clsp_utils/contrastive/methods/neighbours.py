"""Methods whose positives are nearest neighbours among past embeddings."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clsp_utils import config
from clsp_utils.contrastive.backbone import predictor
from clsp_utils.contrastive.losses import feature_contrast, nearest, neighbour_nce
from clsp_utils.contrastive.methods.base import Batch
from clsp_utils.contrastive.methods.momentum import MomentumEncoder, Queue
from clsp_utils.contrastive.methods.simclr import SimCLR


class NNCLR(SimCLR):
    """The positive of a view is the nearest past embedding of its partner (arXiv 2104.14548)."""

    def __init__(self, cfg: config.NNCLR, n_classes: int):
        super().__init__(cfg, n_classes)
        self.predictor = predictor(cfg.backbone)
        self.queue = Queue(1, cfg.queue, cfg.backbone.projection)

    def contrast(self, batch: Batch) -> Tensor:
        """Each view's nearest neighbour must find the prediction of the other view."""
        self.keys = batch.z[0].detach()
        found = [nearest(own.detach(), self.queue.rows[0], 1)[:, 0] for own in batch.z[:2]]
        return self.across_views(found, self.predictions(batch.z))

    def predictions(self, z: list[Tensor]) -> list[Tensor]:
        """The predictor's answers to the first two views, unit-norm rows `(N, D)` each."""
        return [F.normalize(self.predictor(own).float(), dim=1) for own in z[:2]]

    def across_views(self, neighbours: list[Tensor], predictions: list[Tensor]) -> Tensor:
        """Each view's neighbours must find the *other* view's prediction in the same row.

        Args:
            neighbours, predictions: `(N, D)` of two views, unit-norm rows.

        Returns:
            The mean of both losses.
        """
        pairs = ((neighbours[i], predictions[1 - i]) for i in (0, 1))
        return sum(neighbour_nce(own, other, self.temperature) for own, other in pairs) / 2

    def after_step(self, progress: float) -> None:
        """The first view's embeddings enter the queue."""
        self.queue.push([self.keys])


class All4One(NNCLR):
    """Contrast of neighbours, of their centroids, and of features (arXiv 2303.09417).

    A slowly moving copy of the encoder makes the keys that find the neighbours and fill the queue.
    A transformer summarises a key's neighbours, nearest first, in the first of its outputs; the
    centroid of one view must find that of the other, in which a prediction has taken the first
    place and moved the neighbours on by one. Unlike the paper's, the transformer has no dropout.
    """

    neighbours, layers = 5, 3
    weights = (0.5, 0.5, 5.0)  # of the terms: neighbours, centroids, features

    def __init__(self, cfg: config.All4One, n_classes: int):
        super().__init__(cfg, n_classes)
        self.key_encoder = MomentumEncoder(self.encoder, cfg)
        self.second_predictor = predictor(cfg.backbone)
        width = cfg.backbone.projection
        heads = math.gcd(width, 8)  # must divide the width
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, dropout=0.0, batch_first=True)
        self.attention = nn.TransformerEncoder(layer, self.layers, enable_nested_tensor=False)
        self.register_buffer("positions", sinusoids(self.neighbours, width))

    def contrast(self, batch: Batch) -> Tensor:
        """The weighted sum of the three terms."""
        keys = self.key_encoder.keys(batch.views, batch.share)
        self.keys = keys[0]
        found = [nearest(k, self.queue.rows[0], self.neighbours) for k in keys]
        own_centroids = [self.centroids(rows) for rows in found]
        shifted = [
            self.centroids(torch.cat([self.second_predictor(own)[:, None], rows[:, :-1]], 1))
            for own, rows in zip(batch.z[:2], found, strict=True)
        ]
        terms = (
            self.across_views([rows[:, 0] for rows in found], self.predictions(batch.z)),
            self.across_views(own_centroids, shifted),
            feature_contrast(keys, batch.z[1::-1]),
        )
        return sum(weight * term for weight, term in zip(self.weights, terms, strict=True))

    def centroids(self, rows: Tensor) -> Tensor:
        """Embeddings `(N, n, D)` to one unit-norm centroid each, `(N, D)`."""
        return F.normalize(self.attention(rows + self.positions)[:, 0].float(), dim=1)

    def after_step(self, progress: float) -> None:
        """The first view's keys enter the queue, and the key encoder follows."""
        super().after_step(progress)
        self.key_encoder.follow(self.encoder, progress)


def sinusoids(n: int, width: int) -> Tensor:
    """Positions as sines and cosines of falling frequency, `(n, width)` (arXiv 1706.03762)."""
    pairs = torch.arange(width) // 2
    angles = torch.arange(n)[:, None] / 10_000 ** (2 * pairs / width)
    return torch.where(torch.arange(width) % 2 == 0, angles.sin(), angles.cos())
