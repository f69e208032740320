"""Config files as trees that remember where every value came from: reading, `_base_`, overlaying, overriding."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detkit.registry.arguments import nearest
from detkit.utils.console import shown
from detkit.utils.outputs import in_words

BASE_KEY = "_base_"


class Origin(str):
    """Where a value was written, in words, and the folder that a path written there counts from."""

    folder: Path

    def __new__(cls, text: str, folder: Path) -> Origin:
        """As a text it is the words."""
        place = super().__new__(cls, text)
        place.folder = folder
        return place


@dataclass
class RawConfig:
    """A config before it is checked: `values`, and for every path where it was written."""

    values: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, Origin] = field(default_factory=dict)
    imports: list[tuple[str, Path]] = field(default_factory=list)
    """Entries of `imports:` and the folder of the file that has them."""


def read_raw(path: Path, chain: tuple[Path, ...] = ()) -> RawConfig:
    """A file with all its bases laid underneath, in the order they are listed."""
    path = path.resolve()
    if path in chain:
        raise ValueError(
            f"{short_path(path)}: `_base_` goes round in a circle: {' -> '.join(map(short_path, [*chain, path]))}"
        )
    values, lines = parse_file(path)
    bases = values.pop(BASE_KEY, [])
    bases = [bases] if isinstance(bases, str) else bases
    if not _is_names(bases):
        raise ValueError(
            f"{short_path(path)}:{lines.get(BASE_KEY, 1)}: `_base_` is a file or a list of files, not {bases!r}"
        )
    result = RawConfig()
    for base in bases:
        below = _base_file(base, path.parent)
        if not below.is_file():
            raise FileNotFoundError(
                f"{short_path(path)}:{lines.get(BASE_KEY, 1)}: `_base_: {base}` is no file ({short_path(below)})"
            )
        overlay(result, read_raw(below, (*chain, path)))
    folder = folder_of_paths(path)
    places = {key: Origin(f"{short_path(path)}:{line}", folder) for key, line in lines.items() if key != BASE_KEY}
    here = RawConfig(values, places)
    entries = values.get("imports", [])
    if not _is_names(entries):
        place = f"{short_path(path)}:{lines.get('imports', 1)}"
        raise ValueError(f"{place}: imports: {entries!r} is not a list of modules and files, as in [./my_net.py]")
    here.imports = [(entry, path.parent) for entry in entries]
    overlay(result, here)
    return result


def folder_of_paths(path: Path) -> Path:
    """What paths in a config file count from: its folder.

    No data lie in detkit's own package, so those of its configs count from the current folder. The config.yaml of a run
    holds absolute paths; where it holds others, a detkit wrote it for which they counted from the current folder.
    """
    is_of_run = path.name == "config.yaml" and (path.parent / "environment.json").is_file()
    is_own = path.is_relative_to(Path(__file__).resolve().parents[1])
    return Path.cwd() if is_of_run or is_own else path.parent


def _base_file(base: str, folder: Path) -> Path:
    """The file of a `_base_` entry: a path beside the config, or `package:path` inside an installed package."""
    package, colon, inside = base.partition(":")
    spec = importlib.util.find_spec(package) if colon and package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        return (folder / base).resolve()
    return Path(next(iter(spec.submodule_search_locations)), inside).resolve()


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def parse_file(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """A YAML file -> its mapping, and the line of every path in it. Errors name file and line."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if path.is_dir():
        raise IsADirectoryError(f"{short_path(path)} is a folder: name the config file in it")
    if not path.is_file():
        near = nearest(path.name, [p.name for p in path.parent.glob("*.yaml")]) if path.parent.is_dir() else ""
        raise FileNotFoundError(f"no config file {short_path(path)}{near.rstrip('.')}")
    try:
        with in_words("", path):
            text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{short_path(path)}: not a text file in UTF-8: {error}") from None
    try:
        loaded = OmegaConf.create(text) if text.strip() else OmegaConf.create({})
        root = yaml.compose(text)
    except yaml.YAMLError as error:
        line, words = yaml_problem(error, text)
        raise ValueError(f"{short_path(path)}{line}: not YAML: {words}") from None
    except OmegaConfBaseException as error:
        raise ValueError(f"{short_path(path)}: {error.full_key}: {omegaconf_message(error)}") from None
    values = OmegaConf.to_container(loaded, resolve=False)
    if not isinstance(values, dict):
        raise ValueError(f"{short_path(path)}: a config is a mapping of keys, this is {type(values).__name__}")
    lines: dict[str, int] = {}
    if root is not None:
        _lines(root, "", lines)
    return {str(k): v for k, v in values.items()}, lines


def yaml_problem(error: Any, text: str) -> tuple[str, str]:
    """What YAML's parser found in `text`: `:line` or nothing, and the words, which it spreads over four lines."""
    mark = getattr(error, "problem_mark", None)
    words = ", ".join(word for word in (getattr(error, "context", None), getattr(error, "problem", None)) if word)
    if mark is None:
        return "", words or str(error)
    if "\t" in "".join(text.splitlines()[mark.line : mark.line + 1]):
        words += "; there is a tab, YAML is indented with spaces"
    return f":{mark.line + 1}", words


def _lines(node: Any, path: str, into: dict[str, int]) -> None:
    """Fills in `path -> line` for a yaml node and everything below it."""
    pairs: list[tuple[str, Any, int]] = []
    if node.id == "mapping":
        pairs = [(key.value, value, key.start_mark.line) for key, value in node.value]
    elif node.id == "sequence":
        pairs = [(str(i), value, value.start_mark.line) for i, value in enumerate(node.value)]
    for key, value, line in pairs:
        below = f"{path}.{key}" if path else key
        into[below] = line + 1
        _lines(value, below, into)


