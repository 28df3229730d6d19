"""Encoders that others have trained, from files."""

from dataclasses import replace

from torchvision.models.resnet import ResNet

from clsp_utils.config import Backbone
from clsp_utils.contrastive.backbone import build_backbone
from clsp_utils.runtime import fill, read_tensors
from clsp_utils.runtime.weights import Source

RESNET_18 = Backbone(block="basic", layers=(2, 2, 2, 2), width=64, stem_stride=1)
RESNET_50 = Backbone(block="bottleneck", layers=(3, 4, 6, 3), width=64, stem_stride=1)


def load_encoder(source: Source, max_pool: bool = False) -> ResNet:
    """A trained encoder's backbone, in fp32 and eval mode: `(B, 3, H, W)` to `(B, n_features)`.

    Its images must be normalised as in its training.

    Args:
        source: a file or state dict with torchvision's names: ResNet-18 or -50 with a 3x3 stem of
            stride 1. A projector or classifier under `fc` is left out.
        max_pool: whether the stem ends in max-pooling (it does at 64 pixels); no tensor tells.

    Raises:
        WeightsError: not found, damaged, or another network.
    """
    tensors = read_tensors(source)
    tensors = {key: value for key, value in tensors.items() if not key.startswith("fc.")}
    backbone = RESNET_50 if "layer1.0.conv3.weight" in tensors else RESNET_18
    net = build_backbone(replace(backbone, max_pool=max_pool))
    fill(net, tensors, source)
    return net.eval()
