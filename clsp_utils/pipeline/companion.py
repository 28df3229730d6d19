"""The door of notebooks: one profile, one seed, one store."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from IPython import get_ipython

from clsp_utils.config import PROJECT, ConfigError, home
from clsp_utils.data import Images
from clsp_utils.evaluation import Judge
from clsp_utils.pipeline.pipeline import Pipeline
from clsp_utils.pipeline.profile import Profile
from clsp_utils.pipeline.stage import Stage
from clsp_utils.pipeline.stages import DiffusionModel, Pretrained, read_anew
from clsp_utils.runtime import Diverged, device, print_once, resolve_precision
from clsp_utils.store import Artifact, Request, StoreError
from clsp_utils.store.shared import SharedStore


def _refuse_another_checkout(project: Path) -> None:
    """A notebook of one checkout with the package of another would leave its results there."""
    if (project / "clsp_utils" / "__init__.py").exists() and not project.samefile(PROJECT):
        raise ConfigError(
            f"This notebook is of {str(project)!r}, but clsp_utils comes from {str(PROJECT)!r}: "
            f"install the one beside the notebook, with pip install -e."
        )


# What a sentence says as well as a page of calls.
TOLD_BRIEFLY = (ConfigError, StoreError, Diverged, KeyboardInterrupt)


def _tell_briefly(
    shell: Any, kind: type, error: BaseException, trace: Any, tb_offset: int | None = None
) -> None:
    """Shows an error of a notebook without the calls that led to it; `%tb` shows these."""
    if isinstance(error, KeyboardInterrupt):
        error = kind("stopped. Run the cell again, and it goes on where it was.")
    shell.showtraceback((kind, error, trace), exception_only=True)


class Companion:
    """One profile, one seed and one store: gives what stages make, and makes what is missing.

    Args:
        profile: name of a profile, see `config.PROFILES`.
        seed: seeds the diffusion model, the bank, and the first of the encoders.
        overrides: single settings, see `pipeline.Profile`.
        data: where the images lie, for the profiles that do not draw their own.

    Attributes:
        cfg: the profile: `cfg.study.samples`, `cfg.simclr.epochs`, `cfg.diffusion.steps`.
        data: the images: `data.train`, `data.test`, `data.labelled`, `data.statistics`.
        precision: what "auto" comes to here.
        figures: folder of figures and tables, a build product: figures/ holds the committed ones,
            which the plain laptop profile draws again where CLSP_REDRAW is set (`make redraw`).
        note: printed on figures that only test the wiring.
        content: what a label says of an image: "digit", or "class" on other data.

    Raises:
        ConfigError: a name, type or range is wrong.
        StoreError: the store cannot be written.
    """

    def __init__(
        self,
        profile: str = "laptop",
        seed: int = 0,
        overrides: Mapping[str, Any] | str = "",
        data: str = "",
    ):
        if shell := get_ipython():
            shell.set_custom_exc(TOLD_BRIEFLY, _tell_briefly)
        _refuse_another_checkout(Path.cwd().parent)
        read_anew()
        self.cfg, self.seed = Profile(profile, overrides, data, seed), seed
        self.data = self.cfg.data
        self.precision = resolve_precision(self.cfg.precision)
        store = SharedStore(home("artifacts"), print_once)
        self.pipeline = Pipeline(store, announce=profile != "smoke")
        default = Profile("laptop")
        plain = profile == "laptop" and self.cfg.tree == default.tree and seed == 0
        own = [] if self.data.name == default.data.name else [self.data.name]
        redraws = plain and os.environ.get("CLSP_REDRAW")
        self.figures = home("figures") if redraws else home("build", profile, *own, "figures")
        self.note = "smoke" if profile == "smoke" else ""
        self.content = "class" if own else "digit"
        threads = f"{torch.get_num_threads()} threads"
        print_once(f"profile {profile}, seed {seed}, {self.precision}, {threads}.")
        if own:
            print_once(
                f"Numbers, figures and captions are those of {own[0]}; the other texts tell of the "
                f"default images."
            )

    @property
    def study_images(self) -> Images:
        """The test images that the curves over w, and the masks, are measured on."""
        return self.data.study_images(self.cfg.study.samples)

    def stage(self, kind: type[Stage], **given: Any) -> Any:
        """The stage of a kind as the profile says, with `given` fields in the place of its own."""
        return self.cfg.stage(kind, **given)

    def outlook(self, stages: Sequence[Stage]) -> None:
        """Says what of long stages, with all that they need, is yet to be made, a line per kind.

        On a CPU a few steps of each kind are timed, to say how long that will take. (On a GPU this
        would compile networks: there each stage says it when it begins.)
        """
        if self.pipeline.announce and device().type == "cpu":
            costs = self.pipeline.estimate(stages)
            lines = [f"{n} x {name}, about {max(m, 0.1):.1f} min here" for name, n, m in costs]
        else:
            missing = self.pipeline.missing(stages)
            lines = [f"{len(same)} x {name}" for name, same in missing.items()]
        for line in lines:
            print_once(f"to make: {line}")
        if lines:
            print_once(
                "Kernel > Interrupt stops a cell that makes it; run again, it goes on there."
            )
        else:
            print_once("All that takes long is in the store.")

    def artifact(self, kind: type[Stage], **given: Any) -> Artifact:
        """Its result as the store keeps it."""
        return self.pipeline.artifact(self.stage(kind, **given))

    def get(self, kind: type[Stage], **given: Any) -> Any:
        """Its result, loaded."""
        return self.pipeline.get(self.stage(kind, **given))

    def get_all(self, stages: Sequence[Stage], what: str) -> list[Any]:
        """Results of several stages, made side by side where there are cores for it."""
        return self.pipeline.get_all(stages, what)

    @cached_property
    def unet(self) -> Any:
        """The diffusion model in eval mode."""
        return self.get(DiffusionModel)

    @cached_property
    def judge(self) -> Judge:
        """A classifier, trained with labels on the anchors, that names the class in an image."""
        classifier = self.get(Pretrained, method="supervised")
        return Judge(classifier, self.data.statistics, self.precision)

    def cached(
        self, name: str, settings: Mapping[str, Any], make: Callable[[], np.ndarray]
    ) -> np.ndarray:
        """An array that a notebook computes from the diffusion model, kept in the store.

        `settings` must hold all that shapes it besides data, UNet, seed and precision.
        """
        own = {"name": name, "seed": self.seed, "precision": self.cfg.precision}
        unet = self.stage(DiffusionModel)
        request = Request("arrays", {**settings, **own}, (unet.request.key,))
        artifact = self.pipeline.store.get(
            request, lambda out, work: np.save(out / "array.npy", make())
        )
        return np.load(artifact / "array.npy")
