"""Trees of settings: changed by dotted names, checked, and refused in one sentence."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


class ConfigError(ValueError):
    """A setting that cannot be used; the message names the value and what is allowed."""


def validate(kind: Any, value: Any, where: str = "") -> Any:
    """`value` as the type `kind`, or a ConfigError of one sentence that names value and range."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in ([where] if where else []) + list(first["loc"]))
        message = first["msg"].removeprefix("Value error, ").rstrip(".")
        shown = f"={first['input']!r}" if not isinstance(first["input"], dict) else ""
        where = f"{path}{shown}: " if path or shown else ""
        raise ConfigError(f"{where}{message[0].lower()}{message[1:]}.") from None


def change(settings: T, /, **fields: Any) -> T:
    """A copy of `settings` with fields replaced and checked, or a ConfigError."""
    own = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}  # type: ignore[arg-type]
    return validate(type(settings), own | fields)


def as_dict(node: Any) -> dict:
    """Settings as plain dictionaries, tuples, numbers and strings."""
    return dataclasses.asdict(node)


def merge(tree: dict, changes: Mapping[str, Any]) -> dict:
    """`tree` with the values of a tree of changes in the place of its own."""
    out = dict(tree)
    for name, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(out.get(name), dict)
        out[name] = merge(out[name], value) if both else value
    return out


def nested(tree: dict, overrides: Mapping[str, Any]) -> dict:
    """Overrides by dotted names as a tree of changes: `{"candidates.k": 4}` to nested dictionaries.

    Raises:
        ConfigError: a name that is no field of `tree`; the message lists those that are.
    """
    changes: dict[str, Any] = {}
    for path, value in overrides.items():
        *branches, leaf = str(path).replace("-", "_").split(".")
        node: Any = tree
        for branch in branches:
            node = node.get(branch) if isinstance(node, dict) else None
        if not isinstance(node, dict) or leaf not in node or isinstance(node[leaf], dict):
            allowed = sorted(node) if isinstance(node, dict) else sorted(tree)
            inside = f" of {'.'.join(branches)}" if isinstance(node, dict) and branches else ""
            near = [] if isinstance(node, dict) and branches else alike(tree, leaf)
            meant = f" (is it {' or '.join(near)}?)" if near else ""
            raise ConfigError(
                f"overrides: '{path}={value}' sets no field{meant}; write field=value, the "
                f"fields{inside} being {', '.join(allowed)}."
            )
        for branch in reversed([*branches, leaf]):
            value = {branch: value}
        changes = merge(changes, value)
    return changes


def alike(tree: Mapping[str, Any], word: str) -> list[str]:
    """Dotted names of the settings that somebody may mean by a plain word.

    Those whose last part has all of its words; "n" (number of) may be missing. So "mix_weight" is
    `candidates.mix_weight`, and "n_steps" also `study.mask_steps`.
    """
    parts = {name: set(name.rpartition(".")[2].split("_")) for name in sorted(dotted(tree))}
    words = set(word.split("_"))
    return [name for name, own in parts.items() if words <= own] or [
        name for name, own in parts.items() if "n" in words and words - {"n"} <= own
    ]


def dotted(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree as values by dotted names: `{"candidates": {"k": 4}}` to `{"candidates.k": 4}`."""
    out: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            out |= {f"{name}.{below}": leaf for below, leaf in dotted(value).items()}
        else:
            out[name] = value
    return out
