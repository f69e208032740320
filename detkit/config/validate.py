"""Holds a config tree against the schema: completes it with defaults and collects everything that is wrong."""

from __future__ import annotations

import dataclasses
import importlib
import math
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from detkit.config.schema import Node, Options, Part, Parts, Section, Value
from detkit.registry.arguments import MISSING, Argument, TypeMismatch, convert, located, nearest, to_plain

CLASS_COUNT_KEYS = ("num_classes", "classes", "num_class", "n_classes")


def options_class(node: Options) -> type:
    """The dataclass behind an `Options` node."""
    module, _, name = node.target.partition(":")
    found: type = getattr(importlib.import_module(module), name)
    return found


def options_arguments(cls: type) -> dict[str, Argument]:
    """Fields of an options dataclass as arguments."""
    hints = typing.get_type_hints(cls, include_extras=True)
    found = {}
    for item in dataclasses.fields(cls):
        default: Any = item.default
        if item.default_factory is not dataclasses.MISSING:
            default = item.default_factory()
        found[item.name] = Argument(item.name, hints[item.name], MISSING if default is dataclasses.MISSING else default)
    return found


Locate = Callable[[str, str, str], str]


def _takes_none(argument: Argument) -> bool:
    return type(None) in typing.get_args(argument.annotation)


