"""Tables over methods, seeds and settings, each row one run."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import pandas as pd

from clsp_utils.config import METHODS, SNAPSHOTS, ConfigError, change, home
from clsp_utils.contrastive import COLLAPSED, training_flops
from clsp_utils.evaluation import reported_results
from clsp_utils.pipeline.companion import Companion
from clsp_utils.pipeline.profile import Profile
from clsp_utils.pipeline.stages import (
    Bank,
    DiffusionModel,
    InterpolatedBank,
    Pretrained,
    Scores,
    Snapshot,
)
from clsp_utils.runtime import print_once

# A method and, from the profile with a diffusion model's seed, its bank; None = the profile's own.
MethodAndBank = tuple[str, Callable[[Profile], Bank] | None]


def comparison(
    companion: Companion, methods: Sequence[str] | Mapping[str, MethodAndBank], **settings: Any
) -> pd.DataFrame:
    """Scores of every method on every seed of the study, a row per run.

    Where `study.models` is more than 1, the seeds take the banks of so many diffusion models in
    turn, so that the spread over seeds holds that over diffusion models too.

    Args:
        methods: their names; or names of one's own, with the method and its bank.
        settings: of the methods, in the place of the profile's.

    Returns:
        Columns method, seed, model, linear, knn, k, seconds: number of the diffusion model, top-1
        in [0, 1], time of the training.
    """
    names = [name for _ in _seeds(companion) for name in methods]
    return _table(companion, compared_runs(companion, methods, **settings)).assign(method=names)


def compared_runs(
    companion: Companion, methods: Sequence[str] | Mapping[str, MethodAndBank], **settings: Any
) -> list[Scores]:
    """What `comparison` makes; arguments as there."""
    if not isinstance(methods, Mapping):
        methods = {method: (method, None) for method in methods}
    runs = []
    for seed in _seeds(companion):
        profile = companion.cfg.of_seed(model_of(companion, seed))
        for method, bank in methods.values():
            given = {"bank": bank(profile)} if bank else {}
            runs.append(_run(companion, method, seed, settings, **given))
    return runs


def _seeds(companion: Companion) -> range:
    return range(companion.seed, companion.seed + companion.cfg.study.seeds)


def sweep(
    companion: Companion, field: str, values: Sequence[float], method: str = "CLSP-SimCLR"
) -> pd.DataFrame:
    """Scores of a CLSP method over "mix_weight" or "k" of its bank, or "weight" (lambda).

    The column `field` holds the value (a sweep over "k" shows no k of kNN), `agreement` that of the
    bank that it was trained on.
    """
    runs = swept_runs(companion, field, values, method)
    own = {
        field: [value for value in values for _ in range(companion.cfg.study.sweep_seeds)],
        "agreement": _agreement(companion, runs),
        "model": companion.seed,
    }
    return _table(companion, runs).assign(**own)


def swept_runs(
    companion: Companion, field: str, values: Sequence[float], method: str = "CLSP-SimCLR"
) -> list[Scores]:
    """What `sweep` makes; arguments as there."""
    cfg = companion.cfg.study
    of_bank: dict[str, dict] = {"mix_weight": {"k": cfg.sweep_k}, "k": {}}
    if field not in (*of_bank, "weight"):
        raise ConfigError(f"field={field!r}: use one of mix_weight, k, weight.")
    third = companion.cfg.settings(METHODS[method].section).third_view
    runs = []
    for value in values:
        changes = of_bank[field] | {field: value} if field in of_bank else {}
        bank = companion.stage(InterpolatedBank, **changes)
        settings = {} if field in of_bank else {"third_view": change(third, weight=value)}
        seeds = range(companion.seed, companion.seed + cfg.sweep_seeds)
        runs += [_run(companion, method, seed, settings, bank=bank) for seed in seeds]
    return runs


def _agreement(companion: Companion, runs: Sequence[Scores]) -> list[float]:
    """Of each run, how often the judge sees the anchor's class in the candidates of its bank."""

    @cache
    def of_bank(bank: Bank) -> float:
        images = companion.pipeline.get(bank)[:, 0]
        return companion.judge.agreement(images, companion.data.train.labels)

    return [of_bank(run.encoder.bank) for run in runs if run.encoder.bank]


def over_training(companion: Companion, methods: Sequence[str]) -> pd.DataFrame:
    """Scores of CLSP methods over the quality of the model that their candidates come from.

    The models are the companion's own, after each of `SNAPSHOTS` of its training and at its end.

    Returns:
        The columns of `comparison`, and besides share, of the training, and agreement, that of the
        bank that a run saw.
    """
    runs = runs_over_training(companion, methods)
    shares = [share for share in (*SNAPSHOTS, 1.0) for _ in methods for _ in _seeds(companion)]
    own = {"share": shares, "agreement": _agreement(companion, runs), "model": companion.seed}
    return _table(companion, runs).assign(**own)


