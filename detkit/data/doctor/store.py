"""Facts of images by the content of their files, kept between commands."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detkit.hub.cache import cache_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 1
"""Changes with what is computed of an image."""
GREY, COLOUR = 32, 8
"""Sides of the small grey and colour copies of an image."""
FLUSH = 500
"""New facts after which they are written down."""
TABLE = (
    "CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, height INT, width INT, stored_height INT, "
    "stored_width INT, orientation INT, grey BLOB, colour BLOB)"
)


@dataclass(frozen=True)
class ImageFacts:
    """Of an image that decodes: its upright size, its size as stored, and small copies of its pixels.

    sha256: of its file. size, stored: (height, width). orientation: by EXIF, 1 for upright. grey: (GREY, GREY) uint8.
    colour: (COLOUR, COLOUR, 3) uint8.
    """

    sha256: str
    size: tuple[int, int]
    stored: tuple[int, int]
    orientation: int
    grey: NDArray[np.uint8]
    colour: NDArray[np.uint8]


class FactStore:
    """Facts by SHA-256 in a database of the cache. Where that can't be read or written, everything is computed again.

    path: of the database; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._base: sqlite3.Connection | None = None
        self._new: dict[str, ImageFacts] = {}

    @classmethod
    def default(cls) -> FactStore:
        """The store in `$DETKIT_CACHE/doctor`."""
        return cls(cache_folder() / "doctor" / f"facts-{VERSION}.sqlite")

    def __enter__(self) -> FactStore:
        if self.path is not None:
            with suppress(OSError, sqlite3.Error):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._base = sqlite3.connect(self.path, timeout=10, check_same_thread=False)
                self._base.execute(TABLE)
        return self

    def __exit__(self, *error: object) -> None:
        self.flush()
        if self._base is not None:
            self._base.close()

    def get(self, sha256: str) -> ImageFacts | None:
        """The facts of a file; None if they are not known."""
        if self._base is None:
            return None
        with self._lock, suppress(sqlite3.Error, ValueError):
            with closing(self._base.execute("SELECT * FROM facts WHERE key = ?", (sha256,))) as cursor:
                row = cursor.fetchone()
            return None if row is None else from_row(row)
        return None

    def put(self, facts: ImageFacts) -> None:
        """Keeps facts of a file."""
        if self._base is not None and facts.sha256:
            self._new[facts.sha256] = facts
            if len(self._new) >= FLUSH:
                self.flush()

    def flush(self) -> None:
        """Writes down what is new."""
        rows = [to_row(facts) for facts in self._new.values()]
        self._new.clear()
        if self._base is not None and rows:
            with self._lock, suppress(sqlite3.Error), self._base:
                self._base.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)


def to_row(facts: ImageFacts) -> tuple[object, ...]:
    pixels = facts.grey.tobytes(), facts.colour.tobytes()
    return (facts.sha256, *facts.size, *facts.stored, facts.orientation, *pixels)


def from_row(row: tuple[str, int, int, int, int, int, bytes, bytes]) -> ImageFacts:
    key, height, width, stored_height, stored_width, orientation, grey, colour = row
    return ImageFacts(
        key,
        (height, width),
        (stored_height, stored_width),
        orientation,
        np.frombuffer(grey, np.uint8).reshape(GREY, GREY),
        np.frombuffer(colour, np.uint8).reshape(COLOUR, COLOUR, 3),
    )
