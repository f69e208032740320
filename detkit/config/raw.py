"""Config files before they are checked, with the origin of every value: reading, `_base_`, overlaying."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from detkit.config.find import PACKAGE, find_config, own_name
from detkit.registry.values import value_text
from detkit.utils.console import printable
from detkit.utils.errors import explain_os_errors, prefix_error
from detkit.utils.types import Tree, Value

if TYPE_CHECKING:
    import yaml

BASE_KEY = "_base_"


class Origin(str):
    """Where a value was written: `file:line` or the override. folder: what a path written there is relative to."""

    folder: Path

    def __new__(cls, text: str, folder: Path) -> Origin:
        origin = super().__new__(cls, text)
        origin.folder = folder
        return origin

    def __reduce__(self) -> tuple[type[Origin], tuple[str, Path]]:
        """Lets pickle make it again."""
        return Origin, (str(self), self.folder)


class ConfigError(ValueError):
    """Everything that is wrong with a config, one line each; `errors` holds the lines."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = list(errors)


@dataclass
class RawConfig:
    """A config before it is checked: `values`, and the origin of every path."""

    values: Tree = field(default_factory=dict)
    origin: dict[str, Origin] = field(default_factory=dict)
    imports: list[tuple[str, Path]] = field(default_factory=list)
    """Entries of `imports:` and the folder of the file that has them."""