def runs_over_training(companion: Companion, methods: Sequence[str]) -> list[Scores]:
    """What `over_training` makes; arguments as there."""
    runs = []
    for share in (*SNAPSHOTS, 1.0):
        bank = companion.stage(InterpolatedBank, unet=model_after(companion, share))
        for method in methods:
            runs += [_run(companion, method, seed, {}, bank=bank) for seed in _seeds(companion)]
    return runs


def model_after(companion: Companion, share: float) -> DiffusionModel | Snapshot:
    """The diffusion model as it is after a share of its training, in `SNAPSHOTS` or 1."""
    if share == 1:
        return companion.stage(DiffusionModel)
    return companion.stage(Snapshot, share=share)


def _run(companion: Companion, method: str, seed: int, changes: dict, **given: Any) -> Scores:
    encoder = encoder_of(companion, method, seed, changes, **given)
    return companion.stage(Scores, encoder=encoder, seed=seed)


def encoder_of(
    companion: Companion, method: str, seed: int, changes: dict, **given: Any
) -> Pretrained:
    """The encoder of a run of the study, with `changes` in the place of the profile's settings."""
    settings = change(companion.cfg.settings(METHODS[method].section), **changes)
    profile = companion.cfg.of_seed(model_of(companion, seed))  # which the bank comes from
    return profile.stage(Pretrained, method=method, seed=seed, settings=settings, **given)


def model_of(companion: Companion, seed: int) -> int:
    """The seed of the diffusion model whose candidates the runs of a seed see."""
    return companion.seed + (seed - companion.seed) % companion.cfg.study.models


def _table(companion: Companion, runs: Sequence[Scores]) -> pd.DataFrame:
    scores = companion.get_all(runs, "runs")
    for run in runs:  # the warnings of workers are not seen here
        log = pd.read_csv(companion.pipeline.artifact(run.encoder) / "log.csv")
        if log.spread.iloc[-1] < COLLAPSED:
            print_once(
                f"{run.encoder.method}, seed {run.seed}: collapsed, all projections are (nearly) "
                f"one vector."
            )
    return pd.DataFrame(
        [
            {"method": run.encoder.method, "seed": run.seed, "model": model_of(companion, run.seed)}
            | one
            | {"seconds": companion.pipeline.artifact(run.encoder).manifest["seconds"]}
            for run, one in zip(runs, scores, strict=True)
        ]
    )


# What the authors report, and the command that fills the cell beside it ---------------------------

# Of each data set: number of training images (ImageNet-100: about 1,300 per class), settings, path.
DATASETS: dict[str, tuple[int, dict[str, Any], str]] = {
    "CIFAR10": (50_000, {"data.name": "cifar10"}, ""),
    "CIFAR100": (50_000, {"data.name": "cifar100"}, ""),
    "STL10": (105_000, {"data.name": "stl10"}, ""),
    "ImageNet100": (126_689, {"data.name": "imagenet100", "data.wnids": "WNIDS"}, "IMAGENET"),
}
FLOPS_PER_SECOND = 1e14  # assumed of a GPU


def beside_the_paper() -> pd.DataFrame:
    """Linear top-1 in percent, reported and our own, a row per data set and method (ResNet-18).

    `poster_evaluated` says how the poster's number came about, which is not always as ours. Our own
    are what notebook 06 left behind at the profile `paper`; where there is nothing, the row names
    the command, and what one run costs at an assumed 100 TFLOP/s. IMAGENET and WNIDS stand for the
    folder of ImageNet and the list of CMC's 100 classes.
    """
    table = reported_results()
    table = table[table.backbone == "ResNet18"]
    row = ["dataset", "method"]
    evaluated = table[table.source == "poster"].set_index(row).evaluated
    table = table.pivot(index=row, columns="source", values="top1")
    cells = [_own(dataset, method) for dataset, method in table.index]
    own = pd.DataFrame(cells, table.index, ["ours", "command", "gpu_hours_a_run"])
    return table.join(evaluated.rename("poster_evaluated")).join(own)


def _own(dataset: str, method: str) -> tuple[str, str, str]:
    n, settings, path = DATASETS[dataset]
    profile = Profile("paper", settings, path)
    results = home("build", "paper", profile.data.name, "figures", "06_evaluate.csv")
    if results.exists():
        found = pd.read_csv(results).query("method == @method")
        if len(found):
            own = found.iloc[0]
            linear, half = 100 * own.linear, 100 * own.linear_half_width
            return f"{linear:.2f} ± {half:.2f} ({own.seeds} seeds)", "", ""
    recipe = METHODS[method]
    cfg = profile.settings(recipe.section)
    flops = n * cfg.epochs * len(recipe.views) * training_flops(cfg.backbone, profile.data.size)
    parameters = [f"{name}={value}" for name, value in settings.items()]
    parameters += [f"data={path}"] if path else []
    command = " -p ".join(["python -m clsp_utils run 06 --profile paper", *parameters])
    return "", command, f"{flops / FLOPS_PER_SECOND / 3600:.1f}"
