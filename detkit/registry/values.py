"""Values brought to the type of an argument: conversion, the paths among them, and types in words."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import DocInfo

from detkit.registry.bounds import LARGEST_FLOAT, bounds_text, is_within
from detkit.registry.nested import registry_of
from detkit.registry.path_types import FILE, FILE_OR_ADDRESS, FILE_OR_NAME
from detkit.utils.types import Value

PLAIN = (int, float, bool, str, type(None))


class TypeMismatch(ValueError):
    """A value that is not of the type of its argument; the text names both.

    position: of the value within lists and maps, as in `1` or `c3.0`; empty for the value itself.
    """

    def __init__(self, text: str, position: str = "") -> None:
        super().__init__(f"{position}: {text}" if position else text)
        self.text, self.position = text, position

    def inside(self, key: object) -> TypeMismatch:
        """The same error as seen from outside the list or map that holds the value under `key`."""
        return type(self)(self.text, f"{key}.{self.position}" if self.position else str(key))


class OutOfBounds(TypeMismatch):
    """A value of the right type outside the bounds of its argument."""


def is_plain(annotation: object) -> bool:
    """Whether an annotation is made of int, float, bool, str, None, Literal, list, tuple, dict, unions and parts."""
    if annotation in PLAIN or annotation is None:
        return True
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return True
    if origin is Annotated:
        return registry_of(annotation) is not None or is_plain(inner[0])
    if origin in (list, tuple, dict, Union, types.UnionType, Sequence, Mapping):
        return all(part is Ellipsis or is_plain(part) for part in inner)
    return False


def type_name(annotation: object) -> str:
    """An annotation as a user reads it."""
    if annotation is type(None) or annotation is None:
        return "null"
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return next((mark for mark in inner[1:] if isinstance(mark, str)), None) or type_name(inner[0])
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


def convert(value: Value, annotation: object) -> Value:
    """`value` as a config holds it -> as the constructor wants it; raises `TypeMismatch`.

    An int becomes a float, a list a tuple; nothing else changes its type. A bool is not an int. nan, infinities,
    numbers outside 32-bit floats and 64-bit ints, and those outside the bounds of an `Annotated` type are
    `OutOfBounds`.
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _convert_annotated(value, annotation)
    if origin in (Union, types.UnionType):
        return _convert_union(value, annotation)
    if origin is Literal and any(value == choice and type(value) is type(choice) for choice in inner):
        return value
    if origin in (list, Sequence) and isinstance(value, (list, tuple)):
        return [_convert_item(i, item, inner[0]) for i, item in enumerate(value)]
    if origin is tuple and isinstance(value, (list, tuple)):
        if inner[-1] is Ellipsis:
            return tuple(_convert_item(i, item, inner[0]) for i, item in enumerate(value))
        if len(inner) == len(value):
            return tuple(map(_convert_item, range(len(inner)), value, inner))
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {convert(key, inner[0]): _convert_item(key, item, inner[1]) for key, item in value.items()}
    if annotation is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if not abs(value) <= LARGEST_FLOAT:
            raise OutOfBounds(f"{value_text(value)} must be a finite 32-bit number")
        return float(value)
    if annotation is int and type(value) is int and abs(value) >= 2**63:
        raise OutOfBounds(f"{value_text(value)} must be a 64-bit integer")
    if annotation in (int, bool, str) and type(value) is annotation:
        return value
    if value is None and annotation in (None, type(None)):
        return None
    if annotation is Any or not is_plain(annotation):
        return value
    raise _mismatch(value, annotation)


def _convert_item(key: Value, value: Value, annotation: object) -> Value:
    try:
        return convert(value, annotation)
    except TypeMismatch as error:
        raise error.inside(key) from None


def value_text(value: object) -> str:
    """A value as an error shows it: 3 for 3.0, and YAML's words for what Python calls True, False and None."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{value_text(key)}: {value_text(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return repr(value).removesuffix(".0") if isinstance(value, float) else repr(value)


def _mismatch(value: Value, annotation: object) -> TypeMismatch:
    name = type_name(annotation)
    article = {"int": "an ", "float": "a ", "bool": "a ", "str": "a "}.get(name.partition(" ")[0], "")
    shown = repr(value) if isinstance(value, float) else value_text(value)  # 3.0 is not an int, 3 would be
    return TypeMismatch(f"{shown} is not {article}{name}{_hint(value, annotation)}")


def _convert_annotated(value: Value, annotation: object) -> Value:
    """By the type inside, which a text among the marks renames, and then by the bounds."""
    inner, *marks = get_args(annotation)
    try:
        converted = convert(value, inner)
    except OutOfBounds as error:
        if error.position or not any(isinstance(mark, DocInfo) for mark in marks):
            raise
    except TypeMismatch:
        if any(isinstance(mark, str) for mark in marks):
            raise TypeMismatch(f"{value_text(value)} is not {type_name(annotation)}") from None
        raise
    else:
        if is_within(converted, annotation):
            return converted
    raise OutOfBounds(f"{value_text(value)} must be {bounds_text(annotation)}")


def _convert_union(value: Value, annotation: object) -> Value:
    """By the first type that fits; `OutOfBounds` if none does and a type but for its bounds."""
    outside = None
    for part in get_args(annotation):
        try:
            return convert(value, part)
        except OutOfBounds as error:
            outside = error
        except TypeMismatch:
            continue
    if outside is None:
        raise _mismatch(value, annotation)
    if type(None) in get_args(annotation) and not outside.position:
        outside = OutOfBounds(f"{outside}, or null")
    raise outside


def _hint(value: Value, annotation: object) -> str:
    """The way out, where it is known."""
    if annotation is str and isinstance(value, (bool, int, float)):
        return ": put it in quotes for text"
    items = [*value.keys(), *value.values()] if isinstance(value, Mapping) else value if isinstance(value, list) else []
    if any(isinstance(item, (bool, int, float)) for item in items) and " of str" in type_name(annotation):
        return ": put numbers, and words such as yes, no and on, in quotes for text"
    if annotation is int and isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return f": write {int(value)}"
    return ""


def map_paths(value: Value, annotation: object, path: str, locate: Callable[[str, str, str], str]) -> Value:
    """Replaces every text in a converted `value` whose annotation says that it is a file or folder.

    path: the key of `value`. locate: takes the text, the kind of path and its key.
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        kinds = [mark for mark in inner[1:] if mark in (FILE, FILE_OR_NAME, FILE_OR_ADDRESS)]
        if kinds and isinstance(value, str):
            return locate(value, kinds[0], path)
        return map_paths(value, inner[0], path, locate)
    if origin in (Union, types.UnionType):
        for part in inner:
            with contextlib.suppress(TypeMismatch):
                convert(value, part)
                return map_paths(value, part, path, locate)
    elif origin in (list, tuple, Sequence) and isinstance(value, (list, tuple)):
        parts = [inner[0]] * len(value) if origin is not tuple or inner[-1] is Ellipsis else inner
        located = [map_paths(v, p, f"{path}.{i}", locate) for i, (v, p) in enumerate(zip(value, parts, strict=True))]
        return type(value)(located)
    elif origin in (dict, Mapping) and isinstance(value, Mapping):
        return {key: map_paths(item, inner[1], f"{path}.{key}", locate) for key, item in value.items()}
    return value


def to_plain(value: Value) -> Value:
    """A converted value as a config file can hold it: tuples become lists."""
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return value
