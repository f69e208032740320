from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_type_hints

import numpy as np
import pytest
import torch
from annotated_types import Ge, Interval, MaxLen, MinLen, MultipleOf, Predicate, doc

from detkit.coders.base import BoxCoder
from detkit.losses.sigmoid import SigmoidLoss
from detkit.registry import (
    CODERS,
    REGISTRIES,
    Fraction,
    FractionAboveZero,
    FractionBelowOne,
    NonNegative,
    NonNegativeInt,
    OpenFraction,
    Positive,
    PositiveInt,
    Seed,
    Side,
    enforce_bounds,
)
from detkit.registry.bounds import Ascending, bounds_text, is_bounded
from detkit.registry.values import OutOfBounds, TypeMismatch, convert, value_text
from tests.refusals import Refuses


@pytest.mark.parametrize(
    ("annotation", "inside", "outside", "text"),
    [
        (Fraction, [0, 1, 0.5], [-1e-9, 1.1], "between 0 and 1"),
        (OpenFraction, [1e-9, 0.5], [0, 1], "greater than 0 and less than 1"),
        (FractionBelowOne, [0, 0.999], [1, -1], "at least 0 and less than 1"),
        (FractionAboveZero, [1, 1e-9], [0, 2], "greater than 0 and at most 1"),
        (Positive, [1e-9, 3e38], [0, -1], "greater than 0"),
        (NonNegative, [0], [-1e-9], "at least 0"),
        (PositiveInt, [1], [0, -1], "at least 1"),
        (NonNegativeInt, [0], [-1], "at least 0"),
        (Side, [1, 16_384], [0, 16_385], "between 1 and 16384"),
        (Annotated[int, MultipleOf(32)], [0, 64], [33], "a multiple of 32"),
    ],
)
def test_a_bound_admits_what_it_says_and_names_itself(
    annotation: Any, inside: list[float], outside: list[float], text: str
) -> None:
    assert bounds_text(annotation) == text
    for value in inside:
        assert convert(value, annotation) == value
    for value in outside:
        with pytest.raises(OutOfBounds) as caught:
            convert(value, annotation)
        assert str(caught.value) == f"{value_text(value)} must be {text}"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e39])
def test_numbers_that_float32_has_not_are_outside_all_bounds(refuses: Refuses, value: float) -> None:
    for annotation in (Fraction, Positive, NonNegative, Positive | None, float):
        with refuses(OutOfBounds):
            convert(value, annotation)


def test_bounds_hold_for_items_unions_and_lengths() -> None:
    assert convert([1, 2], tuple[PositiveInt, PositiveInt]) == (1, 2)
    assert convert(3, Literal["all"] | PositiveInt) == 3
    assert convert(0, PositiveInt | NonNegative) == 0
    for value, annotation, text in (
        ([1, 0], list[PositiveInt], "1: 0 must be at least 1"),
        ([1, 0], tuple[PositiveInt, ...], "1: 0 must be at least 1"),
        ({"a": 2.0}, dict[str, Fraction], "a: 2 must be between 0 and 1"),
        (0.0, Positive | None, "0 must be greater than 0, or null"),
        (0, Literal["all"] | PositiveInt, "0 must be at least 1"),
        ([], Annotated[list[float], MinLen(1)], "[] must be a list of at least 1"),
        ([1, 2], Annotated[list[int], MaxLen(1)], "[1, 2] must be a list of at most 1"),
        (2**63, int, "9223372036854775808 must be a 64-bit integer"),
        (2**63, Seed, "9223372036854775808 must be a 63-bit integer, 0 or more"),
        (-1, Seed, "-1 must be a 63-bit integer, 0 or more"),
        (1.0000001, Fraction | None, "1.0000001 must be between 0 and 1, or null"),
        ([5.0, 1], Annotated[tuple[float, float], Ascending()], "[5, 1] must be in ascending order"),
        ("", Annotated[str, MinLen(1)], "'' must be a text of at least 1"),
        ({}, Annotated[dict[str, int], MinLen(1)], "{} must be a map of at least 1"),
        ([[1, 2], [3, 0]], list[list[PositiveInt]] | None, "1.1: 0 must be at least 1"),
        ([1, "x"], list[int], "1: 'x' is not an int"),
        (0, Annotated[Positive | None, doc("above 0; null keeps c3")], "0 must be above 0; null keeps c3"),
        (1, Annotated[float, Ge(1.00000001)], "1 must be at least 1.00000001"),
    ):
        with pytest.raises(TypeMismatch) as caught:
            convert(value, annotation)
        assert str(caught.value) == text


def test_a_wrong_type_is_told_before_any_bound() -> None:
    for value, annotation, text in (
        (1000.0, PositiveInt, "1000.0 is not an int: write 1000"),
        ("x", Fraction | None, "'x' is not a float or null"),
        (True, NonNegativeInt, "true is not an int"),
    ):
        with pytest.raises(TypeMismatch) as caught:
            convert(value, annotation)
        assert str(caught.value) == text
        assert not isinstance(caught.value, OutOfBounds)


def test_what_is_bounded() -> None:
    assert is_bounded(Fraction | None)
    assert is_bounded(Sequence[PositiveInt])
    assert not is_bounded(float | None)
    assert not is_bounded(Annotated[str, "a path"])


