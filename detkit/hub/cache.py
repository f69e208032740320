"""The folder of everything that detkit downloads, and where in it a file lies."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from detkit.utils.console import printable
from detkit.utils.errors import explain_os_errors
from detkit.utils.outputs import short_name

VARIABLE = "DETKIT_CACHE"
UNSAFE = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\/]')
"""Characters that a file's name can't have on some system."""
LONGEST = 120
"""Characters of a folder's name in the cache."""


def cache_folder() -> Path:
    """`$DETKIT_CACHE`; without it the folder detkit in `$XDG_CACHE_HOME`, or in ~/.cache."""
    if given := os.environ.get(VARIABLE, "").strip():
        return Path(given).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "detkit"


def place_of(url: str, room: str = "") -> Path:
    """Where the file of an address lies: ROOM/host/folders/name below the cache folder, and never outside it.

    Args:
        url: the address; what follows its `?` gives a folder of its own.
        room: first folder; the scheme of the address if empty.

    Raises ValueError for an address that names no file.
    """
    parts = urlsplit(url)
    names = [unquote(name) for name in (parts.netloc.rpartition("@")[2], *parts.path.split("/"))]
    safe = [UNSAFE.sub("_", name) for name in names if name not in ("", ".", "..")]
    safe = [name if name.strip(". ") else "_" for name in safe]
    if not safe:
        raise ValueError(f"{printable(url)} is no whole address: it names neither a server nor a file")
    if parts.query:
        safe.insert(-1, "query-" + hashlib.sha256(parts.query.encode()).hexdigest()[:12])
    folders = [name[:LONGEST] for name in safe[:-1]]
    return cache_folder().joinpath(room or parts.scheme, *folders, short_name(safe[-1][-LONGEST:], ""))


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Makes the folder of `path`; while the context is active, no other process of this machine is in it."""
    from filelock import FileLock

    with explain_os_errors(f"the cache ({VARIABLE} chooses another folder)", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
