"""Bounds as types: the annotation of an argument says which numbers it takes.

    def __init__(self, *, alpha: Fraction | None = 0.25, gamma: NonNegative = 2.0) -> None: ...

They are `Annotated` types with marks of annotated-types, which other programs can read. For other limits, write
such a type beside the part: `Annotated[int, Interval(ge=0, le=10)]`, `Annotated[list[Positive], MinLen(1)]`. A mark
`doc("at least 1; null keeps all")` gives other words for the bounds; a union may have it, too.
A config is checked when it loads; a registered part, or a class under `enforce_bounds`, when it is built.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from annotated_types import (
    BaseMetadata,
    DocInfo,
    Ge,
    GroupedMetadata,
    Gt,
    Interval,
    Le,
    Lt,
    MaxLen,
    MinLen,
    MultipleOf,
    doc,
)

LARGEST_FLOAT = 3.4e38
"""What float32 holds."""
MOST_CHANNELS, MOST_LAYERS, LARGEST_SIDE = 65_536, 1_000, 16_384
"""A larger number is a typo: it would fill the memory before anything could be reported."""

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
Seed = Annotated[int, Interval(ge=0, le=2**63 - 1), doc("a 63-bit integer, 0 or more")]
"""A seed of random numbers."""


@dataclass(frozen=True)
class Ascending(BaseMetadata):
    """The mark of a list whose numbers must not fall."""

    step: float = 0.0


_LENGTHS = {str: "a text", list: "a list", tuple: "a list", Sequence: "a list", dict: "a map", Mapping: "a map"}
_LIMITS: dict[type[BaseMetadata], tuple[str, Callable[[Any, Any], bool], str]] = {
    Ge: ("ge", operator.ge, "at least {}"),
    Gt: ("gt", operator.gt, "greater than {}"),
    Le: ("le", operator.le, "at most {}"),
    Lt: ("lt", operator.lt, "less than {}"),
    Ascending: ("step", lambda values, _: list(values) == sorted(values), "in ascending order"),
    MultipleOf: ("multiple_of", lambda value, factor: value % factor == 0, "a multiple of {}"),
    MinLen: ("min_length", lambda value, least: len(value) >= least, "{{}} of at least {}"),
    MaxLen: ("max_length", lambda value, most: len(value) <= most, "{{}} of at most {}"),
}


def limits(annotation: object) -> list[BaseMetadata]:
    """The bounds of an `Annotated` type, one by one, without those of the types inside it."""
    return [mark for mark in _marks(annotation) if type(mark) in _LIMITS]


def _marks(annotation: object) -> list[BaseMetadata]:
    if get_origin(annotation) is not Annotated:
        return []
    marks = (tuple(mark) if isinstance(mark, GroupedMetadata) else (mark,) for mark in get_args(annotation)[1:])
    return [mark for group in marks for mark in group if isinstance(mark, BaseMetadata)]


def bounds_problem(annotation: object) -> str | None:
    """Why the marks of a type, or of one inside it, can't be checked; None if they can."""
    for mark in _marks(annotation):
        inner = get_args(annotation)[0]
        if type(mark) not in _LIMITS:
            return f"{mark!r} is no bound; must be one of {', '.join(kind.__name__ for kind in _LIMITS)}"
        if isinstance(mark, (Ascending, MinLen, MaxLen)):
            if (get_origin(inner) or inner) not in _LENGTHS:
                return f"{mark!r} must stand on a str, list, tuple or dict, as in Annotated[list[int], {mark!r}] | None"
        elif inner not in (int, float):
            return f"{mark!r} must stand on an int or float, as in Annotated[int, {mark!r}] | None"
    return next(filter(None, map(bounds_problem, get_args(annotation))), None)


def is_bounded(annotation: object) -> bool:
    """Whether a type, or a type inside it, carries bounds."""
    return bool(limits(annotation)) or any(is_bounded(part) for part in get_args(annotation))


def bounds_text(annotation: object) -> str:
    """The bounds of a type in words, as in "between 0 and 1"; empty where there are none."""
    if get_origin(annotation) is not Annotated:
        return ""
    inner, *all_marks = get_args(annotation)
    for mark in all_marks:
        if isinstance(mark, DocInfo):
            return mark.documentation
    marks = limits(annotation)
    if [type(mark) for mark in marks] == [Ge, Le]:
        return f"between {_bound_text(marks[0])} and {_bound_text(marks[1])}"
    kind = _LENGTHS.get(get_origin(inner) or inner, "")
    return " and ".join(_LIMITS[type(mark)][2].format(_bound_text(mark)).format(kind) for mark in marks)


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


def _bound_text(mark: BaseMetadata) -> str:
    """As an error shows it: 1e-05, 10000, but not a rounded number."""
    bound = _bound(mark)
    short = f"{bound:g}"
    return short if isinstance(bound, float) and float(short) == bound else str(bound)


def _bound(mark: BaseMetadata) -> Any:
    return getattr(mark, _LIMITS[type(mark)][0])
