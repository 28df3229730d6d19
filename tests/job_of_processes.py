"""Run by test_processes.py, alone and by `torchrun`: trains, fills a bank, asks the store.

Usage: job_of_processes.py FOLDER NAME. What it finds goes to FOLDER/NAME.pt.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from clsp_utils import diffusion, pretrain, processes, training
from clsp_utils.candidates import fill_bank, interpolate, open_bank
from clsp_utils.config import Diffusion, Encoder, Pretrain, UNet

torch.set_num_threads(1)
IMAGES = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3), dtype=np.uint8)
LABELS = np.arange(48) % 4
STATISTICS = ((0.5, 0.5, 0.5), (0.3, 0.3, 0.3))
METHODS = ("SimCLR", "CLSP-SimCLR", "SupCon", "NNCLR", "All4One", "CLSP-MoCoV2")
BANK = np.stack([255 - IMAGES, IMAGES // 2], 1)


def without_batch_norm(net: nn.Module) -> nn.Module:
    """On CPUs batch norm sees the rows of its own process; everything else is to be compared."""
    for name, child in net.named_children():
        if isinstance(child, (nn.BatchNorm1d, nn.BatchNorm2d)):
            setattr(net, name, nn.GroupNorm(1, child.num_features))
        else:
            without_batch_norm(child)
    return net


original_build = pretrain.build
pretrain.build = lambda *args: without_batch_norm(original_build(*args))


def encoder(method: str, work: Path) -> dict:
    cfg = Pretrain(
        method=method, epochs=4, batch=16, queue=32, lr=0.02, clsp_weight=0.5,
        encoder=Encoder(layers=(1,), width=8, hidden=16, projection=8),
    )
    net, losses = pretrain.pretrain(cfg, IMAGES, LABELS, STATISTICS, work, "fp32", BANK)
    return {"losses": torch.from_numpy(losses)} | net.state_dict()


def unet(work: Path) -> dict:
    shape = UNet(channels=(8, 16), groups=4)
    cfg = Diffusion(unet=shape, steps=6, batch=16, second_noise=0.5, silent_middle=0.25, warmup=1)
    net, losses = diffusion.train(cfg, IMAGES, 0, work, "fp32")
    return {"losses": torch.from_numpy(losses)} | net.state_dict()


def bank(folder: Path) -> np.ndarray:
    torch.manual_seed(0)
    net = diffusion.build_unet(UNet(channels=(8, 16), groups=4), 8).eval()
    if processes.rank() == 0:
        folder.mkdir()
        open_bank(folder, len(IMAGES), 2, 5, IMAGES.shape[1:])
    processes.wait_for_all()
    make = lambda rows, seed: interpolate(net, IMAGES[rows], 0.1, 2, 2, 0.5, seed, "fp32")  # noqa: E731
    fill_bank(folder, make, 5, 0, processes.rank(), processes.world())
    processes.wait_for_all()
    return np.load(folder / "bank.npy")


class Stop(Exception):
    pass


def cut_off(run) -> None:
    """Runs until the third step is done and saved."""
    original = training.Checkpoint.after_step

    def after_step(self, step, *rest):
        original(self, step, *rest)
        if step == 2:
            self.save(3)
            processes.wait_for_all()
            raise Stop

    training.Checkpoint.after_step = after_step
    try:
        run()
    except Stop:
        pass
    training.Checkpoint.after_step = original


def stored(folder: Path) -> tuple[str, list[str]]:
    """An artifact that the processes ask for at once, twice; who built it."""
    builds = []

    def build(out: Path, work: Path) -> None:
        builds.append("first" if (out / "..").resolve() == (folder / "stage").resolve() else "other")
        total = processes.gather(torch.ones(1)).sum()  # hangs unless all are here
        (out / "result").write_text(f"{total:g}")

    store = processes.SharedStore(folder, log=lambda text: None)
    for _ in range(2):
        artifact = store.get("stage", {"a": 1}, build)
    return (artifact / "result").read_text(), builds


if __name__ == "__main__":
    folder, name = Path(sys.argv[1]), sys.argv[2]
    if name.startswith("half"):
        cut_off(lambda: encoder("CLSP-MoCoV2", folder / "resumed encoder"))
        cut_off(lambda: unet(folder / "resumed unet"))
        found = {}
    elif name.startswith("rest"):
        found = {"CLSP-MoCoV2": encoder("CLSP-MoCoV2", folder / "resumed encoder"), "unet": unet(folder / "resumed unet")}
    else:
        found = {method: encoder(method, folder / f"{name} {method}") for method in METHODS}
        found |= {"unet": unet(folder / f"{name} unet"), "bank": torch.from_numpy(bank(folder / f"{name} bank"))}
        found["stored"] = stored(folder / f"{name} store")
    found["world"] = processes.world()
    if processes.rank() == 0:
        torch.save(found, folder / f"{name}.pt")
    processes.wait_for_all()
