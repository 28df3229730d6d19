"""A profile with its overrides: every stage as its settings say, checked at once.

Knows nothing of torch, so that the command line can refuse a value before any kernel starts.
"""

import ast
import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar, get_args, get_type_hints

from clsp_utils.config import (
    BY_DATA_SET,
    CONTRASTIVE,
    METHODS,
    PAPER_BY_DATA_SET,
    PROFILES,
    ConfigError,
    Precision,
    Seed,
    Study,
    as_dict,
    dotted,
    merge,
    nested,
    validate,
)
from clsp_utils.pipeline import rcg, stages, transfer  # noqa: F401  (so all are known)
from clsp_utils.pipeline.stage import Stage

S = TypeVar("S", bound=Stage)


class Profile:
    """One profile, one seed: gives stages and settings.

    Its sections are attributes: a stage (`profile.diffusion.steps`), a method's settings
    (`profile.simclr.epochs`), `profile.study`, `profile.precision`. `profile.of_seed(1)` is the
    same profile with another seed.

    Args:
        name: a key of `config.PROFILES`.
        overrides: values by dotted names, for example `{"candidates.k": 4}`; or the text of such a
            dictionary. "pretrain.epochs" holds for all contrastive methods, "diffusion.lr" for the
            conditional models such as "class_diffusion" too, unless these are given their own.
        data: the same as the override `data.path`. Where neither profile nor overrides name a data
            set, it is a folder of pictures.
        seed: of every stage that is not given another.

    Raises:
        ConfigError: unknown profile or field, wrong type, or a value out of range.
    """

    def __init__(
        self, name: str, overrides: Mapping[str, Any] | str = "", data: str = "", seed: int = 0
    ):
        if name not in PROFILES:
            raise ConfigError(f"profile={name!r}: use one of {', '.join(sorted(PROFILES))}.")
        self.name, self.seed = name, validate(Seed, seed, "seed")
        given = dict(as_mapping(overrides))
        self.of_seed = partial(Profile, name, given, data)
        kinds = [kind for kind in Stage.kinds.values() if kind.defaults()]
        methods = {recipe.section: recipe.settings for recipe in METHODS.values()}
        tree: dict[str, Any] = {kind.section: kind.defaults() for kind in kinds}
        tree |= {section: as_dict(settings()) for section, settings in methods.items()}
        tree |= {"study": as_dict(Study()), "precision": "auto"}
        common = {name: value for one in CONTRASTIVE for name, value in tree[one].items()}
        conditional = [x.section for x in kinds if issubclass(x, stages.ConditionalDiffusion)]
        plain = dotted(PROFILES[name])
        data_set = str(given.get("data.name", plain.get("data.name")))
        at_scale = BY_DATA_SET.get(data_set, {}) if name in ("gpu", "paper") else {}
        at_paper = PAPER_BY_DATA_SET.get(data_set, {}) if name == "paper" else {}
        for changes in (plain, dotted(at_scale), dotted(at_paper), given):
            own = nested(tree | {"pretrain": common}, changes)
            shared = dict.fromkeys(CONTRASTIVE, own.pop("pretrain", {}))
            followed = {k: x for k, x in own.get("diffusion", {}).items() if k != "source"}
            shared |= dict.fromkeys(conditional, followed)
            for section, values in shared.items():
                fits = {field: values[field] for field in values.keys() & tree[section].keys()}
                tree[section] = merge(tree[section], fits)
            tree = merge(tree, own)
        if data:
            tree["data"]["path"] = data
            if "data.name" not in plain.keys() | given.keys():
                tree["data"]["name"] = "folder"
        self.tree = tree
        self.sections: dict[str, Any] = {
            "precision": validate(Precision, tree["precision"], "precision"),
            "study": validate(Study, tree["study"], "study"),
            **{name: validate(kind, tree[name], name) for name, kind in methods.items()},
        }
        for kind in kinds:  # the first that is declared stands for a section that several share
            self.sections.setdefault(kind.section, self.stage(kind))
        validate(Seed, seed + self.study.seeds, "seed + study.seeds")  # the last encoder's

    def __getattr__(self, section: str) -> Any:
        try:
            return self.__dict__["sections"][section]
        except KeyError:
            raise AttributeError(f"there is no section {section!r} in a profile") from None

    def settings(self, section: str) -> Any:
        """A method's settings."""
        return self.sections[section]

    def stage(self, kind: type[S], **given: Any) -> S:
        """The stage of a kind as this profile says, with `given` fields in the place of its own."""
        given = kind.plan(self, given)
        hints = get_type_hints(kind)
        values = self.tree.get(kind.section, {})
        for field in dataclasses.fields(kind):  # type: ignore[arg-type]
            if field.name in given:
                continue
            hint, *_ = get_args(hints[field.name]) or (hints[field.name],)  # the first of a union
            if field.name in ("seed", "precision"):
                given[field.name] = getattr(self, field.name)
            elif isinstance(hint, type) and issubclass(hint, Stage):
                given[field.name] = self.stage(hint)
            elif field.name in values:
                given[field.name] = values[field.name]
        return validate(kind, given, kind.section)


def as_mapping(overrides: Mapping[str, Any] | str) -> Mapping[str, Any]:
    """Overrides as papermill passes them: a dictionary, or the text of one."""
    if isinstance(overrides, str):
        with suppress(ValueError, SyntaxError):
            overrides = ast.literal_eval(overrides or "{}")
    if not isinstance(overrides, Mapping):
        raise ConfigError(
            f"overrides={overrides!r}: use a dictionary such as {{'candidates.k': 4}}."
        )
    return overrides
