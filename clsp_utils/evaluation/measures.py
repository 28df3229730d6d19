"""What else can be said of an encoder: top-5, few labels, and measures that need no label."""

from functools import partial

import torch
from torch import nn

from clsp_utils.config import FewLabels, Probe, Views
from clsp_utils.contrastive import augment
from clsp_utils.data import ChannelStatistics, Images
from clsp_utils.evaluation.features import extract_features
from clsp_utils.evaluation.few_labels import few_label_accuracy
from clsp_utils.evaluation.geometry import alignment, rank_me, uniformity
from clsp_utils.evaluation.probes import (
    accuracy,
    linear_logits,
    probe_features,
    top_k_accuracy,
)
from clsp_utils.runtime import device, generator


def measure(
    backbone: nn.Module,
    train: Images,
    test: Images,
    statistics: ChannelStatistics,
    views: Views,
    cfg: Probe,
    few: FewLabels,
    seed: int,
    precision: str,
) -> dict[str, float]:
    """Measures of a frozen backbone's features. Images without a label are left out.

    Args:
        views: the augmentation that makes the two views of alignment; where it mirrors, so does the
            linear classifier's training.

    Returns:
        "linear" and "top5", shares in [0, 1]; "linear_<share>" for each share of the labels; and of
        the test images "rank_me", "alignment" (of two views) and "uniformity".
    """
    train, test = train.labelled, test.labelled
    x = probe_features(backbone, train, test, statistics, precision, views.p_flip > 0)
    labels = torch.from_numpy(train.labels)
    logits = linear_logits(x.train, labels, x.test, cfg, seed, x.mirrored)
    # The generator goes on from view to view, which so differ.
    g = generator(seed, "views that are measured", device=device())
    view = partial(augment, cfg=views, statistics=statistics, g=g)
    seen = [
        extract_features(backbone, test.images, statistics, precision, view=view) for _ in range(2)
    ]
    return {
        "linear": accuracy(logits.argmax(1), test.labels),
        "top5": top_k_accuracy(logits, test.labels, 5),
        **{
            f"linear_{share:g}": few_label_accuracy(x, train, test, share, few.draws, cfg, seed)
            for share in few.shares
        },
        "rank_me": rank_me(x.test),
        "alignment": alignment(*seen),
        "uniformity": uniformity(x.test),
    }
