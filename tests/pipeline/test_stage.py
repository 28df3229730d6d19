"""Keys follow from the declarations of stages: each field of each stage, whatever there is."""

import dataclasses
import json

import numpy as np
import pytest
from least_work import put_images

from clsp_utils import diffusion, positives
from clsp_utils.config import METHODS, ConfigError, ThirdView, change
from clsp_utils.data import Images
from clsp_utils.pipeline import (
    AnchorSamples,
    InterpolatedBank,
    Pretrained,
    Profile,
    Scores,
    Snapshot,
    Stage,
    StudySamples,
    transfer,
)
from clsp_utils.pipeline.stage import content_of

# Data without a path cannot be given one, and so on: each field has another value in one of these.
BASES = {
    "digits": {},
    "published": {
        "data.name": "cifar10", "data.path": "here", "diffusion.source": "weights",
    },
    "ImageNet-100": {"data.name": "imagenet100", "data.path": "here", "data.wnids": "list"},
}  # fmt: skip
WITHOUT_ANOTHER_VALUE = {
    # No constants are published of the digits; bank, earlier encoder and start are inputs.
    "digits": {
        "data.path",
        "data.wnids",
        "data.normalisation",
        "data.full_size",
        "pretrain.bank",
        "pretrain.earlier",
        "class-diffusion.start",
        "cluster-diffusion.start",
    },
    "published": {"data.wnids"},
    "ImageNet-100": {"data.name", "data.normalisation"},
}
GIVEN = {
    AnchorSamples: {"n": 8, "k": 1},
    Snapshot: {"share": 0.25},
    StudySamples: {
        "mix_weight": 0.5,
        "mix_below": 600,
        "mix_skips": 0,
        "k": 1,
        "steps": 4,
        "eta": None,
        "n": 8,
    },
}


@pytest.fixture(autouse=True)
def _nothing_is_read(monkeypatch):
    images = np.zeros((8, 16, 16, 3), np.uint8)
    few = Images(images, np.arange(8) % 2, np.arange(8), ("cat", "dog"))
    put_images(monkeypatch, few, few)
    monkeypatch.setattr(transfer, "_load", lambda images: (few, few, few))
    monkeypatch.setattr(diffusion, "weights_digest", lambda source: "digest")
    monkeypatch.setattr(positives, "bank_digest", lambda source: "digest")


def declared(base="digits"):
    """Every stage that there is, for every method, by a name."""
    profile, found = Profile("smoke", BASES[base]), {}
    for name, kind in Stage.kinds.items():
        if kind in (Pretrained, Scores):
            for method in METHODS:
                found[f"{name} {method}"] = profile.stage(kind, method=method)
        else:
            given = dict(GIVEN.get(kind, {}))
            if kind is AnchorSamples:
                given["bank"] = profile.stage(InterpolatedBank)
            found[name] = profile.stage(kind, **given)
    return found


def fields(node, is_local=False):
    """Paths of all settings, nested ones too, and whether they are local."""
    for field in dataclasses.fields(node):
        value, here = getattr(node, field.name), is_local or bool(field.metadata.get("local"))
        if dataclasses.is_dataclass(value) and not isinstance(value, Stage):
            yield from (((field.name, *path), below) for path, below in fields(value, here))
        elif not isinstance(value, Stage):
            yield (field.name,), here


def at(node, path):
    for name in path:
        node = getattr(node, name)
    return node


def replaced(node, path, value):
    first, *rest = path
    return change(node, **{first: replaced(getattr(node, first), rest, value) if rest else value})


