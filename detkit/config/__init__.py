"""A run's settings, from YAML files and overrides to a checked, read-only `Config`."""

from detkit.config.config import Config, ConfigError, import_entry, load_config

__all__ = ["Config", "ConfigError", "import_entry", "load_config"]
