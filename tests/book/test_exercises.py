"""Checks and predictions: what they say of stubs, of errors, of answers of any kind."""

import numpy as np
import pytest
import torch

from clsp_utils.book import check, exercises, predict, predicted
from clsp_utils.book.checks import Wrong, compare, entries, printed, sentence


@pytest.fixture
def said(capsys):
    def ask(function, *arguments, **given):
        assert function(*arguments, **given) is None
        return capsys.readouterr().out

    return ask


def stub(*arguments):
    return None


@pytest.mark.parametrize(
    "name, answer",
    [
        ("04.1", None),
        ("04.1", stub),
        ("04.3", {"promised": 0.5, "measured": None}),
        ("05.5", {"alignment": stub, "uniformity": stub}),
        ("01.2", {800: []}),
        ("03.2", {"h = 0": (None, "kept")}),
    ],
)
def test_empty_stub_is_not_yet_right(said, name, answer):
    given = {"curve": None, "companion": None, "shared": None} if name == "04.3" else {}
    if name == "01.2":
        given = {"noised": None, "labels": None, "times": None, "companion": None}
    asks = predict if name == "03.2" else check
    assert said(asks, name, answer, **given).startswith(f"not yet: {name} ")


def test_the_part_that_is_still_empty_is_named(said):
    answer = {"top-1": 0.9, "mean per class": None}
    assert said(check, "09.1", answer) == "not yet: 09.1 waits for your answer (mean per class).\n"
    edits = {"silence": lambda f, t: f._replace(h=0 * f.h), "average": lambda f, t: None}
    told = said(check, "03.1", edits | {"leave": None}, unet=None, noise=None)
    assert told == "not yet: 03.1 waits for your answer (leave).\n"
    told = said(check, "03.1", edits | {"leave": lambda f, t: f}, unet=None, noise=None)
    assert told == "not yet: 03.1 waits for your answer (average).\n"


def test_error_in_the_answer_is_told_in_one_sentence_with_its_line(said):
    def mine(h, h_anchor, w):
        first = 1
        return first / 0

    line = mine.__code__.co_firstlineno + 2
    expected = f"✗ 04.1: line {line} of your cell stops with ZeroDivisionError: division by zero\n"
    assert said(check, "04.1", mine) == expected


def test_error_of_several_lines_is_cut(said):
    def mine(h, h_anchor, w):
        raise ValueError("first line.\nsecond " + "x" * 1000)

    assert said(check, "04.1", mine).endswith("ValueError: first line\n")
    assert len(sentence("x" * 1000)) == 160


def test_function_of_other_arguments_is_told(said):
    text = said(check, "04.1", lambda h: h)
    assert text.startswith("✗ 04.1: the call of your function stops with TypeError: ")


def test_decorated_function_is_followed_to_its_own_line(said):
    @torch.inference_mode()
    def mine(h, h_anchor, w):
        return h + missing  # noqa: F821

    assert "of your cell stops with NameError" in said(check, "04.1", mine)


@pytest.mark.parametrize("answer", [3, "text", [1, 2], {"a": 1}, object(), np.nan, stub])
def test_answer_of_another_kind_is_never_an_error(said, answer):
    for name in ("04.1", "05.1", "05.2", "02.6", "06.3"):
        given = {"contrasts": None} if name == "06.3" else {}
        text = said(check, name, answer, **given)
        assert text.startswith((f"✗ {name}: ", f"not yet: {name} ")) and text.count("\n") == 1


def test_interrupt_ends_a_check():
    def mine(h, h_anchor, w):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check("04.1", mine)


def test_answer_may_write_into_what_it_is_given(said):
    def mine(h, h_anchor, w):
        h *= w
        return h.add_((1 - w) * h_anchor)

    assert said(check, "04.1", mine).startswith("✓")


def test_function_that_an_answer_returns_is_watched_too(said):
    def make(low, edit):
        return lambda features, t: 1 / 0

    answer = {"only_from": make, "match": {1: 2}}
    text = said(check, "04.4", answer, sampled=None, mixed=None, few=None, lows=[1])
    assert text.startswith("✗ 04.4: line ") and "ZeroDivisionError" in text


# Predictions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "guess, measured, expected",
    [
        (3, 4, "you said 3, measured 4"),
        (0.25, 1 / 3, "you said 0.25, measured 0.333"),
        ({2, 1}, {3}, "you said [1, 2], measured [3]"),
        ([1, 2, 4], [4, 2, 1], "you said [1, 2, 4], measured [4, 2, 1]; rank correlation -1.00"),
        ([1, 2, 4], [1, 2, 4], "rank correlation 1.00"),
        ([1], [1], "you said [1], measured [1]\n"),
        (np.array([1, 2, 4]), [1, 2, 4], "you said [1, 2, 4], measured [1, 2, 4]; rank"),
        (torch.tensor([1, 2]), [1, 2], "you said [1, 2], measured [1, 2]; rank"),
        ([np.int64(1), 2], [1, 2], "you said [1, 2], measured"),
        ({"a": "kept", "b": "lost"}, {"a": "kept", "b": "kept"}, "1 of 2 as you said\n  a: you"),
    ],
)
def test_guess_stands_beside_what_is_measured(said, guess, measured, expected):
    assert "kept" in said(predict, "99.1", guess)
    text = said(predicted, "99.1", measured)
    assert text.startswith("✓ 99.1: ") and expected in text


