"""The settings of a run: loaded, overlaid, overridden, checked to the last key, then frozen.

    config = load_config("quickstart", ["backbone.depth=34"])
    config.backbone.depth, config.origin("backbone.depth"), config.to_yaml()

Every key must be an argument of a registered part or of an options class (see schema.py), so no key is misspelt or
ignored. Loading builds no part with weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, TypeAlias

from detkit import registry
from detkit.config.data_root import add_datasets, as_written, remove_keys
from detkit.config.find import find_config
from detkit.config.imports import import_entry
from detkit.config.overrides import Overrides, apply_overrides, is_override
from detkit.config.paths import MOVED, PathResolver, ResolvedPath, raw_value, read_moved, where_else
from detkit.config.raw import (
    ConfigError,
    Origin,
    RawConfig,
    omegaconf_message,
    overlay,
    raw_from_mapping,
    read_raw,
    shown_config,
    written_key,
)
from detkit.config.schema import ROOT, Options, Section
from detkit.config.validate import Validator, build_options
from detkit.registry.arguments import MISSING
from detkit.utils.errors import prefix_error
from detkit.utils.types import Tree, Value

UNIQUE = re.compile(r"\.(out_features|class_names|ignore_classes|parts|tags|aspect_ratios)(\.\d+)?$")
"""Keys of lists whose items must differ."""


class Config:
    """A complete, checked, read-only config. Sections and parts are reached as attributes."""

    def __init__(
        self, values: Mapping[str, Value], origin: Mapping[str, str], name: str, paths: Mapping[str, ResolvedPath] = {}
    ) -> None:
        from omegaconf import OmegaConf

        self.name = name
        self._values, self._origin, self._paths = dict(values), dict(origin), dict(paths)
        self._view = OmegaConf.create(self._values)
        OmegaConf.set_readonly(self._view, True)

    def __setattr__(self, key: str, value: object) -> None:
        if "_view" in vars(self):
            raise AttributeError(f"{self.name}: a config is read-only; pass {key}=... as an override to load_config")
        super().__setattr__(key, value)

    def __deepcopy__(self, memo: object) -> Config:
        """Itself: nothing can change it."""
        return self

    def __getattr__(self, key: str) -> Value:
        if key.startswith("_"):
            raise AttributeError(key)
        if key not in self._view:
            raise AttributeError(f"{self.name}: the config has no {key!r}; add it to the file")
        return self._view[key]

    def __contains__(self, path: str) -> bool:
        return raw_value(self._values, path, MISSING) is not MISSING

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self._values == other._values

    def require(self, path: str) -> Value:
        """The node at a dotted path; ValueError that names file and key if it isn't there."""
        from omegaconf import OmegaConf

        node = OmegaConf.select(self._view, path, default=MISSING)
        if node is MISSING:
            raise ValueError(f"{self.name}: {path}: missing; this command needs it")
        return node

    def options(self, path: str) -> Value:
        """The options object (a frozen dataclass) at a dotted path, e.g. `train` or `data.loader`."""
        from omegaconf import OmegaConf

        node: Value = ROOT
        for key in path.split("."):
            node = node.keys[key] if isinstance(node, Section) else None
        if not isinstance(node, Options):
            raise ValueError(f"{path} is not an options section of a config")
        values: Value = OmegaConf.to_container(self.require(path), resolve=True)
        return build_options(node, values)

    def build(self, registry_of: registry.Registry, path: str, **derived: object) -> Any:
        """Builds the part at a dotted path; a ValueError or OSError of its constructor names the line of the config."""
        try:
            return registry_of.build(self.require(path), **derived)
        except ValueError as error:
            raise ValueError(f"{self.location(path)}: {path}: {error}") from error
        except OSError as error:
            raise prefix_error(error, f"{self.location(path)}: {path}") from error

    def check(self) -> None:
        """Raises ValueError for settings that load, but that no training could use; no data are read.

        These are `check_length`, lists that repeat an item, data settings that contradict each other, and parts that
        can't be built from their arguments, or not for the part before them.
        """
        self.check_length()
        self._check_unique()
        for above in ("detkit.data.build:check_settings", "detkit.detectors.build:check_parts"):
            resolve_name(above)(self)  # from rooms above, like the schema's options

    def check_length(self) -> None:
        """Raises ValueError if the schedule, if there is one, does not fit `train.iterations`.

        Loading does not check this, so that runs from before the check still load, resume and evaluate.
        """
        if "schedule" not in self or "train" not in self:
            return
        with self.locate_errors("schedule.warmup_iterations", "train.iterations"):
            registry.SCHEDULES.build(self.schedule).check_length(self.options("train").iterations)

    def _check_unique(self) -> None:
        """Raises ValueError if a list of `UNIQUE` repeats an item; loading does not check this either."""
        for path, value in self.leaves():
            items = value if UNIQUE.search(path) and isinstance(value, list) else []
            if repeated := [str(item) for i, item in enumerate(items) if item in items[:i]]:
                raise ValueError(
                    f"{self.location(path)}: {path}: {', '.join(repeated)} is listed more than once: list it once"
                )

    @contextmanager
    def locate_errors(self, *paths: str) -> Iterator[None]:
        """While the context is active, the locations of the settings that an error is about begin its message."""
        try:
            yield
        except (ValueError, OSError) as error:
            places = " with ".join(sorted(set(map(self.location, paths))))
            if isinstance(error, OSError):
                raise prefix_error(error, places) from error
            raise ValueError(f"{places}: {error}") from error

    def location(self, path: str) -> str:
        """The file and line, or the override, that set a value; for error messages."""
        return _location(path, {key: o for key, o in self._origin.items() if not o.startswith("default")}, self.name)

    def origin(self, path: str) -> str:
        """Where a value came from: `file:line`, `command line (...)` or `default of Part`."""
        return self._origin.get(written_key(path, self._origin), "default")

    def paths(self, below: str = "") -> dict[str, str]:
        """Dotted keys, at or below one, that hold files or folders -> the absolute paths."""
        return {k: p.result for k, p in self._paths.items() if not below or f"{k}.".startswith(f"{below}.")}

    def explain_paths(self, below: str) -> list[str]:
        """A line for each path below a key: origin, absolute path, and for a missing one where else it may be."""
        lines = []
        for key in self.paths(below):
            path, origin = self._paths[key], self.origin(key)
            line = f"{key} ({self.name if origin == 'default' else origin}) is {path.result}"
            exists = Path(path.result).exists()
            lines.append(line if exists else f"{line}, which does not exist{where_else(path)}")
        return lines

    def leaves(self) -> Iterator[tuple[str, Value]]:
        """Every (dotted path, plain value); an empty list or mapping counts as a value."""
        yield from _leaves(self._values, "")

    def to_dict(self) -> Tree:
        """A deep copy as plain dicts and lists."""
        copied: Tree = json.loads(json.dumps(self._values))
        return copied

    def to_yaml(self) -> str:
        """YAML that loads, alone, to this same config."""
        from omegaconf import OmegaConf

        return OmegaConf.to_yaml(OmegaConf.create(self.to_dict()))

    def hash(self) -> str:
        """Twelve hex digits that are equal exactly for equal settings."""
        return hashlib.sha256(json.dumps(self._values, sort_keys=True).encode()).hexdigest()[:12]

    @classmethod
    def from_dict(cls, values: Mapping[str, Value], overrides: Overrides = (), name: str = "saved config") -> Config:
        """A config out of `to_dict()`, as a checkpoint holds it; checked like any other."""
        raw = RawConfig()
        overlay(raw, RawConfig(dict(values), {}, [(str(e), Path.cwd()) for e in values.get("imports", [])]))
        return _finish(raw, overrides, name)


