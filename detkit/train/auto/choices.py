"""The values that a rule has chosen, each with its reason, and the YAML file that they become."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence

import yaml

from detkit.config import Config, as_config
from detkit.config.overrides import is_override, parse_override
from detkit.config.paths import raw_value
from detkit.utils.types import Tree, Value

WIDTH = 120
"""Characters of a line of the file."""


class Choices:
    """Chosen values by dotted key, with reasons, below the overrides of the command line.

    base: config that they are laid over. overrides: `key=value` of the command line, which go before every choice.
    """

    def __init__(self, base: str, overrides: Sequence[str]) -> None:
        self.base, self.overrides = base, list(overrides)
        self.values: dict[str, Value] = {}
        self.reasons: dict[str, str] = {}

    def choose(self, key: str, value: Value, why: str = "") -> None:
        """Sets the value at a key, and its reason."""
        self.values[key] = value
        self.reasons[key] = why

    def forget(self, key: str) -> None:
        """Takes a choice back, if there is one."""
        self.values.pop(key, None)
        self.reasons.pop(key, None)

    def take(self, section: str) -> Tree:
        """The values that the command line gives directly below a section; takes them off it."""
        taken: Tree = {}
        for text in list(self.overrides):
            if text.partition("=")[0].rpartition(".")[0] == section:
                keys, value = parse_override(text)
                taken[keys[-1]] = value
                self.overrides.remove(text)
        return taken

    def config(self) -> Config:
        """The config so far. Raises what `load_config` raises."""
        tree: Tree = {"_base_": self.base}
        for key, value in self.values.items():
            set_at(tree, key.split("."), value)
        return as_config(tree, self.overrides)

    def is_given(self, key: str) -> bool:
        """Whether the command line gives the key, or one above or below it."""
        given = [text.partition("=")[0] for text in self.overrides]
        return any(f"{k}.".startswith(f"{key}.") or f"{key}.".startswith(f"{k}.") for k in given)

    def comments(self, config: Config) -> dict[str, str]:
        """Key -> why it has its value."""
        own = {key: text for key, text in self.reasons.items() if text and not self.is_given(key)}
        return own | {key: "given on the command line" for key, _ in config.leaves() if is_override(config.origin(key))}

    def lines(self, config: Config) -> list[str]:
        """Every chosen key with its value in the config, and the reason."""
        comments, lines = self.comments(config), []
        for key in dict.fromkeys([*self.reasons, *comments]):
            value = raw_value(config.to_dict(), key)
            lines += [f"{key}: {flow(value)}", *comment(comments[key], "    ")] if key in comments else []
        return lines


def set_at(tree: Tree, keys: Sequence[str], value: Value) -> None:
    """Sets a value in nested mappings, which are made where they are missing."""
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
    tree[keys[-1]] = value


def to_yaml(values: Mapping[str, Value], comments: Mapping[str, str], head: Sequence[str]) -> str:
    """The values as YAML: `head` in front, and above each key of `comments` its reason."""
    lines = [line for text in head for line in comment(text, "")]
    return "\n".join([*lines, *section(values, comments, "", "")]) + "\n"


def section(values: Mapping[str, Value], comments: Mapping[str, str], path: str, indent: str) -> Iterator[str]:
    """The lines of a mapping."""
    for key, value in values.items():
        below = f"{path}.{key}" if path else key
        if text := comments.get(below):
            yield from comment(text, indent)
        if isinstance(value, Mapping) and value:
            yield f"{indent}{key}:"
            yield from section(value, comments, below, indent + "  ")
        elif isinstance(value, list) and any(isinstance(item, (Mapping, list)) for item in value):
            yield f"{indent}{key}:"
            yield from (f"{indent}  - {flow(item)}" for item in value)
        else:
            yield f"{indent}{key}: {flow(value)}"


def comment(text: str, indent: str) -> list[str]:
    """A reason as lines of comments."""
    return [f"{indent}# {line}" for line in textwrap.wrap(text, WIDTH - len(indent) - 2)]


def flow(value: Value) -> str:
    """A value in one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**9, sort_keys=False, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
