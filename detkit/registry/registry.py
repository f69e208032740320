"""`Registry`: register, look up and build one kind of part."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from detkit.registry import plugins
from detkit.registry.arguments import Argument, arguments_of, checked, enforce_bounds, nearest, signature_problem
from detkit.registry.source import Entry, entry_of
from detkit.registry.values import TypeMismatch, convert, type_name
from detkit.utils.errors import is_out_of_memory, prefix_error
from detkit.utils.types import Value

C = TypeVar("C", bound=type)
LOADING = threading.RLock()
"""Held while built-in parts are imported."""


class Registry:
    """One kind of part. `base`: "module:Class" every part derives from. `location`: package of the built-in ones.

    derived: arguments that detkit hands in at assembly, with a word on where they come from; a config
    must not set them. light: a part is built in no time and holds no weights, so checking a config
    builds one to let the constructor judge its values.
    """

    def __init__(
        self, name: str, base: str, location: str, derived: Mapping[str, str] | None = None, *, light: bool = False
    ) -> None:
        self.name, self.base, self.location, self.derived = name, base, location, dict(derived or {})
        self.light = light
        self._entries: dict[str, Entry] = {}
        self._loaded = self._is_loading = False

    def __repr__(self) -> str:
        return f"Registry({self.name!r}, {len(self._entries)} parts)"

    def register(self, name: str | None = None) -> Callable[[C], C]:
        """Decorator that registers a class under `name` (its own name if None) and lets it `enforce_bounds`.

        The same class from the same place (a notebook cell that runs again) replaces the earlier one;
        the name taken by another place, a constructor that is no schema or a wrong base class raise
        ValueError.
        """
        if isinstance(name, type):
            raise ValueError(f"write @{self.name.upper()}.register() with brackets over {name.__name__}")

        def add(cls: C) -> C:
            self.add(cls, name or cls.__name__)
            return cls

        return add

    def add(self, cls: type, name: str) -> None:
        """See `register`."""
        entry = entry_of(cls)
        base = load_class(self.base)
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise ValueError(
                f"{entry.location}: {cls.__name__} can't go into {self.name}: it is not a subclass of "
                f"{base.__module__}.{base.__qualname__}"
            )
        problem = signature_problem(cls)
        if problem:
            raise ValueError(f"{entry.location}: {cls.__name__}.__init__ can't be a schema: {problem}")
        if not cls.__module__.startswith("detkit."):
            self.load()  # so that a name that clashes with a built-in part is the newcomer's error
        old = self._entries.get(name)
        if old is not None and not entry.is_rerun_of(old):
            raise ValueError(
                f"{self.name}: the name {name!r} is taken by {old.cls.__qualname__} at {old.location}; "
                f"{cls.__qualname__} at {entry.location} needs another one, "
                f"e.g. @{self.name.upper()}.register('{name}2')"
            )
        self._entries[name] = entry
        enforce_bounds(cls)

    def unregister(self, name: str) -> None:
        """Forgets a name; raises ValueError if it is unknown."""
        self.get(name)
        del self._entries[name]

    @contextmanager
    def temporary(self) -> Iterator[Registry]:
        """Whatever is registered inside the `with` is forgotten after it; for tests and notebooks."""
        self.load()
        before = dict(self._entries)
        try:
            yield self
        finally:
            self._entries = before

    def load(self) -> None:
        """Imports the built-in parts, once."""
        if self._loaded:
            return
        with LOADING:
            if self._loaded or self._is_loading:  # parts that register may look names up
                return
            self._is_loading = True
            try:
                package = importlib.import_module(self.location)
                prefix = f"{self.location}."
                for module in pkgutil.walk_packages(getattr(package, "__path__", []), prefix, onerror=_raise):
                    if not any(part.startswith("_") for part in module.name.removeprefix(prefix).split(".")):
                        importlib.import_module(module.name)
                self._loaded = True  # only now: other threads wait until all parts are there
            finally:
                self._is_loading = False

    def names(self) -> list[str]:
        """Registered names, sorted."""
        self.load()
        return sorted(self._entries)

    def entry(self, name: str) -> Entry:
        """Class and place of a name; an unknown one raises ValueError with the nearest and what was imported."""
        self.load()
        if name in self._entries:
            return self._entries[name]
        sources = ", ".join([f"{self.location} (built in)", *plugins.imported])
        raise ValueError(
            f"{name!r} is not in {self.name}{nearest(str(name), list(self._entries))} Known: "
            f"{', '.join(sorted(self._entries)) or 'nothing'}. Imported: {sources}. If you defined it in a file "
            f"of your own, add that file or module to `imports:` in the config."
        )

    def get(self, name: str) -> type:
        """The class of a name."""
        return self.entry(name).cls

    def arguments(self, name: str) -> dict[str, Argument]:
        """Config keys of a part: its plain arguments that are not derived.

        Raises ValueError for an unknown name and for a constructor whose arguments no config could give.
        """
        entry = self.entry(name)
        found = arguments_of(entry.cls)
        for key, argument in found.items():
            if key not in self.derived:
                _check_argument(argument, f"{entry.location}: {name}.__init__, argument {key!r}")
        return {k: a for k, a in found.items() if a.plain and k not in self.derived}

    def derived_arguments(self, name: str) -> dict[str, str]:
        """Arguments of a part that a config must not set -> where they come from."""
        found = arguments_of(self.get(name))
        return {
            k: self.derived.get(k, f"its own default, as no config can hold a {type_name(a.annotation)}")
            for k, a in found.items()
            if k in self.derived or not a.plain
        }

    def build(self, node: Mapping[str, Value], **derived: object) -> Any:
        """Builds the part of a config node {type, its arguments}; `derived` go only where they are asked for."""
        values = _plain_dict(node)
        name = values.pop("type", None)
        known = arguments_of(self.get(name))
        for key, value in values.items():
            if key not in known:
                raise ValueError(f"{name}: unknown argument {key!r}{nearest(key, list(known))}")
            values[key] = checked(f"{name}: {key}", value, known[key].annotation)
        return self.construct(name, values, **derived)

    def construct(self, name: str, values: Mapping[str, Value], **derived: object) -> Any:
        """Builds a part from values that fit its arguments; what its constructor raises names the part."""
        cls, known = self.get(name), arguments_of(self.get(name))
        given = {**values, **{key: value for key, value in derived.items() if key in known}}
        missing = [k for k, a in known.items() if a.required and k not in given]
        if missing:
            raise ValueError(f"{name}: missing argument {', '.join(missing)}")
        part: Any = cls.__new__(cls)  # type: ignore[call-overload]
        try:
            part.__init__(**given)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        except OSError as error:
            raise prefix_error(error, f"{name}{_raised_in(cls, error)}") from error
        except AttributeError:
            if not _lacks_super_init(part):
                raise
        except (MemoryError, RuntimeError, OverflowError, TypeError) as error:
            if not is_out_of_memory(error):
                raise
            raise ValueError(
                f"{name}: no memory for a part of these sizes: {_sizes(values) or 'its defaults'}: take smaller ones "
                f"({type(error).__name__}: {str(error).strip().partition(chr(10))[0]})"
            ) from error
        if _lacks_super_init(part):
            location = self.entry(name).location
            raise ValueError(f"{location}: {cls.__name__}.__init__ must call super().__init__() before anything else")
        return part


def _lacks_super_init(part: object) -> bool:
    """Whether a torch module was made without its base's constructor; this room does not import torch."""
    return hasattr(part, "register_buffer") and "_buffers" not in vars(part)