ConfigLike: TypeAlias = "str | os.PathLike[str] | Mapping[str, Value] | Config"
"""What stands for a config: a name, a file, a mapping (its paths count from the current folder), or a `Config`."""


def as_config(source: ConfigLike, overrides: Overrides = (), *, overlays: Sequence[str | Path] = ()) -> Config:
    """A checked config of a name, a file, a mapping or another config, with overlays and overrides applied.

    A mapping may have a `_base_`. Raises what `load_config` raises.
    """
    if isinstance(source, Config):
        if not overrides and not overlays:
            return source
        raw, name = _raw_of(source), source.name
    elif isinstance(source, Mapping):
        raw, name = raw_from_mapping(source), "config"
    elif isinstance(source, (str, os.PathLike)):
        return load_config(source, overrides, overlays=overlays)
    else:
        raise ValueError(f"config: {source!r} must be a name, a file, a mapping or a Config")
    for above in [overlays] if isinstance(overlays, (str, Path)) else overlays:
        overlay(raw, read_raw(find_config(above)))
    return _finish(raw, overrides, name)


def _raw_of(config: Config) -> RawConfig:
    """A finished config, to be changed; what was an override of it counts as its own value."""
    origins = {k: o for k, o in config._origin.items() if isinstance(o, Origin) and not is_override(o)}
    values = config.to_dict()
    return RawConfig(values, origins, [(entry, Path.cwd()) for entry in values.get("imports", [])])


