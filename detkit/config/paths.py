"""Where the paths in a config lie: from which folder they count, what has moved, and what is near a missing one."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detkit.config.tree import Origin, RawConfig
from detkit.registry.path_types import is_path

MOVED = "moved"
"""Top-level key of a config: {old folder: new folder}, applied to every path and not stored."""
VARIABLE = "DETKIT_MOVED"


@dataclass(frozen=True)
class Located:
    """A path of a config: as it was written, from where it counts, and what came out."""

    written: str
    folder: Path
    result: str

    @property
    def is_relative(self) -> bool:
        return not Path(self.written).expanduser().is_absolute()


@dataclass
class Locator:
    """Makes the paths of one config absolute; `found` keeps each under its key."""

    raw: RawConfig
    moved: dict[str, str] = field(default_factory=dict)
    found: dict[str, Located] = field(default_factory=dict)
    _used: set[str] = field(default_factory=set)

    def __call__(self, text: str, kind: str, path: str) -> str:
        """The value at a key as the part gets it."""
        if not is_path(text, kind):
            return text
        folder = self.folder(path)
        result = self.move(absolute(text, folder))
        self.found[path] = Located(text, folder, result)
        return result

    def folder(self, path: str) -> Path:
        """What the path written at a key counts from; a value `${other.key}/...` counts from where that was written."""
        seen: set[str] = set()
        while path not in seen:
            seen.add(path)
            named = re.match(r"\$\{(\.*)([\w.\[\]-]+)\}", str(raw_value(self.raw.values, path)))
            if named is None:
                break
            path = interpolated_key(path, len(named[1]), named[2])
        return folder_of_key(path, self.raw.origin)

    def move(self, path: str) -> str:
        """The path where it lies now."""
        for old, new in self.moved.items():
            if path == old or path.startswith(old.rstrip("/") + "/"):
                self._used.add(old)
                return absolute(path[len(old) :].lstrip("/") or ".", Path(new))
        return path

    def unused(self) -> list[str]:
        """Folders that the config says have moved although no path begins with them."""
        everywhere = moved_everywhere()
        return [old for old in self.moved if old not in self._used and old not in everywhere]


def moved_everywhere() -> dict[str, str]:
    """What the variable `DETKIT_MOVED` says has moved, for every config: OLD=NEW, or several with colons between."""
    pairs: list[str] = []
    for part in os.environ.get(VARIABLE, "").split(os.pathsep):
        # A folder's name may have a colon, too.
        if pairs and ("=" not in pairs[-1] or not ("=" in part or part.startswith(("/", "~")) or not part)):
            pairs[-1] += os.pathsep + part
        elif part:
            pairs.append(part)
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise ValueError(f"{VARIABLE}: {wrong[0]!r} is not OLD_FOLDER=NEW_FOLDER")
    split = [pair.split("=", 1) for pair in pairs]
    return {absolute(old, Path.cwd()): absolute(new, Path.cwd()) for old, new in split}


def read_moved(raw: RawConfig) -> dict[str, str]:
    """Takes the key `moved` out of a config, adds `DETKIT_MOVED`; ValueError unless it maps folders to folders."""
    value = raw.values.pop(MOVED, None) or {}
    place = raw.origin.pop(MOVED, "config")
    if not isinstance(value, Mapping) or not all(isinstance(v, str) for pair in value.items() for v in pair):
        raise ValueError(f"{place}: {MOVED}: {value!r} is not {{old folder: new folder}}")
    folder = place.folder if isinstance(place, Origin) else Path.cwd()
    return {**moved_everywhere(), **{absolute(old, folder): absolute(new, folder) for old, new in value.items()}}


def folder_of_key(path: str, origin: Mapping[str, Origin]) -> Path:
    """The folder that belongs to the place where a key was written; the current one for what stands in no file."""
    while path and path not in origin:
        path = path.rpartition(".")[0]
    return origin[path].folder if path else Path.cwd()


def raw_value(values: Any, path: str) -> Any:
    """What is written at a dotted path, before interpolation; None if there is nothing."""
    for key in path.split("."):
        if isinstance(values, Mapping) and key in values:
            values = values[key]
        elif isinstance(values, list) and key.isdigit() and int(key) < len(values):
            values = values[int(key)]
        else:
            return None
    return values


def interpolated_key(path: str, dots: int, key: str) -> str:
    """The key that `${key}` at `path` means; with dots in front it counts from the node around `path` or one above."""
    key = re.sub(r"\[(\w+)\]", r".\1", key)
    above = path.split(".")[:-dots] if dots else []
    return ".".join([*above, key])


def explain_missing(paths: Mapping[str, Located], origins: Mapping[str, str]) -> list[str]:
    """A line for each path: its key and where it was written, and for one that is missing where else it may be."""
    lines = []
    for key, path in paths.items():
        line = f"{key} ({origins[key]}) is {path.result}"
        if not Path(path.result).exists():
            line += ", which is not there" + near_one(path)
        lines.append(line)
    return lines


def moved_hint(folder: Path) -> str:
    """The override for a folder that has moved, as a shell takes it, whatever the folder's name."""
    if re.fullmatch(r"[\w./ ~+-]+", str(folder)):
        return f'"{MOVED}={{{folder}: NEW_FOLDER}}"'
    return shlex.quote(f"{MOVED}={{{json.dumps(str(folder), ensure_ascii=False)}: NEW_FOLDER}}")


def near_one(path: Located) -> str:
    """Where a missing relative path was looked for, and whether it is in the current folder."""
    if not path.is_relative or path.result != absolute(path.written, path.folder):
        return f"; if its folder has moved, add {moved_hint(Path(path.result).parent)}"
    here = absolute(path.written, Path.cwd())
    text = f"; {path.written} counts from {path.folder}"
    if Path(here).exists() and here != path.result:
        text += f", where the config lies, not from the current folder. There is {here}: write that instead"
    return text


def absolute(text: str, folder: Path) -> str:
    """A path that counts from `folder`, made absolute; `~` is the home folder."""
    joined = str(folder.absolute() / Path(text).expanduser())
    plain = os.path.normpath(joined)
    # Behind a symbolic link, `..` is not the folder that the text makes one expect.
    return plain if os.path.realpath(plain) == os.path.realpath(joined) else joined
