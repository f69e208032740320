"""Object stores (s3://, gs://, az:// ...) through fsspec: a file or a folder is copied into the cache once."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

from detkit.hub.cache import cache_folder, locked, place_of
from detkit.hub.download import FetchError
from detkit.utils.console import printable

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http", "hf": "hub"}
"""Scheme -> detkit's extra with the package that reads it."""
NOT_STORES = {"http", "https", "ftp", "file", "local", "hf", "data", "root", "generic", "reference"}
NO_FSSPEC = "an object store needs fsspec and the package of the store"


@functools.cache
def prefixes() -> tuple[str, ...]:
    """The schemes that fsspec knows, such as `s3://`; a few without it."""
    if importlib.util.find_spec("fsspec") is None:
        return tuple(f"{scheme}://" for scheme in EXTRAS if scheme not in NOT_STORES)
    from fsspec import available_protocols

    return tuple(f"{scheme}://" for scheme in available_protocols() if scheme not in NOT_STORES)


def fetch_object(url: str) -> Path:
    """A file or folder of an object store -> its copy in the cache.

    A folder that was copied only in part is completed by the next call. Raises FetchError that names the address.
    """
    url = url.rstrip("/")
    path = place_of(url)
    marker = _mark(path)
    above = [folder for folder in path.parents if folder.is_relative_to(cache_folder()) and folder != cache_folder()]
    if not path.exists() or not any(_mark(place).is_file() for place in (path, *above)):
        with locked(path):
            if not path.exists() or not marker.is_file():
                _copy(url, path)
                marker.touch()
    return path


def _mark(path: Path) -> Path:
    """The file that says that a copy is complete."""
    return path.with_name(f"{path.name}.complete")


def _copy(url: str, path: Path) -> None:
    files, inner = file_system(url)
    try:
        if files.isdir(inner):
            files.get(inner.rstrip("/") + "/", f"{path}/", recursive=True)
            return
        size = files.info(inner)["size"]
        part = path.with_name(f"{path.name}.part")
        files.get_file(inner, str(part))
    except FileNotFoundError as error:
        raise FetchError(f"{printable(url)} can't be fetched: the store has no such file or folder") from error
    except Exception as error:  # each store has errors of its own
        text = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise FetchError(
            f"{printable(url)} can't be fetched: {text}. Without a network, put it at {printable(path)} and make "
            f"an empty file {printable(path.name)}.complete beside it"
        ) from error
    if size is not None and part.stat().st_size != size:
        raise FetchError(f"{printable(url)} can't be fetched: {part.stat().st_size} of {size} bytes came")
    part.replace(path)


def file_system(url: str, **options: Any) -> tuple[Any, str]:
    """fsspec's file system of an address, and the path in it; ImportError that names the extra.

    options: of the file system, as fsspec names them.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        text = NO_FSSPEC if url.partition(":")[0] not in NOT_STORES else "reading parts of it needs fsspec"
        raise ImportError(f"{printable(url)}: {text}{_hint(url)}") from error
    try:
        files, inner = url_to_fs(url, **options)
    except ImportError as error:
        raise ImportError(f"{printable(url)}: {error}{_hint(url)}") from error
    return files, inner


def _hint(url: str) -> str:
    extra = EXTRAS.get(url.partition(":")[0])
    return f": pip install 'detkit[{extra}]'" if extra else ""