def read_raw(path: Path, chain: tuple[Path, ...] = ()) -> RawConfig:
    """A file with all its bases laid underneath, in the order they are listed."""
    path = path.resolve()
    shown_path = shown_config(path)
    if path in chain:
        circle = " -> ".join(map(shown_config, [*chain, path]))
        raise ValueError(f"{shown_path}: circular `_base_`: {circle}")
    values, lines = parse_file(path)
    base_origin = f"{shown_path}:{lines.get(BASE_KEY, 1)}"
    bases = values.pop(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not is_list_of_names(bases):
        raise ValueError(f"{base_origin}: `_base_` must be a file or a list of files, not {value_text(bases)}")
    result = RawConfig()
    for base in bases:
        overlay(result, read_raw(_base_file(base, path.parent, base_origin), (*chain, path)))
    folder = folder_of_paths(path)
    origins = {key: Origin(f"{shown_path}:{line}", folder) for key, line in lines.items() if key != BASE_KEY}
    entries = values.get("imports", [])
    if not is_list_of_names(entries):
        location = f"{shown_path}:{lines.get('imports', 1)}"
        raise ValueError(
            f"{location}: imports: must be a list of modules and files, as in [./my_net.py], not {value_text(entries)}"
        )
    overlay(result, RawConfig(values, origins, [(entry, path.parent) for entry in entries]))
    return result


def raw_from_mapping(values: Mapping[str, Value]) -> RawConfig:
    """A config given as a mapping, with its bases; its paths, `_base_` and `imports` count from the current folder."""
    plain = plain_value(values, "config")
    bases = plain.pop(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    for key, entries in ((BASE_KEY, bases), ("imports", plain.get("imports", []))):
        if not is_list_of_names(entries):
            raise ValueError(f"config: {key}: must be a list of texts, not {entries!r}")
    result = RawConfig()
    for base in bases:
        overlay(result, read_raw(_base_file(base, Path.cwd(), "config")))
    origins = dict.fromkeys(paths_below(plain), Origin("config", Path.cwd()))
    overlay(result, RawConfig(plain, origins, [(entry, Path.cwd()) for entry in plain.get("imports", [])]))
    return result


def paths_below(value: Value, path: str = "") -> Iterator[str]:
    """The dotted paths of everything in nested mappings, below `path`."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            below = f"{path}.{key}" if path else str(key)
            yield below
            yield from paths_below(item, below)


def plain_value(value: object, key: str) -> Value:
    """A Python value as YAML would hold it: paths as texts, tuples as lists, numbers of numpy and torch as Python's.

    Raises ValueError that names the key for what no config can hold.
    """
    if isinstance(value, Mapping):
        return {str(k): plain_value(item, f"{key}.{k}") for k, item in value.items()}
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [plain_value(item, f"{key}.{i}") for i, item in enumerate(value)]
    hint = "give numbers, texts, lists or mappings of them"
    raise ValueError(f"{key}: a config can't hold {value!r} ({type(value).__name__}): {hint}")


def folder_of_paths(path: Path) -> Path:
    """The folder that paths in a config file are relative to: its own.

    There is no data in detkit's package, so its configs count from the current folder. The config.yaml of a run
    holds absolute paths; where it holds others, a detkit wrote it for which they were relative to the current folder.
    """
    is_of_run = path.name == "config.yaml" and (path.parent / "environment.json").is_file()
    return Path.cwd() if is_of_run or path.is_relative_to(PACKAGE) else path.parent


def _base_file(base: str, folder: Path, origin: str) -> Path:
    """The file of a `_base_` entry of a config in `folder`; errors begin with the place of the entry."""
    try:
        return find_config(base, folder)
    except OSError as error:
        raise prefix_error(error, f"{origin}: `_base_`") from None
    except ValueError as error:
        raise ValueError(f"{origin}: `_base_`: {error}") from None


def is_list_of_names(value: Value) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def parse_file(path: Path) -> tuple[Tree, dict[str, int]]:
    """A YAML file -> its mapping, and the line of every path in it. Errors name file and line."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with explain_os_errors("", path):
            text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown_config(path)}: not a text file in UTF-8: {error}") from None
    try:
        loaded = OmegaConf.create(text) if text.strip() else OmegaConf.create({})
        root = yaml.compose(text)
    except yaml.YAMLError as error:
        line, words = yaml_problem(error, text)
        raise ValueError(f"{shown_config(path)}{line}: not YAML: {words}") from None
    except OmegaConfBaseException as error:
        raise ValueError(f"{shown_config(path)}: {error.full_key}: {omegaconf_message(error)}") from None
    values = OmegaConf.to_container(loaded, resolve=False)
    if not isinstance(values, dict):
        raise ValueError(f"{shown_config(path)}: a config must be a mapping of keys, not a {type(values).__name__}")
    return {str(k): v for k, v in values.items()}, dict(_lines(root, "")) if root is not None else {}


def yaml_problem(error: yaml.YAMLError, text: str) -> tuple[str, str]:
    """The line of an error of YAML's parser in `text`, as `:3` or empty, and its message in one line."""
    mark = getattr(error, "problem_mark", None)
    message = ", ".join(text for text in (getattr(error, "context", None), getattr(error, "problem", None)) if text)
    if mark is None:
        return "", message or str(error)
    if "\t" in "".join(text.splitlines()[mark.line : mark.line + 1]):
        message += "; there is a tab, YAML is indented with spaces"
    return f":{mark.line + 1}", message


def _lines(node: yaml.Node, path: str) -> Iterator[tuple[str, int]]:
    """Path and line of everything below a YAML node."""
    import yaml

    children: list[tuple[str, yaml.Node, int]] = []
    if isinstance(node, yaml.MappingNode):
        children = [(key.value, value, key.start_mark.line) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = [(str(i), value, value.start_mark.line) for i, value in enumerate(node.value)]
    for key, value, line in children:
        below = f"{path}.{key}" if path else key
        yield below, line + 1
        yield from _lines(value, below)


def overlay(under: RawConfig, over: RawConfig) -> None:
    """Lays `over` on `under`, which changes. Mappings merge, unless their `type` differs; all else replaces.

    `data.root` of `over` replaces the data sets of `under`.
    """
    if has_root(over.values.get("data")):
        drop_datasets(under)
    overlay_section(under.values, over.values, "", under, over)
    under.imports += over.imports


def has_root(data: Value) -> bool:
    """Whether a section `data` has the one line for both of its data sets (data_root.py)."""
    return isinstance(data, Mapping) and data.get("root") is not None


def drop_datasets(raw: RawConfig) -> None:
    """Removes the data sets that `data.root` replaces."""
    data = raw.values.get("data")
    for split in ("train", "val"):
        section = data.get(split) if isinstance(data, dict) else None
        if isinstance(section, dict) and section.pop("dataset", None) is not None:
            forget(raw.origin, f"data.{split}.dataset")


def overlay_section(section: Tree, new: Mapping[str, Value], path: str, under: RawConfig, over: RawConfig) -> None:
    """Lays `new`, which belongs to `over`, on the section of `under` at a dotted path."""
    for key, value in new.items():
        here = f"{path}.{key}" if path else str(key)
        old = section.get(key)
        if isinstance(old, dict) and isinstance(value, Mapping) and not has_other_type(old, value):
            if here in over.origin:
                under.origin[here] = over.origin[here]
            overlay_section(old, value, here, under, over)
            continue
        forget(under.origin, here)
        section[key] = _copy(value)
        under.origin.update({k: o for k, o in over.origin.items() if f"{k}.".startswith(f"{here}.")})


def has_other_type(old: Mapping[str, Value], new: Mapping[str, Value]) -> bool:
    """Whether both name a type and not the same one; where one names none, merging drops nothing unseen."""
    return "type" in old and "type" in new and bool(old["type"] != new["type"])


def _copy(value: Value) -> Value:
    if isinstance(value, Mapping):
        return {str(k): _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


def written_key(path: str, origin: Container[str]) -> str:
    """The key that was written, at a dotted path or above it; empty if none was."""
    while path and path not in origin:
        path = path.rpartition(".")[0]
    return path


def forget(origin: dict[str, Origin], path: str) -> None:
    """Drops a path and everything below it."""
    for key in [k for k in origin if f"{k}.".startswith(f"{path}.")]:
        del origin[key]


def omegaconf_message(error: Exception) -> str:
    """The message of an OmegaConf error, without the lines about its own state."""
    return str(error).partition("\n")[0]


def short_path(path: Path | str) -> str:
    """A path for messages: relative to the current folder if it lies in it."""
    path = Path(path)
    try:
        return printable(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):  # the latter: the current folder was deleted
        return printable(path)


def shown_config(path: Path) -> str:
    """A config file for messages: `detkit:configs/...` for one that came with detkit, else a short path."""
    path = path.resolve()
    name, short = own_name(path), short_path(path)
    return short if name is None or not (path.is_relative_to(PACKAGE) or Path(short).is_absolute()) else name
