"""A constructor read as a schema: its keyword arguments, their types, and values brought to those types."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from detkit.registry.bounds import LARGEST_FLOAT as LARGEST_FLOAT
from detkit.registry.bounds import LARGEST_SIDE as LARGEST_SIDE
from detkit.registry.bounds import MOST_CHANNELS as MOST_CHANNELS
from detkit.registry.bounds import MOST_LAYERS as MOST_LAYERS
from detkit.registry.bounds import bounds_text, is_bounded, is_within, number_text
from detkit.registry.path_types import FILE, FILE_OR_NAME

C = TypeVar("C", bound=type)
MISSING = inspect.Parameter.empty
PLAIN = (int, float, bool, str, type(None))
BARE = (list, tuple, dict, "list", "tuple", "dict")
BARE_EXAMPLES = {"list": "list[float]", "tuple": "tuple[float, ...]", "dict": "dict[str, float]"}


class TypeMismatch(ValueError):
    """A value that is not of the type an argument wants; its text says both."""


class OutOfBounds(TypeMismatch):
    """A value of the right type outside the bounds of its argument."""


@dataclass(frozen=True)
class Argument:
    """One keyword argument: name, resolved annotation, default (`MISSING` if it must be given)."""

    name: str
    annotation: Any
    default: Any

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
    """Why a constructor can't serve as a schema, or None: every argument keyword-only and annotated."""
    for parameter in own_parameters(cls):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return f"takes *{parameter.name}; its arguments are its config keys, so each needs a name"
        if parameter.kind is not parameter.KEYWORD_ONLY:
            return f"argument {parameter.name!r} is positional; put `*` before the first argument"
        if parameter.annotation is MISSING:
            return f"argument {parameter.name!r} has no type annotation"
        if parameter.annotation in BARE:
            kind = getattr(parameter.annotation, "__name__", parameter.annotation)
            return f"argument {parameter.name!r} is a bare {kind}; say what is in it, as in {BARE_EXAMPLES[kind]}"
    return None


def arguments_of(cls: type) -> dict[str, Argument]:
    """Keyword arguments of a class's constructor, in order, annotations resolved.

    Raises ValueError if an annotation names something its module does not define.
    """
    try:
        hints = typing.get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    except NameError as error:
        raise ValueError(f"{cls.__module__}.{cls.__qualname__}: an annotation can't be resolved: {error}") from error
    made = {  # a dataclass shows its default_factory as a mark, not as a value
        f.name: f.default_factory
        for f in (dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ())
        if f.default_factory is not dataclasses.MISSING
    }
    return {
        p.name: Argument(p.name, hints.get(p.name, Any), made[p.name]() if p.name in made else p.default)
        for p in own_parameters(cls)
    }


def is_plain(annotation: Any) -> bool:
    """Whether an annotation is made of int, float, bool, str, None, Literal, list, tuple, dict and unions."""
    if annotation in PLAIN or annotation is None:
        return True
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return True
    if origin is Annotated:
        return is_plain(inner[0])
    if origin in (list, tuple, dict, Union, types.UnionType, Sequence, Mapping):
        return all(part is Ellipsis or is_plain(part) for part in inner)
    return False


def type_name(annotation: Any) -> str:
    """An annotation as a user reads it."""
    if annotation is type(None) or annotation is None:
        return "null"
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return inner[1] if inner[1:] and isinstance(inner[1], str) else type_name(inner[0])
    if origin is Literal:
        return "one of " + ", ".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(part) for part in inner)
    if origin in (list, Sequence):
        return f"a list of {type_name(inner[0])}"
    if origin in (dict, Mapping) and inner:
        return f"a map of {type_name(inner[0])} to {type_name(inner[1])}"
    if origin is tuple:
        if inner[-1] is Ellipsis:
            return f"a list of {type_name(inner[0])}"
        return f"a list of {len(inner)}: " + ", ".join(type_name(part) for part in inner)
    return str(getattr(annotation, "__name__", annotation))


