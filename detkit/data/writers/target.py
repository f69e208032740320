"""The folder that a writer fills: all of it or nothing, and never a byte of the input."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.problems import Problems
from detkit.data.writers.boxes import WrittenImage
from detkit.utils.console import bar_stream, printable
from detkit.utils.errors import FULL_DISK, explain_os_errors
from detkit.utils.outputs import check_can_write
from detkit.utils.types import Tree

T = TypeVar("T")
Images = Literal["copy", "hardlink", "symlink", "reference"]
"""How images come into the new folder; a reference leaves them where they are."""


@dataclass(frozen=True)
class Written:
    """What a writer wrote: the config node that reads each split back, and what the format can't hold."""

    nodes: dict[str, Tree]
    problems: Problems


def check_target(option: str, folder: Path) -> None:
    """Raises an error unless the folder can be made, or is there and empty."""
    check_can_write(option, folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{option}: {printable(folder)} is not empty; choose a new folder")


@contextlib.contextmanager
def all_or_nothing(folder: Path) -> Iterator[Path]:
    """A folder for writing, which takes the place of an absent or empty one at the end; after an error it is gone."""
    check_target("folder", folder)
    real = Path(os.path.realpath(folder))
    with explain_os_errors("folder", real):
        real.parent.mkdir(parents=True, exist_ok=True)
        temporary = real.parent / f".detkit-{os.getpid()}.tmp"
        temporary.mkdir()
    try:
        yield temporary
        if real.exists():
            real.rmdir()
        temporary.replace(real)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def with_progress(images: Iterable[T], total: int, text: str) -> Iterator[T]:
    """The items, counted by a bar on a terminal."""
    from tqdm import tqdm

    yield from tqdm(images, total=total, desc=text, disable=None, leave=False, file=bar_stream())


def refuse_reference(images: Images, format_name: str) -> None:
    """Raises ValueError for `reference`, for a format that finds annotations by the place of the image."""
    if images == "reference":
        raise ValueError(
            f"--images reference: {format_name} finds the annotation of an image by its place, so images must be in "
            "the new folder: choose hardlink or symlink, which take no room"
        )


def how_placed(images: Images, dataset: DetectionDataset) -> Images:
    """How the images of a data set come into the folder: what it draws is not there to be linked or referred to."""
    return images if dataset.reads_files else "copy"


def place_image(image: WrittenImage, target: Path, how: Images) -> None:
    """Brings an image to a path: the bytes of its file or shard, a link, or a PNG of what its data set draws."""
    content = image.content()  # refuses an image outside of the data's folders, for the written file would name it
    if how == "reference":
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        target.write_bytes(content)
        return
    source = os.path.realpath(content)
    try:
        if how == "copy":
            shutil.copyfile(source, target)
        else:
            (os.link if how == "hardlink" else os.symlink)(source, target)
    except OSError as error:
        if error.errno in FULL_DISK:  # of which the system names the source
            raise OSError(error.errno, error.strerror, str(target)) from None
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK) or how == "copy":
            raise
        raise ValueError(
            f"{printable(image.path)} can't be linked to {printable(target.parent.parent)}: {error.strerror}. "
            "Links need the same disk and a file system that has them: choose --images copy"
        ) from None
