"""What a config sets, beside what could be set: the value at a key and its origin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from detkit.config.config import Config
from detkit.config.explain.words import yaml_words
from detkit.config.paths import raw_value
from detkit.config.schema import Node, Part, Parts, PlainValue
from detkit.registry.arguments import MISSING


@dataclass(frozen=True)
class Setting:
    """A value of a config as YAML has it, and the file and line, the override or the default that set it."""

    value: str
    origin: str


class Settings:
    """The settings of a config, or of none."""

    def __init__(self, config: Config | None = None) -> None:
        self.name = config.name if config else ""
        self._config, self._values = config, config.to_dict() if config else {}

    def at(self, path: str) -> Setting | None:
        """The value at a key; None if the config has none there."""
        value = raw_value(self._values, path, MISSING)
        if self._config is None or value is MISSING:
            return None
        return Setting(yaml_words(value), self._config.origin(path))

    def type_at(self, path: str) -> Setting | None:
        """The name of the part at a key."""
        return self.at(f"{path}.type")

    def short(self, path: str, node: Node) -> Setting | None:
        """The value at a key, where it fits a line: the type of a part, the types of a list of parts."""
        if isinstance(node, Part):
            return self.type_at(path)
        if isinstance(node, Parts) and (setting := self.at(path)):
            types = [raw_value(self._values, f"{path}.{i}.type") for i in range(len(self.items(path)))]
            return Setting(yaml_words(types), setting.origin)
        return self.at(path) if isinstance(node, PlainValue) else None

    def items(self, path: str) -> list[str]:
        """The keys of the entries of a list of parts."""
        value = raw_value(self._values, path)
        return [f"{path}.{i}" for i in range(len(value))] if isinstance(value, list) else []

    def paths_of(self, path: str, node: Node) -> Iterator[str]:
        """The keys of the parts at a slot."""
        if isinstance(node, Parts):
            yield from self.items(path)
        elif self.type_at(path):
            yield path
