"""What the checks of exercises compare answers with, a module per notebook (`nb01`, ...).

A check is a function of the answer and of what the notebook gives besides. It returns what is to be
said of a right answer, and raises `Wrong` with one sentence for another. `CHECKS` of each module
has them by the number of their exercise.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

NO_PERCENT = "give a share in [0, 1], not percent"


class Wrong(Exception):
    """An answer is not right; the message says, in one sentence, what the mistake may be."""


def compare(
    found: Any,
    right: Any,
    mistakes: Mapping[str, Any] | None = None,
    otherwise: str = "",
    within: float = 1e-4,
    percent: str = "",
    part: str = "",
) -> None:
    """Compares numbers of any shape with the right ones, and with what usual mistakes give.

    Args:
        found: the student's.
        mistakes: sentence -> what one finds by that mistake; the one that fits best is told.
        otherwise: what to say if none fits; by default how far the answer is off.
        within: largest difference that counts as none.
        percent: what to say of shares that are given in percent, rounded as coarsely.
        part: of an answer of several, the one that this is; it stands before the sentence.

    Raises:
        Wrong: the answer is another.
    """
    try:
        _compare(found, right, mistakes or {}, otherwise, within, percent)
    except Wrong as told:
        raise Wrong(f"{part}: {told}" if part else str(told)) from None


def _compare(
    found: Any, right: Any, mistakes: Mapping[str, Any], otherwise: str, within: float, percent: str
) -> None:
    answer, truth = _numbers(found), _numbers(right)
    if _close(answer, truth, within):
        return
    found_by = {told: _numbers(value) for told, value in mistakes.items()}
    near = {
        told: np.abs(answer - value).max()
        for told, value in found_by.items()
        if _close(answer, value, within)
    }
    if near:
        raise Wrong(min(near, key=near.__getitem__))
    if percent and _close(answer, 100 * truth, 100 * within):
        raise Wrong(percent)
    if answer.shape != truth.shape and not truth.shape:
        raise Wrong(f"one number is expected, and the shape of this is {answer.shape}")
    if answer.shape != truth.shape:
        raise Wrong(f"the shape is {answer.shape}, and {truth.shape} is expected")
    if np.isfinite(truth).all() and not np.isfinite(answer).all():
        raise Wrong("not all of it is finite: is there a division by 0, or a logarithm of 0?")
    off = np.abs(answer - truth).max()
    raise Wrong(otherwise or f"off by up to {off:.3g}, and no usual mistake explains it")


def _numbers(x: Any) -> np.ndarray:
    try:
        rows = [_detached(one) for one in x] if isinstance(x, (list, tuple)) else _detached(x)
        return np.asarray(rows, dtype=float)
    except (TypeError, ValueError):
        raise Wrong(f"numbers are expected, and this is {printed(x)}") from None


def _detached(x: Any) -> Any:
    return x.detach().cpu() if hasattr(x, "detach") else x  # a tensor, or anything else


def _close(a: np.ndarray, b: np.ndarray, within: float) -> bool:
    return a.shape == b.shape and np.allclose(a, b, rtol=0, atol=within)


def entries(answer: Any, *names: Any) -> list[Any]:
    """What a dictionary holds under `names`; `Wrong` if it has other names."""
    if not isinstance(answer, dict) or set(answer) != set(names):
        raise Wrong(f"a dictionary with {', '.join(map(str, names))} is expected")
    return [answer[name] for name in names]


def returns_nothing(function: Callable, *arguments: Any) -> bool:
    """Whether a student's function returns None there, which else stands for an empty stub."""
    return inspect.unwrap(function)(*arguments) is None


def printed(x: Any) -> str:
    """A value on one line, short; numbers with three digits."""
    if isinstance(x, (float, np.floating)):
        return f"{x:.3g}"
    return sentence(sorted(x) if isinstance(x, (set, frozenset)) else x)


def sentence(x: Any, longest: int = 160) -> str:
    """The first line of what is printed of x, cut where it is long."""
    line = (str(x).splitlines() or [""])[0].rstrip(".")
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
