"""Files given by a URL."""

from __future__ import annotations

from pathlib import Path


def local_path(source: str | Path) -> str:
    """A path as it is; an http(s) or ftp address fetched once into iopath's cache (`$FVCORE_CACHE` or
    ~/.torch/iopath_cache) -> where it lies there.

    Raises OSError that names the address if it can't be fetched.
    """
    text = str(source)
    if "://" not in text:
        return text
    from iopath.common.file_io import HTTPURLHandler, PathManager

    manager = PathManager()
    manager.register_handler(HTTPURLHandler())
    try:
        found: str = manager.get_local_path(text)
    except Exception as error:
        raise OSError(f"{text} can't be fetched: {type(error).__name__}: {error}") from error
    return found
