"""Bounds as types: which numbers an argument takes stands in its annotation.

    def __init__(self, *, alpha: Fraction | None = 0.25, gamma: NonNegative = 2.0) -> None: ...

They are `Annotated` types made of annotated-types, so that other programs can read them, too. For other limits, write
such a type beside the part: `Annotated[int, Interval(ge=0, le=10)]`, `Annotated[list[Positive], MinLen(1)]`.
A config is checked when it loads; a registered part, or a class under `enforce_bounds`, when it is built.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Annotated, Any, get_args, get_origin

from annotated_types import BaseMetadata, Ge, GroupedMetadata, Gt, Interval, Le, Lt, MaxLen, MinLen, MultipleOf

LARGEST_FLOAT = 3.4e38
"""What float32 holds."""
MOST_CHANNELS, MOST_LAYERS, LARGEST_SIDE = 65_536, 1_000, 16_384
"""A larger number is a slip of the finger: it would fill the memory before anything could be reported."""

Fraction = Annotated[float, Interval(ge=0, le=1)]
"""[0, 1]: a threshold, a probability, a weight of two."""
OpenFraction = Annotated[float, Interval(gt=0, lt=1)]
"""(0, 1): what has a logit."""
FractionBelowOne = Annotated[float, Interval(ge=0, lt=1)]
"""[0, 1): a momentum."""
FractionAboveZero = Annotated[float, Interval(gt=0, le=1)]
"""(0, 1]."""
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
Channels = Annotated[int, Interval(ge=1, le=MOST_CHANNELS)]
"""Channels of a feature map."""
Layers = Annotated[int, Interval(ge=1, le=MOST_LAYERS)]
"""Layers one after another."""
Side = Annotated[int, Interval(ge=1, le=LARGEST_SIDE)]
"""A side of an image or box, in pixels."""
Seed = Annotated[int, Interval(ge=0, le=2**63 - 1)]
"""A seed of random numbers."""

_LIMITS: dict[type[BaseMetadata], tuple[str, Callable[[Any, Any], bool], str]] = {
    Ge: ("ge", operator.ge, "at least {}"),
    Gt: ("gt", operator.gt, "greater than {}"),
    Le: ("le", operator.le, "at most {}"),
    Lt: ("lt", operator.lt, "less than {}"),
    MultipleOf: ("multiple_of", lambda value, factor: value % factor == 0, "a multiple of {}"),
    MinLen: ("min_length", lambda value, least: len(value) >= least, "a list of at least {}"),
    MaxLen: ("max_length", lambda value, most: len(value) <= most, "a list of at most {}"),
}


def limits(annotation: object) -> list[BaseMetadata]:
    """The bounds that an `Annotated` type carries itself, one by one; those of list items stand in the items' type."""
    if get_origin(annotation) is not Annotated:
        return []
    marks = (tuple(mark) if isinstance(mark, GroupedMetadata) else (mark,) for mark in get_args(annotation)[1:])
    return [mark for group in marks for mark in group if isinstance(mark, BaseMetadata) and type(mark) in _LIMITS]


def is_bounded(annotation: object) -> bool:
    """Whether a type, or a type inside it, carries bounds."""
    return bool(limits(annotation)) or any(is_bounded(part) for part in get_args(annotation))


def bounds_text(annotation: object) -> str:
    """The bounds of a type in words, as in "between 0 and 1"; empty where there are none."""
    own = limits(annotation)
    kinds = [type(mark) for mark in own]
    if kinds == [Ge, Le]:
        return f"between {number_text(_bound(own[0]))} and {number_text(_bound(own[1]))}"
    return " and ".join(_LIMITS[type(mark)][2].format(number_text(_bound(mark))) for mark in own)


def is_within(value: object, annotation: object) -> bool:
    """Whether a value of a type keeps to its bounds."""
    return all(_LIMITS[type(mark)][1](value, _bound(mark)) for mark in limits(annotation))


def boundary_values(annotation: object) -> Iterator[float]:
    """The numbers at the bounds of a type, or just inside where a bound itself is refused; also those of a union."""
    for part in get_args(annotation):
        yield from boundary_values(part)
    for mark in limits(annotation):
        bound = _bound(mark)
        if isinstance(mark, (Ge, Le)):
            yield bound
        elif isinstance(mark, (Gt, Lt)):
            step = 1 if get_args(annotation)[0] is int else 1e-6 * max(1.0, abs(bound))
            yield bound + step if isinstance(mark, Gt) else bound - step


def number_text(value: object) -> str:
    """A number as an error shows it: 100000, but 1e+11."""
    if isinstance(value, float) or (isinstance(value, int) and abs(value) >= 10**9):
        return f"{value:g}"
    return str(value)


def _bound(mark: BaseMetadata) -> Any:
    return getattr(mark, _LIMITS[type(mark)][0])
