"""What the authors report, and the command that fills the cell beside it."""

from pathlib import Path

import pandas as pd

from clsp_utils import config
from clsp_utils.encoders import training_flops
from clsp_utils.methods import METHODS

_64_PIXELS = "data.size=64 simclr.encoder.max_pool=True moco.encoder.max_pool=True classifier.encoder.max_pool=True"
# Of each data set: number of training images (ImageNet-100: about 1,300 a class), settings, path.
DATASETS = {
    "CIFAR10": (50_000, "data.name=cifar10", ""),
    "CIFAR100": (50_000, "data.name=cifar100", ""),
    "STL10": (105_000, f"data.name=stl10 {_64_PIXELS}", ""),
    "ImageNet100": (126_689, f"data.name=imagenet100 data.wnids=WNIDS {_64_PIXELS}", "IMAGENET"),
}
FLOPS_A_SECOND = 1e14  # assumed of a GPU


def reported_results() -> pd.DataFrame:
    """What the authors report (linear top-1, percent): source, dataset, method, backbone, top1."""
    return pd.read_csv(Path(__file__).with_name("reported_results.csv"), comment="#")


def beside_the_paper() -> pd.DataFrame:
    """Linear top-1 in percent, reported and our own, a row a data set and method (ResNet-18).

    Our own are what notebook 06 left behind at the profile `paper`; where there is nothing, the row
    names the command, and what one run costs at an assumed 100 TFLOP/s. IMAGENET and WNIDS stand
    for the folder of ImageNet and the list of CMC's 100 classes.
    """
    table = reported_results()
    table = table[table.backbone == "ResNet18"].pivot(index=["dataset", "method"], columns="source", values="top1")
    cells = [_own(dataset, method) for dataset, method in table.index]
    return table.join(pd.DataFrame(cells, table.index, ["ours", "command", "gpu_hours_a_run"]))


def _own(dataset: str, method: str) -> tuple[str, str, str]:
    n, settings, path = DATASETS[dataset]
    profile = config.profile("paper", settings, path)
    results = config.home("build", "paper", profile.data.name, "figures", "06_evaluate.csv")
    found = pd.read_csv(results).query("method == @method") if results.exists() else ()
    if len(found):
        own = found.iloc[0]
        return f"{100 * own.linear:.2f} ± {100 * own.linear_half_width:.2f} ({own.seeds} seeds)", "", ""
    recipe = METHODS[method]
    cfg = getattr(profile, recipe.settings)
    flops = n * cfg.epochs * (3 if recipe.third else 2) * training_flops(cfg.encoder, profile.data.size)
    parameters = settings.split() + ([f"data={path}"] if path else [])
    command = " -p ".join(["python -m clsp_utils run 06 --profile paper", *parameters])
    return "", command, f"{flops / FLOPS_A_SECOND / 3600:.1f}"
