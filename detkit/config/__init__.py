"""A run's settings, from YAML files and overrides to a checked, read-only `Config`."""

from detkit.config.config import Config, load_config
from detkit.config.find import find_config
from detkit.config.imports import import_entry
from detkit.config.raw import ConfigError

__all__ = ["Config", "ConfigError", "find_config", "import_entry", "load_config"]
