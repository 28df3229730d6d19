"""A page on which the reader's own browser mixes the middles (play/): what it loads.

The UNet's halves and the judge as ONNX, a few anchors as JSON, and ONNX Runtime, which npm brings.
"""

import base64
import gzip
import json
import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

from clsp_utils.config import PROJECT, ConfigError
from clsp_utils.data import ChannelStatistics, normalise, to_diffusion_range, to_float
from clsp_utils.diffusion import decode, encode
from clsp_utils.pipeline import Companion
from clsp_utils.runtime import write_onnx

SOURCE = PROJECT / "play" / "src"
RUNTIME = PROJECT / "play" / "node_modules" / "onnxruntime-web" / "dist"
N_ANCHORS = 20


class EncoderHalf(nn.Module):
    """Noised images `(B, 3, H, W)` and a step t to h, each of the skips, and the time embedding."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor) -> tuple[Tensor, ...]:
        h, skips, temb = encode(self.unet, x, t)
        return h, *skips, temb


class DecoderHalf(nn.Module):
    """What `EncoderHalf` gives to the predicted noise `(B, 3, H, W)`."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, h: Tensor, *others: Tensor) -> Tensor:
        *skips, temb = others
        return decode(self.unet, h, tuple(skips), temb)


class Classifier(nn.Module):
    """Pictures, uint8 `(B, H, W, 3)`, to logits `(B, classes)`."""

    def __init__(self, network: nn.Module, statistics: ChannelStatistics):
        super().__init__()
        self.network, self.statistics = network, statistics

    def forward(self, pictures: Tensor) -> Tensor:
        return self.network(normalise(to_float(pictures), self.statistics))


def write_page(companion: Companion, folder: Path) -> int:
    """Writes the page, which any server of plain files can offer.

    Args:
        companion: whose UNet, judge and test images it shows.
        folder: where it goes; it is made.

    Returns:
        How many bytes a browser loads.

    Raises:
        ConfigError: npm has not brought ONNX Runtime, or a package for ONNX is missing.
    """
    if not RUNTIME.is_dir():
        raise ConfigError(f"{str(RUNTIME)!r} is missing: `make play` brings it, with npm.")
    folder.mkdir(parents=True, exist_ok=True)
    for path in SOURCE.iterdir():
        shutil.copyfile(path, folder / path.name)
    shutil.copyfile(RUNTIME / "ort.wasm.bundle.min.mjs", folder / "onnxruntime.mjs")
    # Packed here, since not every server packs what it sends; a name ending in .gz would make some
    # of them say so in a header, and the browser unpack it before the page does.
    wasm = (RUNTIME / "ort-wasm-simd-threaded.wasm").read_bytes()
    (folder / "onnxruntime.wasm.gzip").write_bytes(gzip.compress(wasm, mtime=0))

    anchors = companion.data.study_images(N_ANCHORS)
    unet, judge = companion.unet.cpu(), companion.judge
    pictures = torch.from_numpy(anchors.images)
    x, t = to_diffusion_range(pictures), torch.tensor(500)
    half = EncoderHalf(unet)
    with torch.inference_mode():
        features = half(x, t)
    names = ["h", *(f"skip_{i}" for i in range(len(features) - 2)), "temb"]
    write_onnx(half, folder / "encode.onnx", {"x": x, "t": t}, names)
    given = dict(zip(names, features, strict=True))
    write_onnx(DecoderHalf(unet), folder / "decode.onnx", given, ["eps"])
    classifier = Classifier(judge.network.cpu(), judge.statistics)
    write_onnx(classifier, folder / "judge.onnx", {"pictures": pictures}, ["logits"])

    page = {
        "size": companion.data.size,
        "content": companion.content,
        "classes": anchors.class_names,
        "anchors": [
            {"label": int(label), "pixels": base64.b64encode(image.tobytes()).decode()}
            for label, image in zip(anchors.labels, anchors.images, strict=True)
        ],
    }
    (folder / "play.json").write_text(json.dumps(page))
    return sum(path.stat().st_size for path in folder.iterdir())