def load_config(
    path: str | os.PathLike[str], overrides: Overrides = (), *, overlays: Sequence[str | Path] = ()
) -> Config:
    """Reads a config with its bases, applies overrides, checks and completes it.

    path: a file or a name (`find_config`). overlays: others, laid over it in turn before the overrides; they may be
    fragments, as configs/losses/ has.

    Raises FileNotFoundError for a missing file and ConfigError for everything that is wrong, each with the file and
    line, the key and the nearest match.
    """
    file = find_config(path)
    raw = read_raw(file)
    for above in [overlays] if isinstance(overlays, (str, Path)) else overlays:
        overlay(raw, read_raw(find_config(above)))
    return _finish(raw, overrides, shown_config(file))


def _finish(raw: RawConfig, overrides: Overrides, name: str) -> Config:
    apply_overrides(raw, overrides)
    made = add_datasets(raw, name)
    registry.load_plugins()
    moved = _location(MOVED, raw.origin, name)
    resolver = PathResolver(raw, read_moved(raw))
    if raw.imports:
        raw.values["imports"] = [
            import_entry(entry, folder, _location("imports", raw.origin, name), resolver)
            for entry, folder in dict.fromkeys(raw.imports)
        ]
    validator = Validator(resolver)
    values = validator.complete(ROOT, remove_keys(_resolved(raw, name)), "")
    origin = {**validator.origin, **raw.origin}
    if validator.errors:
        # Both data sets of data.root have the same mistake.
        errors = dict.fromkeys((as_written(path, made), text) for path, text in validator.errors)
        raise ConfigError([f"{_location(path, raw.origin, name)}: {path}: {text}" for path, text in errors])
    if unused := resolver.unused():
        raise ConfigError([f"{moved}: {MOVED}: no path of the config begins with {old}" for old in unused])
    return Config(values, origin, name, resolver.resolved)


def _location(path: str, origin: Mapping[str, str], name: str) -> str:
    """The file and line, or the override, that an error at `path` is about.

    An error about a part, or about a default, may come from any override of the part.
    """
    path = written_key(path, origin)
    location = origin.get(path, name)
    below = {o for key, o in origin.items() if path and key.startswith(f"{path}.") and is_override(o)}
    return " with ".join([location, *sorted(below - {location})])


def _resolved(raw: RawConfig, name: str) -> Value:
    """The values with every `${other.key}` replaced."""
    from omegaconf import OmegaConf
    from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

    try:
        return OmegaConf.to_container(OmegaConf.create(dict(raw.values)), resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = re.sub(r"\[(\d+)\]", r".\1", str(error.full_key or ""))
        text = "missing value (`???`)" if isinstance(error, MissingMandatoryValue) else omegaconf_message(error)
        raise ConfigError([f"{_location(key, raw.origin, name)}: {key}: {text}"]) from None


def _leaves(value: Value, path: str) -> Iterator[tuple[str, Value]]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(item, (Mapping, list)) for item in value):
        for i, item in enumerate(value):
            yield from _leaves(item, f"{path}.{i}")
    else:
        yield path, value