@pytest.mark.parametrize(
    "guess, measured, hint",
    [
        ([1, 2], [1, 2, 3], "each of [1, 2, 3] once"),
        ({"a": 1}, {"a": 1, "b": 2}, "an entry for each of a, b"),
        (5, {"a": 1}, "an entry for each of a"),
        (5, [1, 2], "each of [1, 2] once"),
        ([1, "two"], [1, 2], "cannot be compared"),
    ],
)
def test_guess_of_another_kind_is_told(said, guess, measured, hint):
    said(predict, "99.1", guess)
    text = said(predicted, "99.1", measured)
    assert text.startswith("✗ 99.1: ") and hint in text


@pytest.mark.parametrize(
    "guess, choices, wrong",
    [
        ({"h = 0": ("lost", "gone")}, ("kept", "lost"), "'gone'"),
        ([1, 2, 3], [1, 2, 4], "3"),
        ([1, [2, "four"]], [1, 2, 4], "'four'"),
        ("7", range(8), "'7'"),
        (np.array([1, 2, 3]), [1, 2, 4], "3"),
    ],
)
def test_guess_that_is_no_choice_is_refused_at_once(said, guess, choices, wrong):
    said(predict, "99.1", choices[0], choices)  # an earlier guess, which is no longer meant
    text = said(predict, "99.1", guess, choices)
    told = f"{choices[0]!r}, {choices[1]!r}"
    assert text.startswith(f"✗ 99.1: use {told}") and text.endswith(f"; {wrong} is none of them.\n")
    assert said(predicted, "99.1", 1).startswith("not yet")


def test_nothing_is_measured_before_there_is_a_guess(said):
    said(predict, "99.1", None)
    text = said(predicted, "99.1", lambda: pytest.fail("was measured"))
    assert text.startswith("not yet: 99.1 ")
    said(predict, "99.1", 2)
    assert "measured 7" in said(predicted, "99.1", lambda: 7)


def test_guess_that_is_taken_back_is_gone(said):
    said(predict, "99.1", 1)
    said(predict, "99.1", None)
    assert said(predicted, "99.1", 1).startswith("not yet")
    assert "99.1" not in exercises._GUESSES


# Comparing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "found, told",
    [
        (torch.tensor([1.0, 2.1]), "off by up to 0.1"),
        ([2, 1], "exchanged"),
        ([[1, 2]], "the shape is (1, 2), and (2,) is expected"),
        (3, "the shape is (), and (2,) is expected"),
        ([np.nan, 2], "here: not all of it is finite"),
        ([-np.inf, 2], "here: not all of it is finite"),
        ("text", "here: numbers are expected, and this is text"),
        ([0.1, 0.2], "tenth"),
        ([100.005, 200.004], "^here: not percent$"),
        ([100.02, 200], "^here: off by up to 198"),
    ],
)
def test_compare_names_the_mistake(found, told):
    mistakes = {"exchanged": [2, 1], "tenth": np.array([0.1, 0.2])}
    with pytest.raises(Wrong, match=told.replace("(", r"\(").replace(")", r"\)")):
        compare(found, [1, 2], mistakes, percent="not percent", part="here")


def test_compare_asks_for_one_number():
    with pytest.raises(Wrong, match=r"^one number is expected, and the shape of this is \(2,\)$"):
        compare([1, 2], 1)


def test_compare_takes_what_is_right():
    for found in ([1, 2], (1.0, 2.0), np.array([1, 2]), torch.tensor([1.0, 2.0 + 1e-6])):
        compare(found, torch.tensor([1.0, 2.0]), {"exchanged": [1, 2]})
    compare(torch.ones(2, requires_grad=True), [1, 1])
    compare(tuple(torch.ones(2, requires_grad=True)), [1, 1])
    with pytest.raises(Wrong, match="^hint$"):
        compare(1, 2, otherwise="hint")
    compare(1, 2, within=1)


def test_entries_are_those_of_the_names():
    assert entries({"b": 2, "a": 1}, "a", "b") == [1, 2]
    for answer in ({"a": 1}, {"a": 1, "b": 2, "c": 3}, [1, 2], 3):
        with pytest.raises(Wrong, match="a dictionary with a, b"):
            entries(answer, "a", "b")


def test_values_are_printed_short():
    assert printed(1 / 3) == "0.333" and printed({3, 1}) == "[1, 3]" and printed(7) == "7"
