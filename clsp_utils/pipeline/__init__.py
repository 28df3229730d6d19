"""Stages carry results from one notebook to the next; `Companion` is the door to them.

Declarations know nothing of torch, so that the command line starts at once; what computes is
imported when it is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from clsp_utils.pipeline.profile import Profile
from clsp_utils.pipeline.rcg import (
    AnchorSamples,
    ClusterBank,
    ClusterDiffusion,
    Clusters,
    RcgBank,
    Representation,
    RepresentationDiffusion,
)
from clsp_utils.pipeline.stage import Job, Seeded, Stage
from clsp_utils.pipeline.stages import (
    Bank,
    ClassBank,
    ClassDiffusion,
    Dataset,
    DiffusionModel,
    InterpolatedBank,
    LayerScores,
    PictureFolder,
    Pretrained,
    Samples,
    Scores,
    Snapshot,
    StudySamples,
)
from clsp_utils.pipeline.transfer import Measures, TransferScores, TransferSet

if TYPE_CHECKING:
    from clsp_utils.pipeline.companion import Companion
    from clsp_utils.pipeline.own_pictures import companion_of, export_encoder, fitting
    from clsp_utils.pipeline.pipeline import Pipeline
    from clsp_utils.pipeline.studies import (
        beside_the_paper,
        compared_runs,
        comparison,
        encoder_of,
        model_after,
        over_training,
        runs_over_training,
        sweep,
        swept_runs,
    )
    from clsp_utils.pipeline.transfer_study import (
        REFERENCES,
        TRANSFER_COMMAND,
        measured,
        transfer_beside_the_paper,
        transfer_sets,
        transferred,
    )

_COMPUTES = {
    "Companion": "companion", "Pipeline": "pipeline", "beside_the_paper": "studies",
    "companion_of": "own_pictures", "export_encoder": "own_pictures", "fitting": "own_pictures",
    "compared_runs": "studies", "comparison": "studies", "encoder_of": "studies",
    "model_after": "studies", "over_training": "studies", "runs_over_training": "studies",
    "sweep": "studies", "swept_runs": "studies",
    "REFERENCES": "transfer_study", "TRANSFER_COMMAND": "transfer_study",
    "measured": "transfer_study", "transfer_beside_the_paper": "transfer_study",
    "transfer_sets": "transfer_study", "transferred": "transfer_study",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _COMPUTES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_COMPUTES[name]}"), name)
