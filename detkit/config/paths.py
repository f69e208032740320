"""Paths in a config: the folder they are relative to, folders that moved, and where a missing file may be."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from detkit.config.raw import Origin, RawConfig, written_key
from detkit.registry.path_types import is_path
from detkit.registry.values import value_text
from detkit.utils.console import printable
from detkit.utils.types import Value

MOVED = "moved"
"""Top-level key of a config: {old folder: new folder}, applied to every path and not saved."""
VARIABLE = "DETKIT_MOVED"
FROM_VARIABLE = re.compile(r"\$\{oc\.env:(\w+)[,}]")
"""The beginning of a path below a folder of a variable, as in `${oc.env:DETKIT_DATASETS,datasets}/coco`."""


@dataclass(frozen=True)
class ResolvedPath:
    """A path of a config: as written, the folder it is relative to, and the absolute path."""

    written: str
    folder: Path
    result: str
    variable: str | None = None
    """The environment variable with which it begins."""


@dataclass
class PathResolver:
    """Makes the paths of one config absolute; `resolved` keeps each under its key."""

    raw: RawConfig
    moved: dict[str, str] = field(default_factory=dict)
    resolved: dict[str, ResolvedPath] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)

    def __call__(self, text: str, kind: str, path: str) -> str:
        """The value of a key as the part gets it."""
        if not is_path(text, kind):
            return text
        source = self.source(path)
        variable = FROM_VARIABLE.match(str(raw_value(self.raw.values, source)))
        # What a variable holds was written by somebody who stood in the current folder.
        folder = Path.cwd() if variable else folder_of_key(source, self.raw.origin)
        result = self.move(absolute(text, folder))
        self.resolved[path] = ResolvedPath(text, folder, result, variable[1] if variable else None)
        return result

    def source(self, path: str) -> str:
        """The key in whose place the path at a key was written; for a value `${other.key}/...` the other key."""
        seen: set[str] = set()
        while path not in seen:
            seen.add(path)
            named = re.match(r"\$\{(\.*)([\w.\[\]-]+)\}", str(raw_value(self.raw.values, path)))
            if named is None:
                break
            path = interpolated_key(path, len(named[1]), named[2])
        return path

    def move(self, path: str) -> str:
        """The path with its moved folder replaced."""
        for old, new in self.moved.items():
            if path == old or path.startswith(old.rstrip("/") + "/"):
                self._used.add(old)
                return absolute(path[len(old) :].lstrip("/") or ".", Path(new))
        return path

    def unused(self) -> list[str]:
        """Moved folders of the config that no path begins with."""
        everywhere = moved_everywhere()
        return [old for old in self.moved if old not in self._used and old not in everywhere]


def moved_everywhere() -> dict[str, str]:
    """Moved folders of the variable `DETKIT_MOVED`, for every config: OLD=NEW, or several separated by colons."""
    pairs: list[str] = []
    for part in os.environ.get(VARIABLE, "").split(os.pathsep):
        # A folder's name may have a colon, too.
        if pairs and ("=" not in pairs[-1] or not ("=" in part or part.startswith(("/", "~")) or not part)):
            pairs[-1] += os.pathsep + part
        elif part:
            pairs.append(part)
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise ValueError(f"{VARIABLE}: {wrong[0]!r} must be OLD_FOLDER=NEW_FOLDER")
    split = [pair.split("=", 1) for pair in pairs]
    return {absolute(old, Path.cwd()): absolute(new, Path.cwd()) for old, new in split}


def read_moved(raw: RawConfig) -> dict[str, str]:
    """Takes the key `moved` out of a config, adds `DETKIT_MOVED`; ValueError unless it maps folders to folders."""
    value = raw.values.pop(MOVED, None) or {}
    origin = raw.origin.pop(MOVED, "config")
    if not isinstance(value, Mapping) or not all(isinstance(v, str) for pair in value.items() for v in pair):
        raise ValueError(f"{origin}: {MOVED}: must be {{old folder: new folder}}, not {value_text(value)}")
    folder = origin.folder if isinstance(origin, Origin) else Path.cwd()
    return {**moved_everywhere(), **{absolute(old, folder): absolute(new, folder) for old, new in value.items()}}


def folder_of_key(path: str, origin: Mapping[str, Origin]) -> Path:
    """The folder of the file in which a key was written; the current one for a key of no file."""
    key = written_key(path, origin)
    return origin[key].folder if key else Path.cwd()


def raw_value(values: Value, path: str, default: object = None) -> Value:
    """The value at a dotted path, before interpolation."""
    for key in path.split("."):
        if isinstance(values, Mapping) and key in values:
            values = values[key]
        elif isinstance(values, list) and key.isdigit() and int(key) < len(values):
            values = values[int(key)]
        else:
            return default
    return values


def interpolated_key(path: str, dots: int, key: str) -> str:
    """The key that `${key}` at `path` refers to; leading dots start at the node around `path` or one above."""
    key = re.sub(r"\[(\w+)\]", r".\1", key)
    above = path.split(".")[:-dots] if dots else []
    return ".".join([*above, key])


def moved_hint(folder: Path) -> str:
    """The override for a moved folder, quoted for a shell."""
    if re.fullmatch(r"[\w./ ~+-]+", str(folder)):
        return f'"{MOVED}={{{folder}: NEW_FOLDER}}"'
    return shlex.quote(f"{MOVED}={{{json.dumps(str(folder), ensure_ascii=False)}: NEW_FOLDER}}")


def where_else(path: ResolvedPath) -> str:
    """Where a missing path was searched, and the way out: a variable, a moved folder, the current folder."""
    if path.variable is not None:
        known = os.environ.get(path.variable)
        text = "is not set" if known is None else f"is {printable(known)}"
        return f"; {path.variable} {text}: set it to the folder of your data sets, or set this key"
    if Path(path.written).expanduser().is_absolute() or path.result != absolute(path.written, path.folder):
        return f"; if its folder has moved, add {moved_hint(Path(path.result).parent)}"
    here = absolute(path.written, Path.cwd())
    text = f"; {path.written} is relative to {path.folder}"
    if Path(here).exists() and here != path.result:
        text += f", the folder of the config, not to the current folder. {here} exists: write that instead"
    return text


def absolute(text: str, folder: Path) -> str:
    """A path relative to `folder`, made absolute; `~` is the home folder."""
    joined = str(folder.absolute() / Path(text).expanduser())
    plain = os.path.normpath(joined)
    # Behind a symbolic link, `..` is not the folder that the text suggests.
    return plain if os.path.realpath(plain) == os.path.realpath(joined) else joined
