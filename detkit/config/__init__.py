"""A run's settings, from YAML files and overrides to a checked, read-only `Config`."""

from detkit.config.config import Config, ConfigLike, as_config, load_config
from detkit.config.find import find_config
from detkit.config.imports import import_entry
from detkit.config.overrides import Overrides
from detkit.config.raw import ConfigError

__all__ = [
    "Config", "ConfigError", "ConfigLike", "Overrides", "as_config", "find_config", "import_entry", "load_config",
]  # fmt: skip