class Validator:
    """`complete(node, value, path)` gives the value with defaults; `errors` gathers (path, sentence).

    `origin` records where a filled-in value came from, under its path. locate: makes the file names among the values
    absolute.
    """

    def __init__(self, locate: Locate) -> None:
        self.locate = locate
        self.errors: list[tuple[str, str]] = []
        self.origin: dict[str, str] = {}

    def error(self, path: str, text: str) -> None:
        self.errors.append((path, text))

    def complete(self, node: Node, value: Any, path: str) -> Any:
        """`value` as `node` wants it; `MISSING` where an optional one is absent."""
        if isinstance(node, Section):
            return self._section(node, value, path)
        if isinstance(node, Part):
            return self._part(node, value, path)
        if isinstance(node, Parts):
            return self._parts(node, value, path)
        if isinstance(node, Options):
            return self._options(node, value, path)
        return self._value(node, value, path)

    def _mapping(self, value: Any, path: str, what: str) -> Mapping[str, Any] | None:
        if isinstance(value, Mapping):
            return value
        self.error(path, f"{value!r} stands where {what} belongs")
        return None

    def _section(self, node: Section, value: Any, path: str) -> Any:
        if value is MISSING:
            if node.optional:
                return MISSING
            value = {}
        mapping = self._mapping(value, path, f"a section with {', '.join(node.keys)}")
        if mapping is None:
            return {}
        self._unknown(mapping, node.keys, path, "here" if path else "at the top level")
        done = {}
        for key, child in node.keys.items():
            completed = self.complete(child, mapping.get(key, MISSING), join(path, key))
            if completed is not MISSING:
                done[key] = completed
        return done

    def _unknown(self, mapping: Mapping[str, Any], known: Iterable[str], path: str, where: str) -> None:
        for key in mapping:
            if key in known:
                continue
            if key in CLASS_COUNT_KEYS:
                self.error(
                    join(path, str(key)),
                    "the number of classes and their names come from the data set; remove this key "
                    "(data.classes.class_names may state them)",
                )
            else:
                self.error(
                    join(path, str(key)),
                    f"unknown key {where}{nearest(str(key), list(known))} Known: {', '.join(known) or 'none'}",
                )

    def _part(self, node: Part, value: Any, path: str) -> Any:
        if value is MISSING:
            if node.optional:
                return MISSING
            if node.default is None:
                self.error(path, f"missing: give it a `type`, one of {', '.join(node.registry.names())}")
                return {}
            self.origin[join(path, "type")] = "default"
            value = {"type": node.default}
        mapping = self._mapping(value, path, f"a part {{type: ..., its arguments}} of {node.registry.name}")
        if mapping is None:
            return {}
        name = mapping.get("type", node.default)
        if name is None:
            self.error(join(path, "type"), f"missing, one of {', '.join(node.registry.names())}")
            return {}
        if not isinstance(name, str):
            self.error(join(path, "type"), f"{name!r} is no name; one of {', '.join(node.registry.names())}")
            return {}
        try:
            known, derived = node.registry.arguments(name), node.registry.derived_arguments(name)
        except ValueError as error:
            self.error(join(path, "type"), str(error))
            return {}
        values = {k: v for k, v in mapping.items() if k != "type"}
        for key in [k for k in values if k in derived]:
            self.error(
                join(path, key),
                f"is derived: {name} gets it from {derived[key]}, so a config must not set it; remove the key",
            )
            del values[key]
        before = len(self.errors)
        done = {"type": name, **self._arguments(values, known, path, name)}
        if node.registry.light and len(self.errors) == before:
            try:
                node.registry.build(done)
            except ValueError as error:
                self._judged(path, done, str(error).removeprefix(f"{name}: "))
        return done

    def _parts(self, node: Parts, value: Any, path: str) -> Any:
        if value is MISSING:
            return []
        if not isinstance(value, (list, tuple)):
            self.error(path, f"{value!r} stands where a list of {node.registry.name} belongs")
            return []
        part = Part(node.registry)
        return [self._part(part, item, join(path, str(i))) for i, item in enumerate(value)]

    def _options(self, node: Options, value: Any, path: str) -> Any:
        if value is MISSING:
            if node.optional:
                return MISSING
            value = {}
        cls = options_class(node)
        known = options_arguments(cls)
        mapping = self._mapping(value, path, f"a section with {', '.join(known)}")
        if mapping is None:
            return {}
        before = len(self.errors)
        # "No limit" is null; an infinity that older configs hold means the same where null is possible.
        given = {k: None if v == math.inf and k in known and _takes_none(known[k]) else v for k, v in mapping.items()}
        done = self._arguments(given, known, path, cls.__name__)
        if len(self.errors) == before:
            self._check_options(node, done, path)
        return done

    def _check_options(self, node: Options, values: Mapping[str, Any], path: str) -> None:
        """Lets the dataclass judge its values."""
        try:
            build_options(node, values)
        except ValueError as error:
            self._judged(path, values, str(error).removeprefix(f"{path}."))

    def _judged(self, path: str, values: Mapping[str, Any], complaint: str) -> None:
        """Records what a constructor said; a complaint that begins with a key of its own is put there."""
        name, colon, text = complaint.partition(": ")
        if colon and name in values:
            self.error(join(path, name), text)
        else:
            self.error(path, complaint)

    def _arguments(
        self, values: Mapping[str, Any], known: Mapping[str, Argument], path: str, name: str
    ) -> dict[str, Any]:
        self._unknown(values, known, path, f"of {name}")
        done = {}
        for key, argument in known.items():
            if key in values:
                try:
                    done[key] = self._plain(convert(values[key], argument.annotation), argument, join(path, key))
                except TypeMismatch as error:
                    self.error(join(path, key), str(error))
            elif argument.required:
                self.error(join(path, key), f"missing: {name} needs it")
            else:
                done[key] = self._plain(argument.default, argument, join(path, key))
                self.origin[join(path, key)] = f"default of {name}"
        return done

    def _plain(self, value: Any, argument: Argument, path: str) -> Any:
        return to_plain(located(value, argument.annotation, path, self.locate))

    def _value(self, node: Value, value: Any, path: str) -> Any:
        if value is MISSING:
            self.origin[path] = "default"
            return to_plain(node.default)
        try:
            return to_plain(convert(value, node.annotation))
        except TypeMismatch as error:
            self.error(path, str(error))
            return to_plain(node.default)


def build_options(node: Options, values: Mapping[str, Any]) -> Any:
    """The dataclass of an options node out of completed values; its own checks raise ValueError."""
    cls = options_class(node)
    known = options_arguments(cls)
    return cls(**{key: convert(value, known[key].annotation) for key, value in values.items()})


def join(path: str, key: str) -> str:
    """`a.b` and `c` -> `a.b.c`."""
    return f"{path}.{key}" if path else key
