"""Tables of what encoders are worth beyond their own labels, and the paper's beside them."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from clsp_utils.config import ConfigError, home
from clsp_utils.evaluation import reported_transfer
from clsp_utils.pipeline.companion import Companion
from clsp_utils.pipeline.stages import Pretrained
from clsp_utils.pipeline.studies import encoder_of, model_of
from clsp_utils.pipeline.transfer import Measures, TransferScores, TransferSet

# "supervised" has the network, views, epochs and batch of SimCLR, and labels; "untrained" is the
# network that SimCLR starts from.
REFERENCES = ("supervised", "untrained")


def transfer_sets(companion: Companion) -> list[str]:
    """Names of the sets that features travel to: all of the study but the one they come from."""
    own, given = companion.cfg.data.name, companion.cfg.study.transfer
    names = [name for name in given if name != own]
    if not names:
        raise ConfigError(f"study.transfer={given!r} must name another data set than {own!r}.")
    return names


def transferred(companion: Companion, methods: Sequence[str]) -> pd.DataFrame:
    """Scores on other data of every method on every seed of the study, a row per run.

    Args:
        methods: of the study, or of `REFERENCES`.

    Returns:
        Columns set, method, seed, model, score, c: name of the data set, number of the diffusion
        model, accuracy in [0, 1] (see `data.scored_per_class`), and the C that was chosen.
    """
    names = transfer_sets(companion)
    rows, encoders = _encoders(companion, methods)
    stages = [
        companion.stage(TransferScores, images=companion.stage(TransferSet, name=name), **given)
        for name in names
        for given in encoders
    ]
    scores = companion.get_all(stages, "transfer")
    named = [{"set": name} | row for name in names for row in rows]
    return pd.DataFrame([row | score for row, score in zip(named, scores, strict=True)])


def measured(companion: Companion, methods: Sequence[str]) -> pd.DataFrame:
    """Measures of every method on every seed of the study, a row per run.

    Args:
        methods: of the study, or of `REFERENCES`.

    Returns:
        Columns method, seed, model, and those of `evaluation.measure`.
    """
    rows, encoders = _encoders(companion, methods)
    found = companion.get_all(
        [companion.stage(Measures, **given) for given in encoders], "measures"
    )
    return pd.DataFrame([row | one for row, one in zip(rows, found, strict=True)])


def _encoders(
    companion: Companion, methods: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A row for each run, and the encoder that a stage measures for it."""
    seeds = range(companion.seed, companion.seed + companion.cfg.study.seeds)
    runs = [(method, seed) for seed in seeds for method in methods]
    rows = [
        {"method": method, "seed": seed, "model": model_of(companion, seed)}
        for method, seed in runs
    ]
    return rows, [
        {"encoder": _encoder(companion, method, seed), "trained": method != "untrained"}
        for method, seed in runs
    ]


def _encoder(companion: Companion, method: str, seed: int) -> Pretrained:
    simclr, changes = companion.cfg.simclr, {}
    if method == "supervised":
        names = ("backbone", "views", "epochs", "batch")
        changes = {name: getattr(simclr, name) for name in names}
    return encoder_of(companion, "SimCLR" if method == "untrained" else method, seed, changes)


# What the authors report --------------------------------------------------------------------------

# FOLDER stands for the one with the nine data sets, as torchvision expects them.
TRANSFER_COMMAND = (
    "python -m clsp_utils run 09 --profile paper -p data.name=stl10 -p transfer.path=FOLDER"
)


def transfer_beside_the_paper() -> pd.DataFrame:
    """Transfer from STL-10 in percent, reported and our own, a row per data set and method.

    Our own is what notebook 09 left behind after `TRANSFER_COMMAND`; empty where there is nothing.
    """
    table = reported_transfer()
    table = table.pivot(index=["dataset", "method"], columns="source", values="score")
    results = home("build", "paper", "stl10", "figures", "09_transfer.csv")
    found = pd.read_csv(results) if results.exists() else pd.DataFrame()
    ours = {
        (one["set"], one.method): (
            f"{100 * one.score:.2f} ± {100 * one.half_width:.2f} ({one.seeds} seeds)"
        )
        for _, one in found.iterrows()
    }
    rows = list(dict.fromkeys([*table.index, *ours]))
    table = table.reindex(pd.MultiIndex.from_tuples(rows, names=table.index.names))
    return table.assign(ours=[ours.get(row, "") for row in rows])
