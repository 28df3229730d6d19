"""Encoders that others have trained, from files."""

from dataclasses import replace

from torchvision.models.resnet import ResNet

from clsp_utils.config import Backbone
from clsp_utils.contrastive.backbone import build_backbone
from clsp_utils.data import NORMALISATION, ChannelStatistics
from clsp_utils.runtime import WeightsError, fill, read_tensors
from clsp_utils.runtime.weights import Source

RESNET_18 = Backbone(block="basic", layers=(2, 2, 2, 2), width=64, stem_stride=1)
RESNET_50 = Backbone(block="bottleneck", layers=(3, 4, 6, 3), width=64, stem_stride=1)


def load_encoder(
    source: Source, normalised_by: str | ChannelStatistics, max_pool: bool = False
) -> ResNet:
    """A trained encoder's backbone, in fp32 and eval mode: `(B, 3, H, W)` to `(B, n_features)`.

    Its attribute `statistics` is what its images must be normalised by, as they were in its
    training: no tensor tells, and with others its features are worse.

    Args:
        source: a file or state dict with torchvision's names: ResNet-18 or -50 with a 3x3 stem of
            stride 1. A projector or classifier under `fc` is left out.
        normalised_by: the constants of its training: "cifar10", "cifar100" or "stl10" for those
            that the paper's authors use, which are not the true statistics; or any others.
        max_pool: whether the stem ends in max-pooling (it does at 64 pixels); no tensor tells.

    Raises:
        WeightsError: not found, damaged, or another network; or nobody knows these constants.
    """
    statistics = normalised_by
    if isinstance(statistics, str):
        if statistics not in NORMALISATION:
            raise WeightsError(
                f"normalised_by={normalised_by!r} must be one of {', '.join(NORMALISATION)}, or "
                f"ChannelStatistics(mean, std)."
            )
        statistics = NORMALISATION[statistics]
    tensors = read_tensors(source)
    tensors = {key: value for key, value in tensors.items() if not key.startswith("fc.")}
    backbone = RESNET_50 if "layer1.0.conv3.weight" in tensors else RESNET_18
    net = build_backbone(replace(backbone, max_pool=max_pool))
    fill(net, tensors, source)
    net.statistics = statistics
    return net.eval()
