"""Where a registered class was written."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from dataclasses import dataclass
from functools import cached_property
from types import FunctionType


@dataclass(frozen=True)
class Entry:
    """A registered class and the file and line of its first function, as a notebook's module has no file."""

    cls: type
    file: str
    function_line: int

    @cached_property
    def line(self) -> int:
        """Line of the class statement; that of its first function where no source is at hand."""
        try:
            return inspect.getsourcelines(self.cls)[1]
        except (OSError, TypeError):
            return self.function_line

    @property
    def location(self) -> str:
        """As an error names it, `file:line`."""
        return f"{self.file}:{self.line}"

    def is_rerun_of(self, other: Entry) -> bool:
        """Whether both are one class statement that ran twice: in a notebook's cell, or in a file imported twice."""
        same_file = self.file == other.file or self.cls.__module__ == other.cls.__module__
        return same_file and self.cls.__qualname__ == other.cls.__qualname__


def entry_of(cls: type) -> Entry:
    for item in vars(cls).values():
        function = inspect.unwrap(getattr(item, "__func__", item))
        if isinstance(function, FunctionType) and function.__module__ == cls.__module__:
            code = function.__code__
            if code.co_filename != "<string>":  # the constructor that dataclass writes
                return Entry(cls, code.co_filename, code.co_firstlineno)
    module = sys.modules.get(cls.__module__)
    return Entry(cls, str(getattr(module, "__file__", None) or f"<{cls.__module__}>"), 0)


def raised_at(cls: type, error: BaseException) -> str:
    """` (my_data.py:12)`: the last line of the plugin's file that ran before the error; empty for detkit's parts."""
    file, line = last_line(cls, error)
    return f" ({os.path.basename(file)}:{line})" if file and not cls.__module__.startswith("detkit.") else ""


def last_line(cls: type, error: BaseException) -> tuple[str, int | None]:
    """The file of a class and the last line of it that ran before the error; an empty name if none did."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return (str(file), lines[-1]) if lines else ("", None)
