"""The values that a part, its class and its file hold outside the state dict, down to single numbers."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import CellType, FunctionType, MethodType, ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from detkit.testing.contract import TestedPart
from detkit.utils.types import Tree, Value

DEPTH, ITEMS = 8, 16
"""Depth of nested containers and objects that is searched, and items of each."""
TABLES = ("_parameters", "_buffers", "_modules")
LIBRARIES = frozenset({"torch", "torchvision", "timm", "numpy", "builtins", "detkit", "functools", "random"})
CELL = "cell_contents"


@dataclass(frozen=True)
class HeldValue:
    """A value that a part holds: its name, starting at the part, its container and its key there."""

    name: str
    holder: Value
    key: Value
    value: Value

    @property
    def top(self) -> str:
        """The attribute that contains it, for messages."""
        return self.name.partition("[")[0]

    @property
    def number(self) -> int | None:
        """Its whole number, whatever the type; None if it is not one."""
        value = self.value
        if isinstance(value, itertools.count):
            text = repr(value)[len("count(") : -1]
            return int(text) if text.lstrip("-").isdecimal() else None
        if isinstance(value, (Tensor, np.ndarray)):
            value = value.item() if int(np.prod(value.shape)) == 1 else None
        if type(value) is int or (isinstance(value, (float, np.number)) and float(value).is_integer()):
            return int(value)
        return None

    @property
    def can_be_set(self) -> bool:
        """Whether its container takes another value."""
        return not isinstance(self.holder, (tuple, partial, staticmethod, classmethod, MethodType))

    def put(self, value: Value) -> None:
        """Replaces the value in its container."""
        if isinstance(self.holder, (list, dict)):
            self.holder[self.key] = value
        else:
            setattr(self.holder, self.key, value)

    def like(self, number: int) -> Value:
        """`number` in the type of this value."""
        if isinstance(self.value, itertools.count):
            return itertools.count(number)
        if isinstance(self.value, Tensor):
            return torch.full_like(self.value, number)
        return np.full_like(self.value, number) if isinstance(self.value, np.ndarray) else type(self.value)(number)


def snapshot(part: TestedPart) -> Tree:
    """Name -> comparable value of everything that a part, its class and its file hold outside the state dict."""
    return {held.name: _mark(held.value) for held in held_values(part)}


def changed_names(before: Tree, after: Tree) -> list[str]:
    """Names whose value is new or differs."""
    return sorted(name for name, mark in after.items() if name not in before or before[name] != mark)


@contextmanager
def set_to(held: HeldValue, number: int) -> Iterator[None]:
    """Sets a number while the context is active."""
    held.put(held.like(number))
    try:
        yield
    finally:
        held.put(held.value)


def forget_cached(part: TestedPart) -> None:
    """Empties every `functools.cache` of a part, its class and its file, as a new process has none of it."""
    for _, owner in _owners(part):
        for value in list(vars(owner).values()):
            if callable(clear := getattr(value, "cache_clear", None)) and not isinstance(value, type):
                clear()


def held_values(part: TestedPart) -> Iterator[HeldValue]:
    """Every held value; of a list, its length and each item."""
    seen: set[int] = set()
    for prefix, owner in _owners(part):
        table = vars(owner)
        kept = {"training", *TABLES, *(k for name in TABLES for k in table.get(name) or ())}
        for key, value in list(table.items()):
            if not key.startswith("__") and key not in kept:
                yield from _inside(HeldValue(f"{prefix}{key}", owner, key, value), seen)
        if isinstance(owner, nn.Module):
            for key in owner._non_persistent_buffers_set:
                yield from _inside(HeldValue(f"{prefix}{key}", owner, key, owner._buffers[key]), seen)


def _owners(part: TestedPart) -> Iterator[tuple[str, Value]]:
    """(prefix, object with attributes): the part, its submodules, its classes and their files."""
    parts = part.named_modules() if isinstance(part, nn.Module) else [("", part)]
    seen: set[int] = set()
    for name, module in parts:
        if hasattr(module, "__dict__"):
            yield f"{name}." if name else "", module
        for cls in type(module).__mro__:
            if cls.__module__.partition(".")[0] in ("torch", "torchvision", "timm", "builtins") or id(cls) in seen:
                continue
            seen.add(id(cls))
            yield f"{cls.__name__}.", cls
            file = sys.modules.get(cls.__module__)
            if file is not None and id(file) not in seen:
                seen.add(id(file))
                yield f"{file.__name__}.", file


def _inside(held: HeldValue, seen: set[int], depth: int = 0) -> Iterator[HeldValue]:
    value = held.value
    if _mark(value) is not None:
        yield held
        return
    if depth > DEPTH or id(value) in seen:
        return
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        yield HeldValue(f"{held.name}[length]", (), "", len(value))
    items = _items(value)
    if items:
        seen.add(id(value))
    for holder, key, item in items:
        yield from _inside(HeldValue(f"{held.name}[{key}]", holder, key, item), seen, depth + 1)


def _items(value: Value) -> list[tuple[Value, Value, Value]]:
    """(holder, key, item) of a container, of a function, and of an object that is neither a part nor a library's."""
    if isinstance(value, dict):
        return [(value, key, item) for key, item in list(value.items())[:ITEMS]]
    if isinstance(value, (list, tuple)):
        return [(value, i, item) for i, item in enumerate(value[:ITEMS])]
    if isinstance(value, partial):
        return [(value, "func", value.func), (value, "args", value.args), (value, "keywords", value.keywords)]
    if isinstance(value, (staticmethod, classmethod, MethodType)):
        return [(value, "__func__", value.__func__)]
    if isinstance(value, FunctionType):
        cells = [cell for cell in value.__closure__ or () if not _empty(cell)]
        kept = [(value, "__defaults__", value.__defaults__ or ()), (value, "__dict__", vars(value))]
        return kept + [(cell, CELL, cell.cell_contents) for cell in cells]
    if isinstance(value, (type, ModuleType, nn.Module)) or type(value).__module__.partition(".")[0] in LIBRARIES:
        return []
    return [(value, key, item) for key, item in list(getattr(value, "__dict__", {}).items())[:ITEMS]]


def _empty(cell: CellType) -> bool:
    try:
        return cell.cell_contents is None
    except ValueError:
        return True


def _mark(value: Value) -> Value:
    """Something that changes when the value does; None for containers and for what is not compared."""
    if isinstance(value, (bool, int, float, str, np.number)):
        return value
    if isinstance(value, itertools.count):
        return repr(value)
    if isinstance(value, Tensor):
        return tuple(value.shape), value.detach().flatten()[:64].tolist()
    if isinstance(value, np.ndarray):
        return value.shape, value.ravel()[:64].tolist() if value.dtype.kind in "biuf" else None
    if isinstance(value, random.Random):
        return hash(value.getstate())
    if isinstance(value, torch.Generator):
        return value.get_state().tolist()
    return None
