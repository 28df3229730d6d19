"""Any settings that the declarations allow: refused in one sentence, or all notebooks run.

The walk changes a few settings of a tiny profile at a time, each to a random value of its declared
type. CLSP_WALK=300 draws so many (a few seconds each); CLSP_WALK_FROM=7 starts with the seventh.
"""

import contextlib
import dataclasses
import io
import os
import random
import re
import types
import typing

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest

import clsp_utils.book
from clsp_utils.book.run_notebooks import find_notebooks
from clsp_utils.config import METHODS, ConfigError, Study, dotted
from clsp_utils.config import home as home_of
from clsp_utils.pipeline import Profile, Stage
from clsp_utils.runtime import Diverged

# The least work that still has all steps.
_ENCODER = {
    "backbone.layers": (1,),
    "backbone.width": 4,
    "backbone.hidden": 4,
    "backbone.projection": 4,
    "batch": 32,
    "epochs": 1,
}
TINY = {
    "precision": "fp32",
    "data.size": 8,
    "data.limit": 200,
    "data.draws": 1,
    "diffusion.unet.channels": (8, 8),
    "diffusion.steps": 2,
    "diffusion.batch": 8,
    "candidates.steps": 1,
    "class_candidates.steps": 1,
    **{f"pretrain.{name}": value for name, value in _ENCODER.items()},
    **{f"classifier.{name}": value for name, value in _ENCODER.items()},
    "pretrain.queue": 32,
    "probe.epochs": 1,
    "probe.neighbours": (5,),
    "study.samples": 16,
    "study.steps": 1,
    "study.mask_steps": 1,
    "study.mix_weights": (0.1, 1.0),
    "study.tsne": 40,
    "study.seeds": 2,
    "study.methods": ("SimCLR", "CLSP-SimCLR"),
    "study.view_methods": ("CACR",),
    "study.sweep_weights": (0.4,),
    "study.n_pairs": 32,
    "study.k_shown": 2,
    "transfer.pictures": (100, 100, 100),
    "logistic.n_c": 2,
    "logistic.iterations": 5,
    "few_labels.draws": 1,
}
# What takes long where it is large is drawn from its small values.
DEAR = {
    "size": 20,
    "draws": 3,
    "limit": 260,
    "epochs": 2,
    "layers": 3,
    "k": 3,
    "sweep_k": 2,
    "steps": 5,
    "mask_steps": 5,
    "seeds": 3,
    "sweep_seeds": 3,
    "width": 9,
    "k_shown": 4,
    "channels": 48,
    "hidden": 300,
    "projection": 300,
    "pictures": 200,
    "n_c": 3,
    "stages": 3,
    "prototypes": 300,
}
FIXED = {  # others test these
    "name", "path", "wnids", "source", "precision", "transfer", "view_methods",
}  # fmt: skip
NUMBERS = (1, 2, 3, 5, 7, 8, 12, 16, 20, 33, 64, 100, 200, 201, 999, 1000, 4096, 10**6)
SHARES = (0.0, 1e-9, 0.01, 0.3, 0.5, 0.999, 1.0)
FLOATS = (*SHARES, 2.0, 7.5, 100.0, 1e4, 1e30)


def bounds(metadata):
    """The smallest and largest number that a declaration allows."""
    fields = [part for one in metadata for part in getattr(one, "metadata", [one])]
    low = [getattr(one, "ge", getattr(one, "gt", None)) for one in fields]
    high = [getattr(one, "le", getattr(one, "lt", None)) for one in fields]
    return [next((x for x in xs if x is not None), None) for xs in (low, high)]


