"""A cache of decoded images, in memory or on disk, that all loader processes share."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import struct
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import PIL
from PIL import Image

from detkit.data.datasets.images import ImageOptions, Size
from detkit.hub.cache import VARIABLE, cache_folder
from detkit.utils.console import printable
from detkit.utils.errors import FULL_DISK, explain_os_errors
from detkit.utils.memory import free_memory
from detkit.utils.types import Tree

log = logging.getLogger("detkit")
FORMAT = 1
"""Of the files; another one begins a cache of its own."""
ROW = struct.Struct("<16sQIIIII")
"""Of the index: version of the image, place of its pixels, height and width, those in full, CRC-32 of the pixels."""
SUM = struct.Struct("<I")
"""CRC-32 of a row, after it: rows of other processes may be read while they are written."""
ROW_BYTES = ROW.size + SUM.size
GB = 10**9


class ImageCache:
    """RGB images by number, each with a version: an image of another version counts as missing.

    Two files: `index` has a row for each number, `pixels` grows. Both are read and written by position, without a
    mapping into memory, so that a full disk is an error and not a crash; the pages are the system's, which all
    processes share. Every image has a checksum, as a process may be killed while it writes.
    """

    def __init__(self, index: Path, pixels: Path, limit: int) -> None:
        """Opens or makes both files. limit: bytes that `pixels` may have."""
        self.paths, self.limit = (index, pixels), limit
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
        self.index, self.pixels = (os.open(path, flags, 0o666) for path in self.paths)
        self._close = weakref.finalize(self, close_all, self.index, self.pixels)
        self.is_full = False

    def __reduce__(self) -> tuple[type[ImageCache], tuple[Path, Path, int]]:
        """For a loader process that is not a fork."""
        return type(self), (*self.paths, self.limit)

    def get(self, number: int, version: str) -> tuple[Image.Image, Size] | None:
        """An image and its (height, width) in full; None if it is not there."""
        row = os.pread(self.index, ROW_BYTES, number * ROW_BYTES)
        if len(row) < ROW_BYTES or SUM.unpack(row[ROW.size :])[0] != zlib.crc32(row[: ROW.size]):
            return None
        mark, place, height, width, full_height, full_width, checksum = ROW.unpack(row[: ROW.size])
        if mark != digest(version):
            return None
        pixels = os.pread(self.pixels, 3 * height * width, place)
        if len(pixels) < 3 * height * width or zlib.crc32(pixels) != checksum:
            return None
        return Image.frombytes("RGB", (width, height), pixels), (full_height, full_width)

    def put(self, number: int, version: str, image: Image.Image, size: Size) -> None:
        """Keeps an RGB image, unless the limit or the end of the disk is reached. size: (height, width) in full."""
        if self.is_full or image.mode != "RGB":
            return
        pixels = image.tobytes()
        try:
            place = self._allocate(len(pixels))
            if place is not None:
                write_all(self.pixels, pixels, place)
                row = ROW.pack(digest(version), place, image.height, image.width, *size, zlib.crc32(pixels))
                write_all(self.index, row + SUM.pack(zlib.crc32(row)), number * ROW_BYTES)
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            self.is_full = True
            log.warning(
                "the cache of images takes no more, because the disk of %s is full; other images are decoded each "
                "time. Free some space, or set data.images.cache_folder to another disk", printable(self.paths[1])
            )  # fmt: skip

    def _allocate(self, count: int) -> int | None:
        """A place for so many bytes; None where the limit is reached."""
        with self._lock():
            place = os.fstat(self.pixels).st_size
            if place + count > self.limit:
                self.is_full = True
                return None
            os.ftruncate(self.pixels, place + count)
        return place

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """While the context is active, no other process allocates."""
        import fcntl

        fcntl.lockf(self.index, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self.index, fcntl.LOCK_UN)

    def used_bytes(self) -> int:
        return os.fstat(self.pixels).st_size


def close_all(*files: int) -> None:
    for file in files:
        with suppress(OSError):
            os.close(file)


def digest(version: str) -> bytes:
    return hashlib.blake2b(version.encode(), digest_size=16).digest()


def write_all(file: int, content: bytes, place: int) -> None:
    """Writes at a place, in several parts where the system takes fewer bytes than given."""
    view = memoryview(content)
    while view:
        count = os.pwrite(file, view, place)
        view, place = view[count:], place + count


def open_cache(options: ImageOptions, key: Tree, name: str, expected: int) -> ImageCache | None:
    """The cache that `data.images` asks for, if any.

    Args:
        key: what the pixels depend on, besides each image's version; every other key has a cache of its own.
        name: of the data set, for messages.
        expected: bytes of all its images, as far as they are known.

    Raises ValueError if disk or memory have no room for them, OSError that names the folder.
    """
    if options.cache is None:
        return None
    if not hasattr(os, "pread"):
        raise ValueError(f"data.images.cache: {options.cache} needs Linux or macOS: set it to null")
    content = {**key, "format": FORMAT, "Pillow": PIL.__version__}
    limit = int(options.cache_gb * GB)
    cache = memory_cache(limit) if options.cache == "memory" else disk_cache(options, content, limit)
    check_room(cache, options, min(limit, expected), name)
    log.info(
        "%s: decoded images are kept %s; %.2g GB are there, all need about %.2g GB", name,
        "in memory" if options.cache == "memory" else f"in {printable(cache.paths[1].parent)}",
        cache.used_bytes() / GB, expected / GB,
    )  # fmt: skip
    if expected > limit:
        log.warning(
            "%s: about %d %% of its images fit into the cache, the others are decoded in every epoch: set "
            "data.images.cache_gb=%d to keep all", name, 100 * limit // expected, -(-expected // GB) + 1
        )  # fmt: skip
    return cache


def disk_cache(options: ImageOptions, key: Tree, limit: int) -> ImageCache:
    """The cache of a key below `data.images.cache_folder`."""
    text = json.dumps(key, sort_keys=True)
    root = Path(options.cache_folder) if options.cache_folder else cache_folder() / "images"
    folder = root / hashlib.sha256(text.encode()).hexdigest()[:16]
    with explain_os_errors(f"data.images.cache_folder (null: a folder that {VARIABLE} chooses)", folder):
        folder.mkdir(parents=True, exist_ok=True)
        about = folder / "about.json"
        if not about.exists():
            about.write_text(text + "\n", encoding="utf-8")
        return ImageCache(folder / "index", folder / "pixels", limit)


def memory_cache(limit: int) -> ImageCache:
    """A cache in files without a disk; where the system has none, in temporary ones, which end with this process."""
    if hasattr(os, "memfd_create"):
        files = [os.memfd_create(f"detkit-{name}") for name in ("index", "pixels")]
        # By these paths, a process that is not a fork opens them as well.
        index, pixels = (Path(f"/proc/{os.getpid()}/fd/{file}") for file in files)
        cache = ImageCache(index, pixels, limit)
        weakref.finalize(cache, close_all, *files)
        return cache
    folder = Path(tempfile.mkdtemp(prefix="detkit-images-"))
    cache = ImageCache(folder / "index", folder / "pixels", limit)
    weakref.finalize(cache, remove_if_owner, folder, os.getpid())
    return cache


def remove_if_owner(folder: Path, process: int) -> None:
    """Removes the folder in the process that made it, and not in its forks."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)


def check_room(cache: ImageCache, options: ImageOptions, wanted: int, name: str) -> None:
    """Raises ValueError unless there is room for what `wanted` bytes of images still lack."""
    missing = wanted - cache.used_bytes()
    if options.cache == "memory":
        free, where = free_memory(), "memory"
        way = "set data.images.cache=disk, or data.images.cache_gb to less"
    else:
        folder = cache.paths[1].parent
        free, where = shutil.disk_usage(folder).free, f"disk of {printable(folder)}"
        way = "free some space, set data.images.cache_folder to another disk, or data.images.cache_gb to less"
    if missing > free:
        raise ValueError(
            f"data.images.cache: {options.cache} needs {missing / GB:.2g} GB for the images of {name}, and "
            f"{free / GB:.2g} GB of {where} are free: {way}"
        )
