"""Types, bounds, defaults and units of arguments in a reader's words, shorter than those of the error messages."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, Union, get_args, get_origin

from annotated_types import DocInfo

from detkit.registry.bounds import bounds_text
from detkit.registry.values import to_plain, type_name
from detkit.utils.types import Value

YAML_WORDS = ("null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf", "~")
"""Words that YAML does not read as text."""


def type_words(annotation: object) -> str:
    """An annotation in few words: `float or null`, `list of [float, float]`, `v1, v2 or v3`."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return next((mark for mark in inner[1:] if isinstance(mark, str)), None) or type_words(inner[0])
    if origin is Literal:
        return _choice([yaml_words(choice) for choice in inner])
    if origin in (Union, types.UnionType):
        return _choice([word for part in inner for word in _alternatives(part)])
    if origin in (list, Sequence) or (origin is tuple and inner[-1] is Ellipsis):
        return "list of " + re.sub("^list of ", "lists of ", type_words(inner[0]))
    if origin is tuple:
        return f"[{', '.join(map(type_words, inner))}]"
    if origin in (dict, Mapping) and inner:
        return f"map of {type_words(inner[0])} to {type_words(inner[1])}"
    return type_name(annotation)


def _alternatives(part: object) -> list[str]:
    return [yaml_words(c) for c in get_args(part)] if get_origin(part) is Literal else [type_words(part)]


def _choice(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def bounds_words(annotation: object) -> str:
    """The bounds of a type and of what it holds: "at least 1", "each between 0 and 1"; empty where there are none."""
    return "; ".join(dict.fromkeys(_bounds(annotation)))


def _bounds(annotation: object) -> Iterator[str]:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        text = bounds_text(annotation)
        yield from ["not empty" if text == "a list of at least 1" else text] if text else []
        if not any(isinstance(mark, DocInfo) for mark in inner[1:]):
            yield from _bounds(inner[0])
    elif origin in (Union, types.UnionType):
        for part in inner:
            yield from _bounds(part)
    elif origin in (list, Sequence, tuple, dict, Mapping):
        for item in inner[1:] if origin in (dict, Mapping) else inner:
            yield from (text if text.startswith("each ") else f"each {text}" for text in _bounds(item))


def yaml_words(value: Value) -> str:
    """A value as a config file has it, in one line: `null`, `true`, `[0.5, 1.0]`, `{a: b}`."""
    plain = to_plain(value)
    if isinstance(plain, str):
        is_safe = re.fullmatch(r"[A-Za-z_./~-][\w./-]*", plain) and plain.lower() not in YAML_WORDS
        return plain if is_safe else json.dumps(plain, ensure_ascii=False)
    if isinstance(plain, list):
        return f"[{', '.join(map(yaml_words, plain))}]"
    if isinstance(plain, Mapping):
        return f"{{{', '.join(f'{key}: {yaml_words(item)}' for key, item in plain.items())}}}"
    return str(json.dumps(plain)) if plain is None or isinstance(plain, bool) else str(plain)