def _raised_in(cls: type, error: BaseException) -> str:
    """` (my_data.py:12)`: the last line of the class's own file that ran before the error; nothing if none did."""
    own = getattr(sys.modules.get(cls.__module__), "__file__", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == own]
    foreign = own and not cls.__module__.startswith("detkit.")
    return f" ({os.path.basename(str(own))}:{lines[-1]})" if foreign and lines else ""


def _sizes(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items() if not isinstance(value, (str, bool)))


def _raise(module: str) -> None:
    """walk_packages would swallow a subpackage's ImportError."""
    raise


def _check_argument(argument: Argument, where: str) -> None:
    """Raises ValueError if an argument is one that a config could neither set nor leave out."""
    if not argument.plain:
        if argument.required:
            raise ValueError(
                f"{where}, is a {type_name(argument.annotation)}: no config can hold that and detkit does not hand it "
                f"in; give it a default or a plain type"
            )
        return
    if not argument.required:
        try:
            convert(argument.default, argument.annotation)
        except TypeMismatch as error:
            raise ValueError(f"{where}: its default does not fit its annotation: {error}") from None


def _plain_dict(node: Mapping[str, Value]) -> dict[str, Value]:
    from omegaconf import DictConfig, OmegaConf

    if isinstance(node, DictConfig):
        container = OmegaConf.to_container(node, resolve=True)
        assert isinstance(container, dict)
        return {str(key): value for key, value in container.items()}
    return dict(node)


def load_class(path: str) -> type:
    """The class behind "module:Class"."""
    module, _, name = path.partition(":")
    cls: type = getattr(importlib.import_module(module), name)
    return cls
