"""Holds a raw config against the schema: fills in defaults and collects everything that is wrong."""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Iterable, Mapping
from pkgutil import resolve_name
from typing import Any

from detkit.config.schema import DATASET, Node, Options, Part, Parts, PlainValue, Section
from detkit.registry import REGISTRIES
from detkit.registry.arguments import MISSING, Argument, arguments_of, checked, nearest
from detkit.registry.nested import map_parts
from detkit.registry.values import TypeMismatch, convert, map_paths, to_plain, value_text
from detkit.utils.types import Tree, Value

CLASS_COUNT_KEYS = ("num_classes", "classes", "num_class", "n_classes")
Locate = Callable[[str, str, str], str]
"""(text, kind of path, key) -> the path where it lies."""


class Validator:
    """`complete(node, value, path)` returns the value with defaults; `errors` collects (path, message).

    `origin` records the source of every default under its path. locate: makes the paths among the values absolute.
    """

    def __init__(self, locate: Locate) -> None:
        self.locate = locate
        self.errors: list[tuple[str, str]] = []
        self.origin: dict[str, str] = {}

    def error(self, path: str, text: str) -> None:
        self.errors.append((path, text))

    def complete(self, node: Node, value: Value, path: str) -> Value:
        """`value` checked and completed; `MISSING` for an optional node that is absent, and a part that is null."""
        if getattr(node, "optional", False) and (
            value is MISSING or (value is None and isinstance(node, (Part, Parts)))
        ):
            return MISSING
        try:
            if isinstance(node, Section):
                return self._section(node, value, path)
            if isinstance(node, Part):
                return self._part(node, value, path)
            if isinstance(node, Parts):
                return self._parts(node, value, path)
            if isinstance(node, Options):
                return self._options(node, value, path)
            return self._value(node, value, path)
        except _Wrong as wrong:
            self.error(wrong.path, str(wrong))
            return {}

    def _section(self, node: Section, value: Value, path: str) -> Value:
        mapping = _mapping({} if value is MISSING else value, path, f"a section with {', '.join(node.keys)}")
        self._unknown(mapping, node.keys, path, "here" if path else "at the top level")
        done = {}
        for key, child in node.keys.items():
            completed = self.complete(child, mapping.get(key, MISSING), join(path, key))
            if completed is not MISSING:
                done[key] = completed
        return done

    def _unknown(self, mapping: Mapping[str, Value], known: Iterable[str], path: str, where: str) -> None:
        for key in [str(key) for key in mapping if key not in known]:
            text = f"unknown key {where}{nearest(key, list(known))} Known: {', '.join(known) or 'none'}"
            if key in CLASS_COUNT_KEYS:
                text = (
                    "the number of classes and their names come from the data set; remove this key "
                    "(data.classes.class_names may state them)"
                )
            self.error(join(path, key), text)

    def _part(self, node: Part, value: Value, path: str) -> Value:
        names = ", ".join(node.registry.names())
        if value is MISSING:
            if node.default is None:
                raise _Wrong(path, f"missing: give it a `type`, one of {names}")
            self.origin[join(path, "type")] = "default"
            value = {"type": node.default}
        what = f"a part {{type: ..., its arguments}} of {node.registry.name}"
        if isinstance(value, str):
            name = next((n for n in node.registry.names() if n.lower() == value.lower()), value)
            raise _Wrong(
                path, f"expected {what}, got {value!r}; write {join(path, f'type={name}')}, in a file {{type: {name}}}"
            )
        mapping = _mapping(value, path, what)
        name = mapping.get("type", node.default or node.untyped)
        if name is None:
            raise _Wrong(join(path, "type"), f"missing, one of {names}")
        name = node.registry.aliases.get(name, name) if isinstance(name, str) else name
        if not isinstance(name, str):
            raise _Wrong(join(path, "type"), f"{value_text(name)} is not a name; must be one of {names}")
        try:
            known, derived = node.registry.arguments(name), node.registry.derived_arguments(name)
        except ValueError as error:
            others = [r.name for r in REGISTRIES if r is not node.registry and name in r.names()]
            text = (
                f"{name} is one of {others[0]}, not of {node.registry.name}; known: {names}" if others else str(error)
            )
            raise _Wrong(join(path, "type"), text) from None
        values = {k: v for k, v in mapping.items() if k != "type"}
        for key in [k for k in values if k in derived]:
            self.error(join(path, key), f"is derived: {name} gets it from {derived[key]}; remove this key")
            del values[key]
        error_count = len(self.errors)
        arguments = self._arguments(values, known, path, name)
        if node.registry.light and len(self.errors) == error_count:
            try:
                node.registry.construct(name, arguments)
            except ValueError as error:
                self._constructor_error(path, arguments, str(error).removeprefix(f"{name}: "))
            except (OSError, ImportError):
                pass  # what this command may not need, as an evaluation the training's transforms
        return {"type": name, **to_plain(arguments)}

    def _parts(self, node: Parts, value: Value, path: str) -> Value:
        items = [{"type": name} for name in node.default] if value is MISSING else value
        if value is MISSING:
            self.origin[path] = "default"
        if not isinstance(items, (list, tuple)):
            raise _Wrong(path, f"expected a list of {node.registry.name}, got {value_text(value)}")
        return [self.complete(Part(node.registry), item, join(path, str(i))) for i, item in enumerate(items)]

    def _options(self, node: Options, value: Value, path: str) -> Value:
        cls: type = resolve_name(node.target)
        known = arguments_of(cls)
        mapping = _mapping({} if value is MISSING else value, path, f"a section with {', '.join(known)}")
        error_count = len(self.errors)
        # "No limit" is null; an infinity that older configs hold means the same where null is possible.
        given = {k: None if v == math.inf and k in known and _takes_none(known[k]) else v for k, v in mapping.items()}
        arguments = self._arguments(given, known, path, cls.__name__)
        if len(self.errors) == error_count:
            try:
                cls(**arguments)
            except ValueError as error:
                self._constructor_error(path, arguments, str(error).removeprefix(f"{path}."))
        return to_plain(arguments)

    def _constructor_error(self, path: str, arguments: Tree, message: str) -> None:
        """Records what a constructor raised; a message that begins with the name of an argument is put at its key."""
        name, colon, text = message.partition(": ")
        self.error(*((join(path, name), text) if colon and name.partition(".")[0] in arguments else (path, message)))

    def _arguments(self, values: Mapping[str, Value], known: Mapping[str, Argument], path: str, name: str) -> Tree:
        """The arguments of a constructor, converted, with defaults; wrong ones are left out and recorded."""
        self._unknown(values, known, path, f"of {name}")
        arguments: Tree = {}
        for key, argument in known.items():
            where, value = join(path, key), argument.default
            if key in values:
                try:
                    value = convert(values[key], argument.annotation)
                except TypeMismatch as error:
                    self.error(join(where, error.position), error.text)
                    continue
            elif argument.required:
                self.error(where, f"missing: {name} requires it")
                continue
            else:
                self.origin[where] = f"default of {name}"
            value = map_paths(value, argument.annotation, where, self.locate)
            arguments[key] = map_parts(value, argument.annotation, where, self._inner_part)
        return arguments

    def _inner_part(self, registry: str, value: Value, path: str) -> Value:
        """An argument that is a part itself."""
        node = DATASET if registry == DATASET.registry.name else Part(next(r for r in REGISTRIES if r.name == registry))
        return self.complete(node, value, path)

    def _value(self, node: PlainValue, value: Value, path: str) -> Value:
        if value is MISSING:
            self.origin[path] = "default"
            return to_plain(node.default)
        try:
            return to_plain(convert(value, node.annotation))
        except TypeMismatch as error:
            raise _Wrong(join(path, error.position), error.text) from None


class _Wrong(ValueError):
    """What makes a node unreadable, and its path."""

    def __init__(self, path: str, text: str) -> None:
        super().__init__(text)
        self.path = path


def _mapping(value: Value, path: str, what: str) -> Mapping[str, Value]:
    if not isinstance(value, Mapping):
        raise _Wrong(path, f"expected {what}, got {value_text(value)}")
    return value


def _takes_none(argument: Argument) -> bool:
    return type(None) in typing.get_args(argument.annotation)


def build_options(node: Options, values: Mapping[str, Value]) -> Any:
    """The dataclass of an options node out of completed values; its own checks raise ValueError."""
    cls = resolve_name(node.target)
    known = arguments_of(cls)
    return cls(**{key: checked(key, value, known[key].annotation) for key, value in values.items()})


def join(path: str, key: str) -> str:
    """`a.b` and `c` -> `a.b.c`; either may be empty."""
    return ".".join(filter(None, (path, key)))
