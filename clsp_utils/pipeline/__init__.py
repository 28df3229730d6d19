"""Stages carry results from one notebook to the next; `Companion` is the door to them.

Declarations know nothing of torch, so that the command line starts at once; what computes is
imported when it is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from clsp_utils.pipeline.profile import Profile
from clsp_utils.pipeline.stage import Job, Seeded, Stage
from clsp_utils.pipeline.stages import (
    Bank,
    ClassBank,
    ClassDiffusion,
    Dataset,
    DiffusionModel,
    InterpolatedBank,
    Pretrained,
    Scores,
    StudySamples,
)

if TYPE_CHECKING:
    from clsp_utils.pipeline.companion import Companion
    from clsp_utils.pipeline.pipeline import Pipeline
    from clsp_utils.pipeline.studies import beside_the_paper, comparison, sweep

_COMPUTES = {
    "Companion": "companion", "Pipeline": "pipeline", "beside_the_paper": "studies",
    "comparison": "studies", "sweep": "studies",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _COMPUTES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_COMPUTES[name]}"), name)
