"""A constructor read as a schema: its keyword arguments and their types."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from detkit.registry.bounds import bounds_problem, is_bounded
from detkit.registry.values import TypeMismatch, convert, is_plain
from detkit.utils.console import nearest as nearest
from detkit.utils.types import Value

C = TypeVar("C", bound=type)
MISSING = inspect.Parameter.empty
BARE = (list, tuple, dict, "list", "tuple", "dict")
BARE_EXAMPLES = {"list": "list[float]", "tuple": "tuple[float, ...]", "dict": "dict[str, float]"}


@dataclass(frozen=True)
class Argument:
    """One keyword argument: name, resolved annotation, default (`MISSING` if it must be given)."""

    name: str
    annotation: object
    default: Value

    @property
    def required(self) -> bool:
        return self.default is MISSING

    @property
    def plain(self) -> bool:
        """Whether a config file can hold it."""
        return is_plain(self.annotation)


def own_parameters(cls: type) -> list[inspect.Parameter]:
    """Parameters of a class's constructor; none where it is inherited from torch or from `object`."""
    init = cls.__init__  # type: ignore[misc]
    if init is object.__init__ or getattr(init, "__module__", "").partition(".")[0] == "torch":
        return []
    return list(inspect.signature(cls).parameters.values())


def signature_problem(cls: type) -> str | None:
    """Why a constructor is not a valid schema; None if every argument is keyword-only and annotated."""
    for parameter in own_parameters(cls):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return f"it takes *{parameter.name}, but arguments are config keys, so each needs a name"
        if parameter.kind is not parameter.KEYWORD_ONLY:
            return f"argument {parameter.name!r} is positional; put `*` before the first argument"
        if parameter.annotation is MISSING:
            return f"argument {parameter.name!r} has no type annotation"
        if parameter.annotation in BARE:
            kind = getattr(parameter.annotation, "__name__", parameter.annotation)
            return f"argument {parameter.name!r} is a bare {kind}; declare its items, as in {BARE_EXAMPLES[kind]}"
    return _bounds_problem(cls)


def _bounds_problem(cls: type) -> str | None:
    try:
        arguments = arguments_of(cls)
    except ValueError:  # a name that the module may define later; whoever reads the arguments reports it
        return None
    for name, argument in arguments.items():
        problem = bounds_problem(argument.annotation)
        if problem:
            return f"argument {name!r}: {problem}"
    return None


def arguments_of(cls: type) -> dict[str, Argument]:
    """Keyword arguments of a class's constructor, in order, annotations resolved.

    Raises ValueError if an annotation names something its module does not define.
    """
    hints = _hints(cls)
    made = {  # a dataclass shows its default_factory as a mark, not as a value
        f.name: f.default_factory
        for f in (dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ())
        if f.default_factory is not dataclasses.MISSING
    }
    return {
        p.name: Argument(p.name, hints.get(p.name, object), made[p.name]() if p.name in made else p.default)
        for p in own_parameters(cls)
    }


def _hints(cls: type) -> dict[str, object]:
    """Resolved annotations of a class's constructor; ValueError if one names something its module does not define."""
    try:
        return typing.get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    except NameError as error:
        raise ValueError(f"{cls.__module__}.{cls.__qualname__}: an annotation can't be resolved: {error}") from error


def checked(name: str, value: Value, annotation: object) -> Value:
    """A converted value; ValueError that begins with the name of the argument if it does not fit the annotation."""
    try:
        return convert(value, annotation)
    except TypeMismatch as error:
        raise ValueError(str(error.inside(name))) from None


def enforce_bounds(cls: C) -> C:
    """Class decorator: the constructor raises ValueError for an argument that its annotation with bounds does not take.

    Registering a part applies it; options classes write it above `@dataclass`, and base classes that are not registered
    above `class`. It makes a direct call in Python keep to the same bounds as a config. Numbers and arrays of numpy and
    torch count as the plain numbers and lists that they hold; the constructor gets them as they are.
    """
    init = cls.__init__  # type: ignore[misc]
    if hasattr(init, "bounds_are_enforced") or not own_parameters(cls):
        return cls
    bounded: dict[str, object] | None = None  # resolved by the first call, when the module has all its names

    @functools.wraps(init)
    def init_within_bounds(self: object, *args: object, **kwargs: object) -> None:
        nonlocal bounded
        if bounded is None:
            bounded = {name: annotation for name, annotation in _hints(cls).items() if is_bounded(annotation)}
        for name, annotation in bounded.items():
            if name in kwargs:
                checked(name, _without_arrays(kwargs[name]), annotation)
        init(self, *args, **kwargs)

    init_within_bounds.bounds_are_enforced = True  # type: ignore[attr-defined]
    cls.__init__ = init_within_bounds  # type: ignore[misc]
    return cls


def _without_arrays(value: Any) -> Value:
    """Numbers and lists instead of those of numpy and torch, and lists instead of other sequences."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return {key: _without_arrays(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_arrays(item) for item in value]
    return value
