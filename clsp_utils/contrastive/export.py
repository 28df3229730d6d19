"""An encoder to take home: its weights, a card that says what they are, and ONNX.

Other programs read it with `load_exported`, or without this package from the ONNX file. Either way
pictures go in as they are: what the backbone was trained on is made inside, so that nobody can
normalise them otherwise.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn
from torchvision.models.resnet import ResNet

from clsp_utils.config import Backbone, ConfigError, as_dict, dotted, validate
from clsp_utils.contrastive.backbone import build_backbone
from clsp_utils.data import ChannelStatistics, normalise, read_image, to_float, unusable
from clsp_utils.runtime import WeightsError, fill, read_tensors, write_onnx
from clsp_utils.store import replace_file

WEIGHTS, CARD, ONNX = "encoder.safetensors", "card.json", "encoder.onnx"


class ImageEncoder(nn.Module):
    """Pictures in, features out: uint8 `(B, size, size, 3)` to fp32 `(B, n_features)`.

    Attributes:
        size: pixels a side.
        n_features: of a picture.
    """

    def __init__(self, backbone: ResNet, statistics: ChannelStatistics, size: int):
        super().__init__()
        self.backbone, self.statistics, self.size = backbone, statistics, size
        self.n_features: int = backbone.n_features

    def forward(self, pictures: Tensor) -> Tensor:
        return self.backbone(normalise(to_float(pictures), self.statistics))

    def read(self, paths: Sequence[str | Path]) -> Tensor:
        """Files as in the training: the middle of each, uint8 `(B, size, size, 3)`.

        Raises:
            DataError: a file cannot be used.
        """
        pictures = []
        for path in paths:
            picture = read_image(Path(path), self.size)
            if isinstance(picture, str):
                raise unusable(path, f"this picture is {picture}")
            pictures.append(picture)
        return torch.from_numpy(np.stack(pictures))


def save_exported(
    encoder: ImageEncoder, shape: Backbone, folder: Path, facts: Mapping[str, Any]
) -> None:
    """Writes weights and card; each file as a whole.

    Args:
        shape: of the encoder's backbone.
        folder: where they go; it is made.
        facts: what else the card says, in JSON's types, for example training, data and scores.
    """
    card = {
        "backbone": as_dict(shape),
        "size": encoder.size,
        "n_features": encoder.n_features,
        "normalisation": {"mean": encoder.statistics.mean, "std": encoder.statistics.std},
        **facts,
    }
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / WEIGHTS, safetensors.torch.save(encoder.backbone.state_dict()))
    replace_file(folder / CARD, json.dumps(card, indent=1).encode())
    replace_file(folder / "README.md", _described(card, folder).encode())


def load_exported(folder: str | Path) -> ImageEncoder:
    """What `save_exported` wrote: in fp32 and eval mode, on the CPU, without gradients.

    Raises:
        WeightsError: not found, damaged, or card and weights are not of one encoder.
    """
    path = Path(folder) / CARD
    try:
        card = json.loads(path.read_text())
        shape = validate(Backbone, card["backbone"])
        of_images = card["normalisation"]
        statistics = ChannelStatistics(*(tuple(of_images[name]) for name in ("mean", "std")))
        size = int(card["size"])
    except FileNotFoundError:
        raise WeightsError(f"{str(folder)!r} holds no exported encoder: no {CARD}.") from None
    except (OSError, ValueError, KeyError, TypeError, ConfigError):
        raise WeightsError(f"{str(path)!r} is damaged or no card of an encoder.") from None
    backbone, weights = build_backbone(shape), Path(folder) / WEIGHTS
    fill(backbone, read_tensors(weights), weights)
    return ImageEncoder(backbone, statistics, size).eval().requires_grad_(False)


def usage(folder: str, picture: str) -> str:
    """Five lines of another program that uses an exported encoder."""
    return f"""\
from clsp_utils.contrastive import load_exported

encoder = load_exported({folder!r})
pictures = encoder.read([{picture!r}])  # uint8 (1, size, size, 3), as in the training
features = encoder(pictures)  # fp32 (1, n_features)
print(tuple(features.shape))
"""


def onnx_usage(size: int, folder: str, picture: str) -> str:
    """The same without this package, from the ONNX file."""
    return f"""\
import numpy, onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession({f"{folder}/{ONNX}"!r})
picture = ImageOps.fit(Image.open({picture!r}).convert("RGB"), ({size}, {size}), method=3)
[features] = session.run(None, {{"pictures": numpy.asarray(picture)[None]}})
print(features.shape)
"""


def _described(card: Mapping[str, Any], folder: Path) -> str:
    """The card as Markdown."""
    size, here, picture = card["size"], folder.name, "picture.jpg"
    facts = {name: str(value).replace("|", r"\|") for name, value in dotted(card).items()}
    rows = "\n".join(f"| `{name}` | {value} |" for name, value in facts.items())
    return f"""\
# Encoder

Pictures of {size} x {size} pixels in, {card["n_features"]} features out. What is alike to it has a
large cosine. It knows what it was trained on; of other pictures nobody has measured what it knows.

```python
{usage(here, picture)}```

Without `clsp_utils`, where `{ONNX}` lies beside this file (`pip install onnxruntime pillow`):

```python
{onnx_usage(size, here, picture)}```

| | |
|---|---|
{rows}
"""


def save_onnx(encoder: ImageEncoder, folder: Path, pictures: np.ndarray) -> float:
    """Writes the encoder as ONNX once its features are those of torch (see `write_onnx`).

    Args:
        pictures: uint8 `(N, size, size, 3)`, N >= 2, on which both are compared; the file takes
            any number of them.

    Returns:
        The largest difference of a feature, relative to the largest feature.
    """
    x = torch.from_numpy(pictures)
    return write_onnx(encoder, folder / ONNX, {"pictures": x}, ["features"])
