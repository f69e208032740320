"""Where a registered class was written, and whether two classes are one class statement that ran twice."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import FunctionType


@dataclass(frozen=True)
class Entry:
    """A registered class and where it was written.

    mark: the first line of one of its own functions; None if it has none.
    """

    cls: type
    file: str
    mark: int | None

    @cached_property
    def line(self) -> int:
        """Line of the class statement; of its first function, or 0, where the source is not at hand."""
        spans = _statements(self.file, self.cls.__qualname__)
        inside = [start for start, end in spans if self.mark is None or start <= self.mark <= end]
        return inside[0] if inside else self.mark or 0

    @property
    def location(self) -> str:
        return f"{self.file}:{self.line}"


def entry_of(cls: type) -> Entry:
    """Where `cls` was written, read from its own functions, since a notebook's module has no file."""
    for item in vars(cls).values():
        function = inspect.unwrap(getattr(item, "__func__", item))
        if isinstance(function, FunctionType) and function.__module__ == cls.__module__:
            code = function.__code__
            if code.co_filename != "<string>":  # the constructor that dataclass writes
                return Entry(cls, code.co_filename, code.co_firstlineno)
    module = sys.modules.get(cls.__module__)
    return Entry(cls, str(getattr(module, "__file__", None) or f"<{cls.__module__}>"), None)


def same_source(old: Entry, new: Entry) -> bool:
    """Whether both are one class statement that ran twice.

    In a file: the same statement, whatever module name the file ran under and though its line moved by
    editing. In notebook cells, whose file names change at every run: the same module and qualified name.
    """
    if old.cls.__qualname__ != new.cls.__qualname__:
        return False
    real = Path(old.file).is_file(), Path(new.file).is_file()
    if not any(real):
        return old.cls.__module__ == new.cls.__module__
    if not all(real) or Path(old.file).resolve() != Path(new.file).resolve():
        return False
    return old.mark == new.mark is not None or len(_statements(new.file, new.cls.__qualname__)) <= 1


def _statements(file: str, qualname: str) -> list[tuple[int, int]]:
    """First and last line of every class statement of that name in a file; none where it can't be read."""
    try:
        tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return []
    return [
        (min([node.lineno, *(d.lineno for d in node.decorator_list)]), node.end_lineno or node.lineno)
        for name, node in _classes(tree, "")
        if name == qualname
    ]


def _classes(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.ClassDef]]:
    for child in ast.iter_child_nodes(node):
        below = prefix
        if isinstance(child, ast.ClassDef):
            yield prefix + child.name, child
            below = f"{prefix}{child.name}."
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            below = f"{prefix}{child.name}.<locals>."
        yield from _classes(child, below)
