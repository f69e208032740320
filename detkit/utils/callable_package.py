"""Packages that are functions, too: `detkit.train(...)` works beside `from detkit.train.trainer import Trainer`."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


class CallablePackage(ModuleType):
    """A package whose call is that of the function of its name in detkit/api.py, imported when it is called."""

    @property
    def function(self) -> Callable[..., Any]:
        """The function."""
        found: Callable[..., Any] = pkgutil.resolve_name(f"detkit.api:{self.__name__.rpartition('.')[2]}")
        return found

    def __call__(self, *args: Any, **more: Any) -> Any:
        return self.function(*args, **more)

    @property
    def __signature__(self) -> inspect.Signature:
        """What `inspect.signature`, and with it a notebook, shows."""
        return inspect.signature(self.function)

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        """Lets a process pool take it, as it takes a function."""
        return importlib.import_module, (self.__name__,)


def make_callable(package: str) -> None:
    """Turns a package that is being imported into a `CallablePackage`."""
    sys.modules[package].__class__ = CallablePackage
