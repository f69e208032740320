"""`local_path`: whatever names a file -> the file on this machine, through one PathManager of iopath."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detkit.hub.prefixes import DETECTRON2, HUB, TORCHVISION, WEB
from detkit.utils.console import nearest, printable

if TYPE_CHECKING:
    from iopath.common.file_io import PathManager

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
NAMED = (TORCHVISION, DETECTRON2)
"""Prefixes of weights that go by a name."""


def is_remote(source: object) -> bool:
    """Whether a text names something that `local_path` has to fetch; a `Path` never does."""
    return isinstance(source, str) and (SCHEME.match(source) is not None or source.startswith(NAMED))


def local_path(source: str | os.PathLike[str]) -> Path:
    """Where a file or folder lies on this machine; what is elsewhere is fetched once, into the cache.

    Args:
        source: a path, which is returned as it is; `torchvision:MODEL[:WEIGHTS]`; `detectron2:COCO-Detection/MODEL`;
            `hf://OWNER/NAME[@REVISION][/PATH]`; http(s) or ftp, with `#sha256=DIGITS` at the end to check the file;
            `s3://` and what else fsspec reads; what a handler of `path_manager()` takes.

    Raises FetchError (an OSError) that names the address and where to put the file by hand, ValueError for a name
    that nobody publishes and for a file that is not what it should be, ImportError that names a missing extra.
    """
    if not isinstance(source, str) or not is_remote(source):
        return Path(source)
    if source.startswith("file://"):
        from urllib.parse import urlsplit
        from urllib.request import url2pathname

        return Path(url2pathname(urlsplit(source).path))
    manager = path_manager()
    known = list(manager._path_handlers)
    if not source.startswith(tuple(known)):
        scheme = source.partition("//")[0] + "//"
        raise ValueError(f"{printable(source)}: detkit reads no address with {scheme}{nearest(scheme, known)}")
    return Path(manager.get_local_path(source))


@functools.cache
def path_manager() -> PathManager:
    """The manager that `local_path` asks. `path_manager().register_handler(...)` adds a scheme of your own."""
    from iopath.common.file_io import PathHandler, PathManager

    from detkit.hub.object_store import fetch_object, prefixes
    from detkit.hub.repository import fetch_repository

    class Handler(PathHandler):  # type: ignore[misc]  # iopath has no types
        """Addresses with some prefixes, fetched by a function."""

        def __init__(self, prefixes: Iterable[str], fetch: Callable[[str], Path]) -> None:
            super().__init__()
            self.prefixes, self.fetch = list(prefixes), fetch

        def _get_supported_prefixes(self) -> list[str]:
            return self.prefixes

        def _get_local_path(self, path: str, force: bool = False, **_: Any) -> str:
            return str(self.fetch(path))

        def _open(self, path: str, mode: str = "r", buffering: int = -1, **_: Any) -> Any:
            return self.fetch(path).open(mode, buffering)

    manager = PathManager()
    for starts, fetcher in (
        (WEB, _fetch_web),
        ((HUB,), fetch_repository),
        ((TORCHVISION,), _fetch_torchvision),
        ((DETECTRON2,), _fetch_detectron2),
        (prefixes(), fetch_object),
    ):
        manager.register_handler(Handler(starts, fetcher))
    return manager


def _fetch_web(address: str) -> Path:
    from urllib.parse import urldefrag

    from detkit.hub.cache import place_of
    from detkit.hub.download import fetch

    url, fragment = urldefrag(address)
    digits = re.fullmatch(r"sha256=([0-9a-fA-F]{8,64})", fragment)
    if fragment and digits is None:
        raise ValueError(
            f"{printable(address)}: what follows # must be sha256= and at least 8 digits of the file's SHA-256"
        )
    return fetch(url, place_of(url), digits[1].lower() if digits else "")


def _fetch_torchvision(name: str) -> Path:
    from detkit.hub.names import torchvision_file, torchvision_weights

    return torchvision_file(torchvision_weights(name))


def _fetch_detectron2(name: str) -> Path:
    from detkit.hub.names import detectron2_file

    return detectron2_file(name)