def others(value):
    """Values beside this one, some of which a field will take."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value - 1, 2 * value, value // 2, value + 64)
    elif isinstance(value, float):
        yield from (value + 0.05, value / 2)
    elif isinstance(value, str):
        yield from ("another", "fp32", "validation", "bottleneck", "SimCLR", "NNCLR")
        yield from ("cifar10", "cifar100", "constant", "published", "per_view")
    elif isinstance(value, tuple):
        yield from ((*value, *value[-1:]), value[:-1], (16,))
        yield from ((other, *value[1:]) for first in value[:1] for other in others(first))
    else:
        yield from (0.5, 1, "fixed_large", ThirdView())


def with_input(stage, old, new):
    """The stage as it is when `old`, which it is made from, becomes `new`."""
    if stage == old:
        return new
    own = {f.name: getattr(stage, f.name) for f in dataclasses.fields(stage)}
    inputs = {name: one for name, one in own.items() if isinstance(one, Stage)}
    return change(stage, **{name: with_input(one, old, new) for name, one in inputs.items()})


def behind(stage):
    """The stage and all that it is made from."""
    return {stage}.union(*map(behind, stage.inputs))


def another(stage, path, downstream):
    """The stages downstream, by what they were, once a field of one has another valid value."""
    for value in others(at(stage, path)):
        try:
            new = replaced(stage, path, value)
            if at(new, path) != at(stage, path):
                return new, {old: with_input(old, stage, new) for old in downstream}
        except ConfigError:
            continue
    return None


@pytest.mark.parametrize("base", BASES)
def test_each_field_of_each_stage_changes_its_key_and_those_downstream_unless_it_is_local(base):
    stages, seen, left = set(declared(base).values()), 0, set()
    if base != "digits":  # the other bases are for what the first has no other value of
        stages = {one for one in stages if one.kind in ("data", "diffusion", "candidates")}
    for stage in stages:
        downstream = {one for one in stages if stage in behind(one)}
        for path, is_local in fields(stage):
            found = another(stage, path, downstream)
            if found is None:
                left.add(".".join((stage.kind, *path)))
                continue
            new, changed = found
            counts = not is_local or content_of(new) != content_of(stage)
            for old, later in changed.items():
                same = old.request.key == later.request.key
                assert same != counts, (stage.kind, path, at(stage, path), at(new, path), old.kind)
            seen += 1
    assert left == WITHOUT_ANOTHER_VALUE[base]
    assert seen > (400 if base == "digits" else 30)


def test_all_fields_that_are_local_are_known():
    found = {
        (stage.kind, ".".join(path))
        for stage in declared().values() for path, is_local in fields(stage) if is_local
    }  # fmt: skip
    assert found == {
        ("data", "path"), ("data", "wnids"), ("diffusion", "source"),
        ("class-diffusion", "source"), ("candidates", "source"), ("class-candidates", "source"),
        ("cluster-candidates", "source"), ("rcg-candidates", "source"),
        ("pretrain", "settings.watch_every"), ("transfer", "path"),
    }  # fmt: skip


def test_no_two_stages_share_a_key():
    stages = set(declared().values())
    assert len({stage.request.key for stage in stages}) == len(stages)


@pytest.mark.parametrize("kind", Stage.kinds)
def test_a_new_version_changes_the_key_and_those_downstream_and_no_other(monkeypatch, kind):
    stages = declared().values()
    before = {stage: stage.request.key for stage in stages}
    monkeypatch.setattr(Stage.kinds[kind], "version", Stage.kinds[kind].version + 1)
    changed = {stage for stage in stages if stage.request.key != before[stage]}
    assert changed == {stage for stage in stages if any(b.kind == kind for b in behind(stage))}
    assert changed


@pytest.mark.parametrize("base", BASES)
def test_a_key_holds_settings_and_content_but_no_local_field_and_no_input(base):
    for stage in declared(base).values():
        request = stage.request
        text = json.dumps(request.config)  # only what JSON knows: no class, no path
        local = {path[-1] for path, is_local in fields(stage) if is_local}
        assert not any(f'"{name}":' in text for name in local)
        assert not any(f'"{name}"' in text for name in ("here", "list"))
        assert request.inputs == tuple(one.request.key for one in stage.inputs)
        expected = {f.name for f in dataclasses.fields(stage)} - local
        expected -= {name for name in expected if isinstance(getattr(stage, name), Stage)}
        assert set(request.config) == expected | set(content_of(stage))
        assert request.stage == stage.kind and request.version == stage.version


def test_settings_of_numbers_that_are_equal_have_one_key():
    one = Profile("smoke", {"candidates.mix_weight": 1, "diffusion.unet.channels": [16, 32]})
    other = Profile("smoke", {"candidates.mix_weight": 1.0, "diffusion.unet.channels": (16, 32)})
    assert one.candidates.request.key == other.candidates.request.key


def test_defaults_are_the_fields_with_a_default_and_the_section_of_the_profile():
    profile = Profile("smoke")
    for kind in Stage.kinds.values():
        own = {f.name for f in dataclasses.fields(kind) if f.default is not dataclasses.MISSING}
        assert set(kind.defaults()) == own
        if own:
            assert own <= set(profile.tree[kind.section])
            for name in own - {"unet"}:
                assert (
                    getattr(profile.stage(kind, **GIVEN.get(kind, {})), name)
                    == (profile.tree[kind.section][name])
                )
