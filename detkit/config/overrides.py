"""Overrides, applied to a raw config: `key=value` of the command line, or a mapping of Python values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from detkit.config.raw import (
    Origin,
    RawConfig,
    drop_datasets,
    forget,
    has_other_type,
    has_root,
    is_list_of_names,
    omegaconf_message,
    overlay_section,
    paths_below,
    plain_value,
    yaml_problem,
)
from detkit.registry.values import value_text
from detkit.utils.types import Value

Overrides: TypeAlias = Sequence[str] | Mapping[str, Value]
"""Texts `key=value`, whose values are read as YAML, or dotted keys (or nested mappings) with Python values."""
SOURCES = ("command line", "overrides")
"""How the origin of an overridden value begins: that of a text, and that of an entry of a mapping."""


def apply_overrides(raw: RawConfig, overrides: Overrides) -> None:
    """Applies all of them in their order."""
    if isinstance(overrides, str) or not isinstance(overrides, Iterable):
        raise ValueError(
            f"overrides must be a list, as in ['seed=1', 'optimizer.lr=1e-3'], or a mapping, as in "
            f"{{'optimizer.lr': 1e-3}}, not {overrides!r}"
        )
    if not isinstance(overrides, Mapping):
        for text in overrides:
            override(raw, text)
        return
    for key, value in overrides.items():
        text = f"{key}={value!r}"
        check_key(str(key), text)
        set_value(raw, str(key).split("."), plain_value(value, str(key)), text, SOURCES[1])


def check_key(key: str, text: str) -> None:
    """Raises ValueError unless `key` is a dotted key."""
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise ValueError(f"override {text!r} is not of the form key=value, as in backbone.depth=50")


def is_override(origin: str) -> bool:
    """Whether a value came from an override."""
    return origin.startswith(SOURCES)


def parse_override(text: str) -> tuple[list[str], Value]:
    """`a.b=1e-3` -> (["a", "b"], 0.001); the value is read as YAML."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(text, str):
        raise ValueError(f"override {text!r} must be a text of the form key=value, as in backbone.depth=50")
    key, equals, value = text.partition("=")
    check_key(key if equals else "", text)
    if has_comment(value):
        if value.lstrip()[:1] in ("[", "{", "'", '"'):
            raise ValueError(f"override {text!r}: the text after # would be a comment: put it in quotes")
        return key.split("."), value.strip()
    try:
        parsed: Value = OmegaConf.to_container(OmegaConf.from_dotlist([f"v={value}"]), resolve=False)
    except yaml.YAMLError as error:
        raise ValueError(f"override {text!r}: the value is not YAML: {yaml_problem(error, value)[1]}") from None
    except OmegaConfBaseException as error:
        raise ValueError(f"override {text!r}: {omegaconf_message(error)}") from None
    return key.split("."), parsed["v"]


def has_comment(value: str) -> bool:
    """Whether YAML would take a part of the value for a comment."""
    import yaml

    if "#" not in value:
        return False
    try:
        ends = [token.end_mark.index for token in yaml.scan(value) if not isinstance(token, yaml.StreamEndToken)]
    except yaml.YAMLError:
        return False  # reported where the value is parsed
    return "#" in value[max(ends, default=0) :]


def override(raw: RawConfig, text: str) -> None:
    """Applies one `key=value`."""
    set_value(raw, *parse_override(text), text, SOURCES[0])


def set_value(raw: RawConfig, keys: Sequence[str], value: Value, text: str, source: str) -> None:
    """Sets the value at the keys. The `type` of a part drops what the part had been given for its old type.

    text: the override, for messages. source: one of `SOURCES`.
    """
    *above, last = keys
    path, parent = ".".join(keys), ".".join(above)
    origin = Origin(f"{source} ({text})", Path.cwd())
    if keys[0] == "imports":
        if above or not is_list_of_names(value):
            raise ValueError(f"override {text!r}: imports must be given as a whole list, as in imports=[./my_net.py]")
        raw.imports = [(entry, Path.cwd()) for entry in value]
    if (path == "data.root" and value is not None) or (path == "data" and has_root(value)):
        for split in ("train", "val"):
            _check_earlier_overrides(raw, f"data.{split}.dataset", text)
        drop_datasets(raw)
    section = _section(raw, above, origin, text)
    if isinstance(section, list):
        section[_index(section, last, path, text)] = value
    else:
        if last == "type" and has_other_type(section, {"type": value}):
            _check_earlier_overrides(raw, parent, text)
            section.clear()
            forget(raw.origin, parent)
            raw.origin[parent] = origin
        elif isinstance(section.get(last), dict) and isinstance(value, dict) and has_other_type(section[last], value):
            _check_earlier_overrides(raw, path, text)
        origins = dict.fromkeys([path, *paths_below(value, path)], origin)
        overlay_section(section, {last: value}, parent, raw, RawConfig(origin=origins))
    raw.origin[path] = origin


def _section(raw: RawConfig, keys: list[str], origin: Origin, text: str) -> Value:
    """The mapping or list at the keys; a mapping that does not exist is made."""
    section: Value = raw.values
    for depth, key in enumerate(keys, 1):
        path = ".".join(keys[:depth])
        if isinstance(section, list):
            section = section[_index(section, key, path, text)]
        else:
            if not isinstance(section.get(key), (dict, list)):
                section[key] = {}
                raw.origin[path] = origin
            section = section[key]
        if not isinstance(section, (dict, list)):
            raise ValueError(f"override {text!r}: {path} is {value_text(section)}, which has no keys")
    return section


def _check_earlier_overrides(raw: RawConfig, part: str, text: str) -> None:
    """Raises ValueError if changing a part's type would drop what an earlier override gave it."""
    for path, origin in raw.origin.items():
        if path.startswith(part + ".") and path != f"{part}.type" and is_override(origin):
            raise ValueError(
                f"override {text!r} would drop {path} of an earlier override; give {text.partition('=')[0]} first"
            )


def _index(values: list[Value], key: str, path: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", key) or int(key) >= len(values):
        content = f"{len(values)} entries" + (f", 0 to {len(values) - 1}" if values else ": give it as a whole")
        raise ValueError(f"override {text!r}: {path}: the list has {content}")
    return int(key)
