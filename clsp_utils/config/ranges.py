"""Types of settings with their ranges, and what makes a class of settings."""

import dataclasses
from typing import Annotated, Any, Literal, TypeVar, cast, dataclass_transform

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

T = TypeVar("T")


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("input should be a number")
    return value


# Strict, since True is no number. Nothing here counts further than 10^9: beyond is a slip, of which
# a record of every step alone would fill the memory.
Count = Annotated[int, Field(ge=1, le=10**9, strict=True)]
Several = Annotated[int, Field(ge=2, le=10**9, strict=True)]
CountOrNone = Annotated[int, Field(ge=0, le=10**9, strict=True)]
# 1e30, since products of larger numbers do not fit into fp32.
NotNegative = Annotated[float, Field(ge=0, le=1e30, strict=True)]
Positive = Annotated[float, Field(gt=0, le=1e30, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Step = Annotated[int, Field(ge=0, le=999, strict=True)]
TimeBound = Annotated[int, Field(ge=1, le=1000, strict=True)]  # of the time steps below it
Shares = Annotated[tuple[Share, ...], Field(min_length=1)]
Beta = Annotated[float, Field(gt=0, le=0.1, strict=True)]
Seed = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
# A sampler's steps spread evenly over T = 1000 only when their number divides it.
Steps = Annotated[
    Literal[1, 2, 4, 5, 8, 10, 20, 25, 40, 50, 100, 125, 200, 250, 500, 1000],
    BeforeValidator(_no_bool),
]
Stride = Annotated[Literal[1, 2], BeforeValidator(_no_bool)]
# bf16 where the hardware multiplies it natively ("auto"), or one of the two everywhere.
Precision = Literal["auto", "bf16", "fp32"]


def local(*, default: Any) -> Any:
    """A setting that says how something is computed and not what: it is part of no key."""
    return dataclasses.field(default=default, metadata={"local": True})


@dataclass_transform(
    frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field, local)
)
def frozen(cls: type[T]) -> type[T]:
    """Makes a class of settings: a frozen dataclass whose names, types and ranges are checked."""
    strict = ConfigDict(extra="forbid", allow_inf_nan=False)
    return cast(type[T], dataclass(frozen=True, kw_only=True, config=strict)(cls))