@pytest.fixture
def scaled() -> Iterator[Any]:
    class Base(BoxCoder):
        def __init__(self, *, weight: NonNegative = 1.0) -> None:
            super().__init__()
            self.weight = weight

    class Scaled(Base):
        def __init__(
            self, *, alpha: Fraction | None = 0.25, sizes: Sequence[Positive] = (1.0,), weight: NonNegative = 1.0
        ):
            super().__init__(weight=weight)
            self.alpha, self.sizes = alpha, sizes

    with CODERS.temporary():
        CODERS.add(Scaled, "Scaled")
        CODERS.add(Scaled, "ScaledAgain")
        yield Scaled


def test_a_part_keeps_to_its_bounds_by_config_and_by_call(scaled: Any) -> None:
    for arguments, text in (
        ({"alpha": 3.0}, "alpha: 3 must be between 0 and 1, or null"),
        ({"alpha": math.nan}, "alpha: nan must be a finite 32-bit number, or null"),
        ({"sizes": [2.0, 0.0]}, "sizes.1: 0 must be greater than 0"),
        ({"weight": -1.0}, "weight: -1 must be at least 0"),
    ):
        for build, prefix in (
            (lambda **given: CODERS.build({"type": "Scaled", **given}), "Scaled: "),
            (scaled, ""),
        ):
            with pytest.raises(ValueError) as caught:
                build(**arguments)
            assert str(caught.value) == prefix + text
    assert scaled(alpha=None, sizes=(2.0,)).sizes == (2.0,)
    array = np.array([2.0])
    assert scaled(sizes=array).sizes is array


@pytest.mark.parametrize(
    "arguments",
    [
        {"alpha": np.float32(-1)},
        {"alpha": np.int64(-1)},
        {"alpha": torch.tensor(-1.0)},
        {"alpha": "x"},
        {"weight": None},
        {"sizes": np.array([1.0, -2.0])},
        {"sizes": [np.float32(1), torch.tensor(-2.0)]},
        {"sizes": object()},
        {"weight": -1, "alpha": -1},
    ],
)
def test_a_direct_call_refuses_what_a_config_refuses(refuses: Refuses, scaled: Any, arguments: Any) -> None:
    with refuses(ValueError, hide="0x[0-9a-f]+"):
        scaled(**arguments)


def test_a_direct_call_takes_numbers_of_numpy_and_torch(scaled: Any) -> None:
    assert scaled(alpha=np.float32(1), weight=torch.tensor(0.0), sizes=range(1, 3)).sizes == range(1, 3)


def test_base_classes_keep_to_their_bounds(refuses: Refuses) -> None:
    class Loose(SigmoidLoss):
        def __init__(self, *, prior: float = 0.01, weight: float = 1.0) -> None:
            super().__init__(prior=prior, weight=weight)

    Loose(prior=0.5)
    with refuses(ValueError):
        Loose(weight=-1.0)
    with refuses(ValueError):
        Loose(prior=0.0)


def test_every_bounded_constructor_in_detkit_is_enforced() -> None:
    classes = {cls for registry in REGISTRIES for name in registry.names() for cls in registry.get(name).__mro__}
    bounded = [cls for cls in classes if "__init__" in vars(cls) and any(map(is_bounded, hints(cls).values()))]
    assert len(bounded) > 30
    assert [cls for cls in bounded if not hasattr(vars(cls)["__init__"], "bounds_are_enforced")] == []


def hints(cls: type) -> dict[str, object]:
    return get_type_hints(vars(cls)["__init__"], include_extras=True) if cls.__module__.startswith("detkit.") else {}


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[int | None, Ge(1)],
        list[Annotated[str, Ge(1)]],
        Annotated[int, MinLen(1)] | None,
        Annotated[int, Predicate(bool)],
    ],
)
def test_registering_refuses_marks_that_nobody_can_check(refuses: Refuses, annotation: Any) -> None:
    class Odd(BoxCoder):
        def __init__(self, *, size: Any = None) -> None:
            super().__init__()

    Odd.__init__.__annotations__["size"] = annotation
    with CODERS.temporary(), refuses(ValueError, hide=r"<function .*>"):
        CODERS.add(Odd, "Odd")


def test_an_annotation_of_a_direct_call_that_is_not_defined(refuses: Refuses) -> None:
    @enforce_bounds
    class Undefined:
        def __init__(self, *, size: Missing) -> None:  # type: ignore[name-defined]  # noqa: F821
            pass

    with refuses(ValueError):
        Undefined(size=1)


def test_a_subclass_that_inherits_the_constructor_keeps_to_the_bounds(refuses: Refuses, scaled: Any) -> None:
    class Inherited(scaled):  # type: ignore[misc]
        pass

    with refuses(ValueError):
        Inherited(alpha=3.0)
    CODERS.add(Inherited, "Inherited")
    with refuses(ValueError):
        Inherited(alpha=3.0)
    assert CODERS.arguments("Inherited")["alpha"].annotation == Fraction | None


def test_an_options_class_keeps_to_its_bounds() -> None:
    options = enforce_bounds(Options)
    assert options(steps=1) == Options(steps=1)
    with pytest.raises(ValueError) as caught:
        options(steps=0)
    assert str(caught.value) == "steps: 0 must be at least 1"


@dataclass(frozen=True, kw_only=True)
class Options:
    steps: PositiveInt
    rates: Annotated[tuple[Fraction, ...], MinLen(1)] = (0.5,)
    offset: Annotated[float, Interval(ge=-1, le=1)] = 0.0
