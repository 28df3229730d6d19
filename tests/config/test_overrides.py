"""Trees of settings: changed by dotted names, checked, and refused in one sentence."""

import dataclasses
import re

import pytest

from clsp_utils.config import (
    ConfigError,
    Count,
    Interpolation,
    Precision,
    Several,
    SimCLR,
    Steps,
    alike,
    as_dict,
    change,
    dotted,
    merge,
    nested,
    validate,
)

TREE = {
    "candidates": {"k": 1, "own_rows": 2},
    "simclr": {"views": {"hue": 0.1}},
    "precision": "auto",
}


@pytest.mark.parametrize("kind, value, shown", [
    (Count, 0, "x.y=0: input should be greater than or equal to 1."),
    *((kind, 10**9 + 1, "x.y=1000000001: input should be less than or equal to 1000000000.")
      for kind in (Count, Several)),
    (Count, True, "x.y=True"),
    (Count, 2.5, "x.y=2.5"),
    (Count, None, "x.y=None"),
    (Steps, 7, "x.y=7"),
    (Steps, True, "x.y=True: input should be a number."),
    (Precision, "fp16", "x.y='fp16': input should be 'auto', 'bf16' or 'fp32'."),
    (Interpolation, {"k": 0}, "x.y.k=0"),
    (Interpolation, {"kk": 1}, "x.y.kk=1"),
    (SimCLR, {"views": {"hue": 0.6}}, "x.y.views.hue=0.6"),
])  # fmt: skip
def test_a_refusal_names_place_value_and_range_in_one_sentence(kind, value, shown):
    with pytest.raises(ConfigError) as refusal:
        validate(kind, value, "x.y")
    assert shown in str(refusal.value) and re.fullmatch(r"[a-z][^\n]*\.", str(refusal.value))


def test_what_is_allowed_comes_back_as_its_type():
    assert validate(Count, 3) == 3 and validate(Interpolation, {"k": 3}) == Interpolation(k=3)


def test_settings_are_changed_as_a_copy_that_is_checked():
    settings = SimCLR()
    changed = change(settings, epochs=3)
    assert changed.epochs == 3 and type(changed) is SimCLR and changed.views == settings.views
    assert dataclasses.replace(changed, epochs=settings.epochs) == settings == SimCLR()
    with pytest.raises(ConfigError, match="epochs=0"):
        change(settings, epochs=0)
    with pytest.raises(ConfigError, match="nosuch=1"):
        change(settings, nosuch=1)


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SimCLR().epochs = 3


@pytest.mark.parametrize("word, expected", [
    ("mix_weight", ["candidates.mix_weight"]),
    ("n_steps", ["candidates.steps", "study.mask_steps"]),  # "n" for number may be missing
    ("hue", ["simclr.views.hue"]),
    ("nosuch", []),
    ("", []),
])  # fmt: skip
def test_settings_that_a_plain_word_may_mean(word, expected):
    tree = {
        "candidates": {"mix_weight": 0.1, "steps": 10},
        "study": {"mask_steps": 20, "mix_weights": (0.1,)},
        "simclr": {"views": {"hue": 0.1}},
    }  # fmt: skip
    assert alike(tree, word) == expected


def test_dotted_names_become_a_tree_and_come_back():
    values = {"candidates.k": 4, "simclr.views.hue": 0.2, "precision": "fp32"}
    tree = {"candidates": {"k": 4}, "simclr": {"views": {"hue": 0.2}}, "precision": "fp32"}
    assert nested(TREE, values) == tree and dotted(tree) == values
    assert nested(TREE, {}) == {} and dotted({}) == {}


def test_a_dash_in_a_name_is_as_good_as_an_underscore():
    expected = {"candidates": {"own_rows": 3}}
    assert (
        nested(TREE, {"candidates.own-rows": 3})
        == nested(TREE, {"candidates.own_rows": 3})
        == expected
    )


@pytest.mark.parametrize("name, allowed", [
    ("nosuch", "candidates, precision, simclr"),
    ("nosuch.k", "candidates, precision, simclr"),
    ("candidates.nosuch", "the fields of candidates being k, own_rows"),
    ("simclr.views.nosuch", "the fields of simclr.views being hue"),
    ("candidates.k.x", "candidates, precision, simclr"),
    ("candidates", "candidates, precision, simclr"),
    ("simclr.views", "the fields of simclr being views"),
    ("", "candidates, precision, simclr"),
])  # fmt: skip
def test_a_name_that_is_no_field_is_refused_with_those_that_are(name, allowed):
    with pytest.raises(ConfigError, match=f"'{name}=1' sets no field.*{allowed}") as refusal:
        nested(TREE, {name: 1})
    assert re.fullmatch(r"[a-z][^\n]*\.", str(refusal.value))


def test_merging_changes_what_is_named_and_neither_tree():
    changes = {"candidates": {"k": 4}, "new": {"a": 1}}
    before = {"candidates": {"k": 1, "own_rows": 2}}
    assert merge(before, changes) == {"candidates": {"k": 4, "own_rows": 2}, "new": {"a": 1}}
    assert before == {"candidates": {"k": 1, "own_rows": 2}}
    assert merge({"third_view": {"weight": 1.0}}, {"third_view": None}) == {"third_view": None}


def test_settings_as_plain_values():
    values = as_dict(SimCLR())
    assert values["views"]["crop_area"] == (0.5, 1.0) and values["third_view"] == {
        "weight": 1.0,
        "ramp": 0.3,
    }
    assert validate(SimCLR, values) == SimCLR()
