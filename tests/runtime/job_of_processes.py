"""Run by test_distributed.py, alone and by `torchrun`: trains, and fills a bank.

Usage: job_of_processes.py FOLDER NAME. What it finds goes to FOLDER/NAME.pt.
"""

import contextlib
import importlib
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from clsp_utils import diffusion
from clsp_utils.config import METHODS, Backbone, Diffusion, ThirdView, UNetShape
from clsp_utils.contrastive import pretrain
from clsp_utils.data import ChannelStatistics
from clsp_utils.positives import fill_bank, interpolate, open_bank
from clsp_utils.runtime import Checkpoint, my_share, wait_for_all

torch.set_num_threads(1)
IMAGES = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(48) % 4
STATISTICS = ChannelStatistics((0.5, 0.5, 0.5), (0.3, 0.3, 0.3))
COMPARED = (
    "SimCLR", "recoloured third view", "CLSP-SimCLR", "SupCon", "NNCLR", "All4One", "CLSP-MoCoV2",
)  # fmt: skip
BANK = np.stack([255 - IMAGES, IMAGES // 2], 1)


def without_batch_norm(net: nn.Module) -> nn.Module:
    """On CPUs batch norm sees the rows of its own process; everything else is to be compared."""
    for name, child in net.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            setattr(net, name, nn.GroupNorm(1, child.num_features))
        else:
            without_batch_norm(child)
    return net


loop = importlib.import_module("clsp_utils.contrastive.pretrain")  # the name is the function's
original_build = loop.build_method
loop.build_method = lambda *args: without_batch_norm(original_build(*args))


def encoder(method: str, work: Path) -> dict:
    recipe = METHODS[method]
    third_view = ThirdView(weight=0.5) if len(recipe.views) > 2 else None
    queue = {"queue": 32} if hasattr(recipe.settings, "queue") else {}
    backbone = Backbone(layers=(1,), width=8, hidden=16, projection=8)
    cfg = recipe.settings(
        epochs=4, batch=16, lr=0.02, backbone=backbone, third_view=third_view, **queue
    )
    net, losses = pretrain(method, cfg, IMAGES, LABELS, STATISTICS, 0, work, "fp32", BANK)
    return {"losses": torch.from_numpy(losses)} | net.state_dict()


def unet(work: Path) -> dict:
    shape = UNetShape(channels=(8, 16), groups=4)
    cfg = Diffusion(unet=shape, steps=6, batch=16, recoloured_pairs=0.5, warmup=1)
    net, losses = diffusion.train(cfg, IMAGES, 0, work, "fp32")
    return {"losses": torch.from_numpy(losses)} | net.state_dict()


def bank(folder: Path) -> np.ndarray:
    torch.manual_seed(0)
    net = diffusion.build_unet(UNetShape(channels=(8, 16), groups=4), 8).eval()
    share = my_share()
    if share.rank == 0:
        folder.mkdir()
        open_bank(folder, len(IMAGES), 2, 5, IMAGES.shape[1:])
    wait_for_all()

    def make(rows, seed):
        return interpolate(net, IMAGES[rows], 0.1, 600, 2, 2, 0.5, seed, "fp32")

    fill_bank(folder, make, 5, 0, share)
    wait_for_all()
    return np.load(folder / "bank.npy")


class Stop(Exception):
    pass


def cut_off(run) -> None:
    """Runs until the third step is done and saved."""
    original = Checkpoint.after_step

    def after_step(self, step, *rest):
        original(self, step, *rest)
        if step == 2:
            self.save(3)
            wait_for_all()
            raise Stop

    Checkpoint.after_step = after_step
    with contextlib.suppress(Stop):
        run()
    Checkpoint.after_step = original


if __name__ == "__main__":
    folder, name = Path(sys.argv[1]), sys.argv[2]
    if name.startswith("half"):
        cut_off(lambda: encoder("CLSP-MoCoV2", folder / "resumed encoder"))
        cut_off(lambda: unet(folder / "resumed unet"))
        found = {}
    elif name.startswith("rest"):
        found = {
            "CLSP-MoCoV2": encoder("CLSP-MoCoV2", folder / "resumed encoder"),
            "unet": unet(folder / "resumed unet"),
        }
    else:
        found = {method: encoder(method, folder / f"{name} {method}") for method in COMPARED}
        found |= {
            "unet": unet(folder / f"{name} unet"),
            "bank": torch.from_numpy(bank(folder / f"{name} bank")),
        }
    share = my_share()
    found["world"] = share.world
    if share.rank == 0:
        torch.save(found, folder / f"{name}.pt")
    wait_for_all()