def value_of(hint, rng, name, metadata=()):
    """A random value of a declared type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return value_of(arguments[0], rng, name, (*metadata, *arguments[1:]))
    if name == "methods":
        some = rng.sample(sorted(METHODS), rng.randint(0, 2))
        return (
            "SimCLR",
            "CLSP-SimCLR",
            *(one for one in some if one not in ("SimCLR", "CLSP-SimCLR")),
        )
    if origin in (typing.Union, types.UnionType):
        return value_of(rng.choice(arguments), rng, name, metadata)
    if hint is type(None):
        return None
    if origin is typing.Literal:
        return rng.choice(
            [x for x in arguments if not isinstance(x, int) or x <= DEAR.get(name, 1000)]
        )
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return tuple(value_of(arguments[0], rng, name) for _ in range(rng.randint(1, 3)))
        return tuple(value_of(one, rng, name) for one in arguments)
    if hint is bool:
        return rng.random() < 0.5
    low, high = bounds(metadata)
    values = NUMBERS if hint is int else FLOATS
    high = min(DEAR.get(name, 10**9), high if high is not None else np.inf)
    fits = [x for x in (low, *values) if x is not None and (low is None or x >= low) and x <= high]
    return rng.choice(fits)


def declared(kind, prefix=""):
    """`name -> type` of all settings of a class and of those inside it."""
    found = {}
    for field in dataclasses.fields(kind):
        name, hint = field.name, field.type
        if field.default is dataclasses.MISSING:
            continue
        inside = [
            one
            for one in (hint, *typing.get_args(hint))
            if isinstance(one, type) and dataclasses.is_dataclass(one)
        ]
        found |= declared(inside[0], f"{prefix}{name}.") if inside else {prefix + name: hint}
    return found


def everything():
    """All settings of a profile by dotted name, with their types."""
    kinds = {kind.section: kind for kind in reversed(Stage.kinds.values()) if kind.defaults()}
    kinds |= {recipe.section: recipe.settings for recipe in METHODS.values()} | {"study": Study}
    found = {}
    for section, kind in kinds.items():
        found |= declared(kind, f"{section}.")
    return {name: hint for name, hint in found.items() if name.rpartition(".")[2] not in FIXED}


SETTINGS = everything()


def draw(number):
    """Settings of round `number`: one to four that differ from the tiny profile."""
    rng = random.Random(f"settings {number}")
    names = rng.sample(sorted(SETTINGS), rng.choice((1, 1, 2, 3, 4)))
    return {name: value_of(SETTINGS[name], rng, name.rpartition(".")[2]) for name in names}


CODE = [
    (path.stem, [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"])
    for path in find_notebooks(home_of("notebooks"))
]


def run_notebooks(overrides):
    """The cells of all notebooks, one after the other, in this process."""
    for stem, cells in CODE:
        space = {"__name__": "__main__"}
        for number, source in enumerate(cells):
            if number == 1:
                space |= {"profile": "smoke", "overrides": overrides}
            try:
                exec(compile(source, f"{stem} [{number}]", "exec"), space)
            except (ConfigError, Diverged):
                raise
            except Exception as error:
                raise AssertionError(
                    f"{stem}, code cell {number}: {source[:80]!r}: {error!r}"
                ) from error
        plt.close("all")


def test_all_settings_are_walked_over():
    tree = dotted(Profile("smoke", TINY).tree)
    missing = {name for name in tree if name.rpartition(".")[2] not in FIXED} - set(SETTINGS)
    assert not missing and len(SETTINGS) > 120


WALK = range(
    *(int(os.environ.get(name, n)) for name, n in (("CLSP_WALK_FROM", "0"), ("CLSP_WALK", "4")))
)


@pytest.mark.parametrize("number", WALK)
def test_settings_are_refused_in_one_sentence_or_all_notebooks_run(home, monkeypatch, number):
    changes = draw(number)

    def save(fig, folder, name, table, caption, note=""):
        numbers = table.select_dtypes("number").to_numpy(float)
        assert not np.isinf(numbers).any(), (name, table)
        fig.canvas.draw()
        plt.close(fig)

    monkeypatch.setattr(clsp_utils.book, "save_figure", save)
    monkeypatch.chdir(home_of("notebooks"))
    said = "It ran."
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            run_notebooks(TINY | changes)
        except (ConfigError, Diverged) as refusal:
            said = str(refusal)
    assert re.fullmatch(r"[^\n]+\.", said), (changes, said)