def overlay(under: RawConfig, over: RawConfig) -> None:
    """Lays `over` on `under` in place. Mappings merge, unless their `type` differs; all else replaces."""
    _overlay(under.values, over.values, "", under, over)
    under.imports += over.imports


def _overlay(under: dict[str, Any], over: Mapping[str, Any], path: str, below: RawConfig, above: RawConfig) -> None:
    for key, value in over.items():
        here = f"{path}.{key}" if path else str(key)
        old = under.get(key)
        mapping = isinstance(value, Mapping)
        if isinstance(old, dict) and mapping and not _other_type(old, value):
            if here in above.origin:
                below.origin[here] = above.origin[here]
            _overlay(old, value, here, below, above)
            continue
        forget(below.origin, here)
        under[key] = _copy(value)
        prefix = here + "."
        below.origin.update({k: o for k, o in above.origin.items() if k == here or k.startswith(prefix)})


def _other_type(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether both say a type and not the same one; where one is silent, merging drops nothing unseen."""
    return "type" in old and "type" in new and bool(old["type"] != new["type"])


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


def forget(origin: dict[str, Origin], path: str) -> None:
    """Drops a path and everything below it."""
    for key in [k for k in origin if k == path or k.startswith(path + ".")]:
        del origin[key]


def parse_override(text: str) -> tuple[list[str], Any]:
    """`a.b=1e-3` -> (["a", "b"], 0.001); the value is read as YAML."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise ValueError(f"override {text!r} is not of the form key=value, as in backbone.depth=50")
    if comment_in(value):
        if value.lstrip()[:1] in ("[", "{", "'", '"'):
            raise ValueError(f"override {text!r}: what follows the # would be a comment: put it in quotes")
        return key.split("."), value.strip()
    try:
        parsed = OmegaConf.to_container(OmegaConf.from_dotlist([f"v={value}"]), resolve=False)
    except yaml.YAMLError as error:
        raise ValueError(f"override {text!r}: the value is not YAML: {yaml_problem(error, value)[1]}") from None
    except OmegaConfBaseException as error:
        raise ValueError(f"override {text!r}: {omegaconf_message(error)}") from None
    assert isinstance(parsed, dict)
    return key.split("."), parsed["v"]


def comment_in(value: str) -> bool:
    """Whether YAML would take a part of the value for a comment."""
    import yaml

    if "#" not in value:
        return False
    try:
        ends = [token.end_mark.index for token in yaml.scan(value) if not isinstance(token, yaml.StreamEndToken)]
    except yaml.YAMLError:
        return False  # told as such
    return "#" in value[max(ends, default=0) :]


def override(raw: RawConfig, text: str) -> None:
    """Applies one `key=value`. `x.type=Other` drops what x had been given for its old type."""
    keys, value = parse_override(text)
    place = Origin(f"command line ({text})", Path.cwd())
    if keys[0] == "imports":
        if len(keys) > 1 or not _is_names(value):
            raise ValueError(f"override {text!r}: imports are given as a whole list, as in imports=[./my_net.py]")
        raw.imports = [(entry, Path.cwd()) for entry in value]
    here: Any = raw.values
    for depth, key in enumerate(keys[:-1]):
        path = ".".join(keys[: depth + 1])
        if isinstance(here, list):
            here = here[_index(here, key, path, text)]
        else:
            if not isinstance(here.get(key), (dict, list)):
                here[key] = {}
                raw.origin[path] = place
            here = here[key]
    last, path = keys[-1], ".".join(keys)
    if last == "type" and isinstance(here, dict) and _other_type(here, {"type": value}):
        _keep_command_line(raw, ".".join(keys[:-1]), text)
        here.clear()
        forget(raw.origin, ".".join(keys[:-1]))
        raw.origin[".".join(keys[:-1])] = place
    if isinstance(here, list):
        here[_index(here, last, path, text)] = value
    else:
        merged = RawConfig({last: value}, {path: place})
        if isinstance(value, dict):
            if isinstance(here.get(last), dict) and _other_type(here[last], value):
                _keep_command_line(raw, path, text)
            _mark(value, path, merged.origin, place)
        _overlay(here, merged.values, ".".join(keys[:-1]), raw, merged)
    raw.origin[path] = place


def _keep_command_line(raw: RawConfig, part: str, text: str) -> None:
    """Raises ValueError if changing a part's type would drop what an earlier override gave it."""
    for path, origin in raw.origin.items():
        if path.startswith(part + ".") and path != f"{part}.type" and origin.startswith("command line"):
            raise ValueError(f"override {text!r} would drop {path} of an earlier override; give the type first")


def _mark(value: Mapping[str, Any], path: str, origin: dict[str, Origin], place: Origin) -> None:
    for key, item in value.items():
        origin[f"{path}.{key}"] = place
        if isinstance(item, Mapping):
            _mark(item, f"{path}.{key}", origin, place)


def _index(values: list[Any], key: str, path: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", key) or int(key) >= len(values):
        there = f"{len(values)} entries" + (f", 0 to {len(values) - 1}" if values else ": give it as a whole")
        raise ValueError(f"override {text!r}: {path}: the list has {there}")
    return int(key)


def omegaconf_message(error: Exception) -> str:
    """What an OmegaConf error says, without the lines of its own bookkeeping."""
    return str(error).partition("\n")[0]


def short_path(path: Path | str) -> str:
    """A path as short as it can be said: relative to the current folder where that helps."""
    path = Path(path)
    try:
        return shown(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):  # the latter: the current folder was deleted
        return shown(path)
