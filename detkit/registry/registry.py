"""`Registry`: register, look up and build one kind of part."""

from __future__ import annotations

import importlib
import pkgutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from detkit.hub import is_remote, local_path
from detkit.registry import plugins
from detkit.registry.arguments import Argument, arguments_of, checked, enforce_bounds, nearest, signature_problem
from detkit.registry.path_types import FILE
from detkit.registry.source import Entry, entry_of, raised_at
from detkit.registry.values import TypeMismatch, convert, map_paths, type_name
from detkit.utils.errors import is_out_of_memory, prefix_error
from detkit.utils.types import Value

C = TypeVar("C", bound=type)
LOADING = threading.RLock()
"""Held while built-in parts are imported."""


class Registry:
    """One kind of part.

    Args:
        name: of the registry, as in error messages.
        base: "module:Class" that every part derives from.
        location: package of the built-in parts.
        derived: arguments that detkit hands in at assembly -> their source in words; a config must not set them.
        light: parts are quick to build and hold no weights, so checking a config builds them, which finds arguments
            that do not go together.
        aliases: other names of parts.
    """

    def __init__(
        self,
        name: str,
        base: str,
        location: str,
        derived: Mapping[str, str] | None = None,
        *,
        light: bool = False,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.base, self.location, self.derived = name, base, location, dict(derived or {})
        self.light, self.aliases = light, dict(aliases or {})
        self._entries: dict[str, Entry] = {}
        self._loaded = self._is_loading = False

    def __repr__(self) -> str:
        return f"Registry({self.name!r}, {len(self._entries)} parts)"

    def register(self, name: str | None = None) -> Callable[[C], C]:
        """Decorator that registers a class under `name` (its own name if None) and lets it `enforce_bounds`.

        A class that is defined again (a notebook cell that runs twice) replaces the earlier one. ValueError if another
        class has the name, the constructor is not a valid schema or the base class is wrong.
        """
        if isinstance(name, type):
            raise ValueError(f"use @{self.name.upper()}.register() with parentheses above {name.__name__}")

        def add(cls: C) -> C:
            self.add(cls, name or cls.__name__)
            return cls

        return add

    def add(self, cls: type, name: str) -> None:
        """`register` as a plain call."""
        entry = entry_of(cls)
        base = pkgutil.resolve_name(self.base)
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise ValueError(
                f"{entry.location}: {cls.__name__} can't be registered in {self.name}: it is not a subclass of "
                f"{base.__module__}.{base.__qualname__}"
            )
        problem = signature_problem(cls)
        if problem:
            raise ValueError(f"{entry.location}: {cls.__name__}.__init__ is not a valid schema: {problem}")
        if not cls.__module__.startswith("detkit."):
            self.load()  # a name that clashes with a built-in part is an error of the later class
        old = self._entries.get(name)
        if old is not None and not entry.is_rerun_of(old):
            raise ValueError(
                f"{self.name}: the name {name!r} is taken by {old.cls.__qualname__} at {old.location}; "
                f"register {cls.__qualname__} at {entry.location} under another one, "
                f"e.g. @{self.name.upper()}.register('{name}2')"
            )
        self._entries[name] = entry
        enforce_bounds(cls)

    @contextmanager
    def temporary(self) -> Iterator[Registry]:
        """While the context is active, parts may be registered that are removed after it; for tests and notebooks."""
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
                self._loaded = True  # set last: other threads wait until all parts are loaded
            finally:
                self._is_loading = False

    def names(self) -> list[str]:
        """Registered names, sorted."""
        self.load()
        return sorted(self._entries)

    def entry(self, name: str) -> Entry:
        """Class and location of a name; ValueError with the nearest name and the imported modules if it is unknown."""
        self.load()
        name = self.aliases.get(name, name)
        if name in self._entries:
            return self._entries[name]
        sources = ", ".join([f"{self.location} (built in)", *plugins.imported])
        raise ValueError(
            f"{name!r} is not in {self.name}{nearest(str(name), list(self._entries))} Known: "
            f"{', '.join(sorted(self._entries)) or 'nothing'}. Imported: {sources}. If your own file defines "
            f"it, add that file or module to `imports:` in the config."
        )

    def get(self, name: str) -> type:
        return self.entry(name).cls

    def arguments(self, name: str) -> dict[str, Argument]:
        """Config keys of a part: its plain arguments that are not derived.

        Raises ValueError for an unknown name and for a constructor whose arguments no config could give.
        """
        entry = self.entry(name)
        arguments = arguments_of(entry.cls)
        for key, argument in arguments.items():
            problem = None if key in self.derived else _argument_problem(argument)
            if problem:
                raise ValueError(f"{entry.location}: {name}.__init__, argument {key!r}{problem}")
        return {k: a for k, a in arguments.items() if a.plain and k not in self.derived}

    def derived_arguments(self, name: str) -> dict[str, str]:
        """Arguments of a part that a config must not set -> their source."""
        return {
            k: self.derived.get(k, f"its default, since a config can't hold a {type_name(a.annotation)}")
            for k, a in arguments_of(self.get(name)).items()
            if k in self.derived or not a.plain
        }

    def build(self, node: Mapping[str, Value], **derived: object) -> Any:
        """Builds the part of a config node {type, its arguments}; `derived` holds all that parts may ask for."""
        from omegaconf import OmegaConf

        plain: Value = OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        values = dict(plain)
        name = values.pop("type", None)
        known = arguments_of(self.get(name))
        for key, value in values.items():
            if key not in known:
                raise ValueError(f"{name}: unknown argument {key!r}{nearest(key, list(known))}")
            value = checked(f"{name}: {key}", value, known[key].annotation)
            values[key] = map_paths(value, known[key].annotation, key, _fetched)
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
            raise prefix_error(error, f"{name}{raised_at(cls, error)}") from error
        except AttributeError:
            if not _lacks_super_init(part):
                raise
        except (MemoryError, RuntimeError, OverflowError, TypeError) as error:
            if not is_out_of_memory(error):
                raise
            sizes = ", ".join(f"{k}={v}" for k, v in values.items() if not isinstance(v, (str, bool)))
            raise ValueError(
                f"{name}: out of memory with {sizes or 'its defaults'}: use smaller values "
                f"({type(error).__name__}: {str(error).strip().partition(chr(10))[0]})"
            ) from error
        if _lacks_super_init(part):
            location = self.entry(name).location
            raise ValueError(f"{location}: {cls.__name__}.__init__ must call super().__init__() before anything else")
        return part


def _fetched(text: str, kind: str, _: str) -> str:
    """The local copy of an address; names of weights are left to the part, which may not need them."""
    return str(local_path(text)) if kind == FILE and is_remote(text) else text


def _lacks_super_init(part: object) -> bool:
    """Whether a torch module was made without its base's constructor; this room does not import torch."""
    return hasattr(part, "register_buffer") and "_buffers" not in vars(part)


def _raise(module: str) -> None:
    """walk_packages would swallow a subpackage's ImportError."""
    raise


def _argument_problem(argument: Argument) -> str | None:
    """Why a config can neither set nor omit an argument."""
    if not argument.plain and argument.required:
        kind = type_name(argument.annotation)
        way_out = "give it a default or a plain type"
        return f", is a {kind}, which a config can't hold and detkit does not hand in: {way_out}"
    if argument.plain and not argument.required:
        try:
            convert(argument.default, argument.annotation)
        except TypeMismatch as error:
            return f": its default does not fit its annotation: {error}"
    return None
