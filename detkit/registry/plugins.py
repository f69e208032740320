"""Plugins: modules of other packages that register parts."""

from __future__ import annotations

import functools
import logging

PLUGIN_GROUP = "detkit.plugins"
"""Entry-point group whose modules detkit imports."""
imported: list[str] = []
"""Plugins and `imports:` entries that were loaded so far; shown when a name is not found."""


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
                f"Mend or uninstall the package that brings it."
            ) from error
        note_import(f"{point.value} (plugin)")
        logging.getLogger("detkit").debug("plugin %s loaded", point.name)


def note_import(entry: str) -> None:
    """Remembers an import, to be shown when a name is not found."""
    if entry not in imported:
        imported.append(entry)
