"""Exercises: a check looks at what a student typed, and names the usual mistake.

What each check compares with stands in `book.checks`, a module per notebook. Nothing here raises
for a wrong answer, so that a notebook with empty exercises runs to its end.
"""

import importlib
import inspect
import traceback
from collections.abc import Callable, Collection
from functools import wraps
from typing import Any

import numpy as np
from scipy import stats
from torch import Tensor

from clsp_utils.book.checks import Wrong, printed, sentence

_GUESSES: dict[str, Any] = {}


class NotYet(Exception):
    """An answer, or that part of it which is named, is still the empty stub."""


def check(name: str, answer: Any, **given: Any) -> None:
    """Prints whether an answer is right, and else what its mistake may be.

    Args:
        name: of the exercise, such as "04.2".
        answer: a value, a function, or a dictionary of them; None, and a function that returns
            None, stand for an empty stub.
        given: what else the check needs of the notebook (see `book.checks`).
    """
    compares = importlib.import_module(f"clsp_utils.book.checks.nb{name[:2]}").CHECKS[name]
    try:
        print(f"✓ {name}: {compares(_asked(answer), **given)}")
    except NotYet as empty:
        _wait_for(name, str(empty))
    except Wrong as hint:
        print(f"✗ {name}: {hint}")
    except Exception as error:  # an answer of another kind than the check foresees
        print(f"✗ {name}: this answer cannot be checked, {_told(error)}.")


def predict(name: str, guess: Any, choices: Collection[Any] = ()) -> None:
    """Keeps a guess until `predicted` shows it beside what is measured.

    Args:
        choices: what a guess, or each entry of a list or dictionary, may be; empty = anything.
    """
    _GUESSES.pop(name, None)
    guess = _plain(guess)
    try:
        others = [one for one in _entries(_asked(guess)) if choices and one not in choices]
    except NotYet as empty:
        _wait_for(name, str(empty))
        return
    if others:
        allowed = ", ".join(map(repr, choices))
        print(f"✗ {name}: use {allowed}; {others[0]!r} is none of them.")
        return
    _GUESSES[name] = guess
    print(f"{name}: kept; it will stand beside what is measured.")


def _plain(guess: Any) -> Any:
    """A guess with lists in the place of arrays, and Python's numbers in that of theirs."""
    if isinstance(guess, dict):
        return {key: _plain(part) for key, part in guess.items()}
    if type(guess) in (list, tuple):
        return type(guess)(map(_plain, guess))
    return guess.tolist() if hasattr(guess, "tolist") else guess


def _entries(guess: Any) -> list[Any]:
    """All that stands in lists and dictionaries, however nested."""
    parts = list(guess.values()) if isinstance(guess, dict) else guess
    if isinstance(parts, (list, tuple)):
        return [one for part in parts for one in _entries(part)]
    return [guess]


def predicted(name: str, measured: Any) -> None:
    """Shows the guess that `predict` has kept beside what was measured.

    Args:
        measured: of the kind of the guess: a number, a set, a list in order (from which a rank
            correlation follows), or a dictionary of words; or a function that measures it.
    """
    if name not in _GUESSES:
        _wait_for(name)
        return
    try:
        truth = measured() if callable(measured) else measured
        print(f"✓ {name}: {_beside(_GUESSES[name], truth)}")
    except Wrong as hint:
        print(f"✗ {name}: {hint}")
    except Exception as error:
        print(f"✗ {name}: this guess cannot be compared, {_told(error)}.")


def _wait_for(name: str, part: str = "") -> None:
    print(f"not yet: {name} waits for your answer{f' ({part})' if part else ''}.")


def _beside(guess: Any, truth: Any) -> str:
    if isinstance(truth, dict):
        if not isinstance(guess, dict) or guess.keys() != truth.keys():
            raise Wrong(f"the guess needs an entry for each of {', '.join(map(str, truth))}")
        alike = sum(guess[key] == truth[key] for key in truth)
        lines = (f"  {key}: you said {guess[key]}, measured {truth[key]}" for key in truth)
        return "\n".join([f"{alike} of {len(truth)} as you said", *lines])
    line = f"you said {printed(guess)}, measured {printed(truth)}"
    if isinstance(truth, list):
        if not isinstance(guess, (list, tuple)) or sorted(guess) != sorted(truth):
            raise Wrong(f"the guess must hold each of {sorted(truth)} once")
        if len(truth) > 1:
            places = [guess.index(one) for one in truth]
            line += f"; rank correlation {stats.spearmanr(places, range(len(truth)))[0]:.2f}"
    return line


# The student's own code ---------------------------------------------------------------------------


def _asked(answer: Any, part: str = "") -> Any:
    """The answer, its functions such that they tell what happens in them.

    Args:
        part: key of the answer in a dictionary of several.

    Raises:
        NotYet: it is empty.
    """
    if answer is None:
        raise NotYet(part)
    if type(answer) is dict:
        return {key: _asked(value, part or str(key)) for key, value in answer.items()}
    if type(answer) in (list, tuple):
        if not answer:
            raise NotYet(part)
        return type(answer)(_asked(value, part) for value in answer)
    return _watched(answer, part) if inspect.isfunction(answer) else answer


def _watched(function: Callable, part: str) -> Callable:
    """A student's function: an exception in it becomes a sentence, and None an empty stub."""

    @wraps(function)
    def call(*arguments: Any) -> Any:
        try:
            out = function(*map(_copied, arguments))
        except (NotYet, Wrong):
            raise
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            cell = inspect.unwrap(function).__code__.co_filename
            own = [frame.lineno for frame in frames if frame.filename == cell]
            where = f"line {own[-1]} of your cell" if own else "the call of your function"
            raise Wrong(f"{where} stops with {_told(error)}") from None
        return _asked(out, part)

    return call


def _copied(given: Any) -> Any:
    """A copy of numbers, into which an answer may write."""
    if isinstance(given, Tensor):
        return given.clone()
    return given.copy() if isinstance(given, np.ndarray) else given


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {sentence(error)}" if str(error) else type(error).__name__