def convert(value: Any, annotation: Any) -> Any:
    """`value` as a config holds it -> as the constructor wants it; raises `TypeMismatch`.

    An int serves as a float, a list as a tuple; nothing else changes its type. bool is no int; nan, infinities and
    what a 32-bit float or a 64-bit int can't hold are no numbers. The bounds of `Annotated` types are enforced:
    `OutOfBounds` where the type is right.
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        if not isinstance(inner[1], str):
            return _within_bounds(convert(value, inner[0]), annotation)
        with contextlib.suppress(TypeMismatch):
            return convert(value, inner[0])
    elif origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in inner):
            return value
    elif origin in (Union, types.UnionType):
        outside = None
        for part in inner:
            try:
                return convert(value, part)
            except OutOfBounds as error:
                outside = error
            except TypeMismatch:
                continue
        if outside is not None:
            raise OutOfBounds(f"{outside} or null" if type(None) in inner else str(outside))
    elif origin in (list, Sequence) and isinstance(value, (list, tuple)):
        return [convert(item, inner[0]) for item in value]
    elif origin is tuple and isinstance(value, (list, tuple)):
        if inner[-1] is Ellipsis:
            return tuple(convert(item, inner[0]) for item in value)
        if len(inner) == len(value):
            return tuple(convert(item, part) for item, part in zip(value, inner, strict=True))
    elif origin in (dict, Mapping) and isinstance(value, Mapping):
        return {convert(key, inner[0]): convert(item, inner[1]) for key, item in value.items()}
    elif annotation is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if not abs(value) <= LARGEST_FLOAT:
                raise OutOfBounds(f"{number_text(value)} must be a finite 32-bit number")
            return float(value)
    elif annotation in (None, type(None)):
        if value is None:
            return None
    elif annotation in (int, bool, str):
        if type(value) is annotation:
            if annotation is int and abs(value) >= 2**63:
                raise OutOfBounds(f"{number_text(value)} must be a 64-bit integer")
            return value
    elif annotation is Any or not is_plain(annotation):
        return value
    raise TypeMismatch(f"{value!r} is not {type_name(annotation)}{_hint(value, annotation)}")


def _within_bounds(value: Any, annotation: Any) -> Any:
    if not is_within(value, annotation):
        raise OutOfBounds(f"{number_text(value)} must be {bounds_text(annotation)}")
    return value


def checked(name: str, value: Any, annotation: Any) -> Any:
    """A converted value; ValueError that begins with the name of the argument if it does not fit the annotation."""
    try:
        return convert(value, annotation)
    except TypeMismatch as error:
        raise ValueError(f"{name}: {error}") from None


def enforce_bounds(cls: C) -> C:
    """Class decorator: the constructor raises ValueError for an argument outside the bounds of its annotation.

    Registering a part applies it, options classes write it above `@dataclass`. It makes a direct call in Python keep
    to the same bounds as a config. Types are not checked there, since Python code may hand in paths or numpy numbers.
    """
    init = cls.__init__  # type: ignore[misc]
    if hasattr(init, "bounds_are_enforced") or not own_parameters(cls):
        return cls

    @functools.wraps(init)
    def init_within_bounds(self: Any, *args: Any, **kwargs: Any) -> None:
        for name, annotation in _bounded_hints(init).items():
            try:
                convert(kwargs.get(name), annotation)
            except OutOfBounds as error:
                raise ValueError(f"{name}: {error}") from None
            except TypeMismatch:  # not given, or of a type that only Python code has
                continue
        init(self, *args, **kwargs)

    init_within_bounds.bounds_are_enforced = True  # type: ignore[attr-defined]
    cls.__init__ = init_within_bounds  # type: ignore[misc]
    return cls


@functools.cache
def _bounded_hints(init: Callable[..., None]) -> dict[str, Any]:
    """The arguments of a constructor whose types carry bounds."""
    hints = typing.get_type_hints(init, include_extras=True)
    return {name: annotation for name, annotation in hints.items() if is_bounded(annotation)}


def _hint(value: Any, annotation: Any) -> str:
    """What to write instead, where that is known."""
    if annotation is str and isinstance(value, (bool, int, float)):
        return ": put it in quotes to have it as text"
    items = [*value.keys(), *value.values()] if isinstance(value, Mapping) else value if isinstance(value, list) else []
    if any(isinstance(item, (bool, int, float)) for item in items) and " of str" in type_name(annotation):
        return ": put numbers, and words such as yes, no and on, in quotes to have them as text"
    if annotation is int and isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return f": write {int(value)}"
    return ""


def within(name: str, values: float | Sequence[float], least: float, most: float) -> None:
    """Raises ValueError that names the argument unless the value, or each of several, is in [least, most]."""
    for value in values if isinstance(values, Sequence) else [values]:
        if not least <= value <= most:
            texts = [number_text(number) for number in (value, least, most)]
            raise ValueError("{}: {} is not between {} and {}".format(name, *texts))


def located(value: Any, annotation: Any, path: str, locate: Callable[[str, str, str], str]) -> Any:
    """A converted `value` with every text replaced whose annotation says that it is a file's or folder's.

    path: the key at which `value` stands. locate: takes the text, the kind of path and its key.
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        kinds = [mark for mark in inner[1:] if mark in (FILE, FILE_OR_NAME)]
        return locate(value, kinds[0], path) if kinds and isinstance(value, str) else value
    if origin in (Union, types.UnionType):
        for part in inner:
            with contextlib.suppress(TypeMismatch):
                convert(value, part)
                return located(value, part, path, locate)
    elif origin in (list, tuple, Sequence) and isinstance(value, (list, tuple)):
        parts = [inner[0]] * len(value) if origin is not tuple or inner[-1] is Ellipsis else inner
        value = [located(v, p, f"{path}.{i}", locate) for i, (v, p) in enumerate(zip(value, parts, strict=True))]
    elif origin in (dict, Mapping) and isinstance(value, Mapping):
        value = {key: located(item, inner[1], f"{path}.{key}", locate) for key, item in value.items()}
    return value


def to_plain(value: Any) -> Any:
    """A default as a config file can hold it: tuples become lists."""
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return value


def nearest(name: str, known: Sequence[str]) -> str:
    """`; did you mean x?` if something known is near `name`, else the full stop."""
    import difflib

    lower = {k.lower(): k for k in reversed(list(known))}
    close = difflib.get_close_matches(str(name).lower(), list(lower), n=1, cutoff=0.6)
    return f"; did you mean {lower[close[0]]}?" if close else "."
