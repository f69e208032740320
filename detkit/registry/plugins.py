"""Plugins: modules of other packages that register parts."""

from __future__ import annotations

import functools
import logging

PLUGIN_GROUP = "detkit.plugins"
"""Entry-point group whose modules detkit imports."""
imported: list[str] = []
"""Loaded plugins and `imports:` entries, for the error about an unknown name."""


@functools.cache
def load_plugins() -> None:
    """Imports every entry point of the group `detkit.plugins`; a broken one raises ImportError by name.

    Works once; after an error the next call tries again.
    """
    from importlib.metadata import entry_points

    for point in entry_points(group=PLUGIN_GROUP):
        try:
            point.load()
        except Exception as error:
            raise ImportError(
                f"plugin {point.name!r} ({point.value}) can't be imported: {type(error).__name__}: {error}. "
                f"Fix or uninstall that package."
            ) from error
        note_import(f"{point.value} (plugin)")
        logging.getLogger("detkit").debug("plugin %s loaded", point.name)


def note_import(entry: str) -> None:
    """Records an import, for the error about an unknown name."""
    if entry not in imported:
        imported.append(entry)
