"""The image files that a command is given: files, folders, globs and addresses."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from detkit.predict.video import is_video
from detkit.utils.console import plural, printable
from detkit.utils.errors import error_lines
from detkit.utils.outputs import Ledger, short_name

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

    from detkit.data.datasets.images import ImageOptions


def read_images(files: list[Path], readable: list[int], options: ImageOptions) -> Iterator[PILImage]:
    """Yields the images that can be read and appends their index to `readable`; ValueError if none can."""
    from detkit.data.datasets.images import read_image

    for index, file in enumerate(files):
        try:
            image = read_image(file, options)
        except (ValueError, OSError, MemoryError) as error:
            if len(files) == 1:
                raise
            text = "; ".join(error_lines(error)).replace(str(file), printable(file))
            print(f"warning: skipped: {text}", file=sys.stderr, flush=True)
            continue
        readable.append(index)
        yield image
    if not readable:
        raise ValueError(f"none of the {len(files)} files is a readable image")


def split_videos(words: list[str]) -> tuple[list[str], list[str]]:
    """The words that are videos, and the others. A glob that matches a video counts as the files that it matches."""
    import glob

    expanded: list[str] = []
    for word in words:
        matches = [] if os.path.exists(word) or is_video(word) else sorted(glob.glob(word, recursive=True))
        expanded += matches if any(map(is_video, matches)) else [word]
    return [word for word in expanded if is_video(word)], [word for word in expanded if not is_video(word)]


def find_images(paths: list[str], *, recursive: bool = False, output: Path | None = None) -> Iterator[Path]:
    """Yields the image files of files, folders and globs; FileNotFoundError names one without any.

    Files that are skipped in a folder, and drawings of an earlier `detkit predict`, are reported.
    recursive: whether folders are read with those below them. output: a folder that is left out there.
    """
    import glob

    from detkit.hub import local_path

    for text in paths:
        path = local_path(text)
        if path.is_file():
            yield path
            continue
        if path.is_dir():
            images, reason = images_below(path, text, output) if recursive else images_in(path, text)
        else:
            images = sorted(Path(p) for p in glob.glob(text, recursive=True) if Path(p).is_file())
            reason = f"no file, folder or glob match: {printable(text)}"
        photos = without_own(images, path if recursive else None)
        if drawn := len(images) - len(photos):
            files = plural(drawn, "file")
            reason += f" besides {files} that detkit wrote"
            print(f"skipped: {files} in {printable(text)} that detkit wrote", flush=True)
        if not photos:
            raise FileNotFoundError(reason)
        yield from photos


def images_in(folder: Path, text: str) -> tuple[list[Path], str]:
    """The images of a folder, not deeper, and what to report if none remains."""
    from detkit.data.datasets.image_files import describe_left_out, list_images

    images, left_out = list_images(folder)
    skipped = describe_left_out(printable(text), left_out)
    if skipped and any(entry.is_dir() for entry in left_out):
        skipped += " (--recursive reads folders below)"
    if skipped and images:
        print(f"note: {skipped}", file=sys.stderr, flush=True)
    return images, f"the folder {printable(text)} holds no image" + (f"; {skipped}" if skipped else "")


def images_below(folder: Path, text: str, output: Path | None) -> tuple[list[Path], str]:
    """The images of a folder and those below it, each file once whatever links lead to it, without hidden ones."""
    from detkit.data.datasets.image_files import describe_left_out, list_images

    images: dict[str, Path] = {}
    others: list[Path] = []
    excluded = None if output is None else os.path.realpath(output)
    for parent, folders, _ in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(parent, name)) != excluded
        )
        listed, left_out = list_images(parent)
        others += [entry for entry in left_out if not entry.is_dir()]
        for image in listed:
            images.setdefault(os.path.realpath(image), image)
    skipped = describe_left_out(printable(text), others)
    if skipped and images:
        print(f"note: {skipped}", file=sys.stderr, flush=True)
    reason = f"neither the folder {printable(text)} nor one below it holds an image"
    return list(images.values()), reason + (f"; {skipped}" if skipped else "")


def without_own(images: Iterable[Path], root: Path | None) -> list[Path]:
    """The files but for those that detkit wrote. root: up to which folder ledgers are looked for, None: beside each."""
    ledgers: dict[Path, Ledger] = {}
    photos = []
    for image in images:
        folders = [image.parent] if root is None else [image.parent, *image.parent.parents]
        if root in folders:
            folders = folders[: folders.index(root) + 1]
        found = [ledgers.setdefault(folder, Ledger(folder)) for folder in folders]
        if not any(ledger.owns(image.relative_to(ledger.folder)) for ledger in found):
            photos.append(image)
    return photos


def unique_names(files: Iterable[Path], ending: str = ".png") -> list[str]:
    """A name for every file, with a number if two folders hold the same name.

    Names that differ only in case or Unicode form count as the same: some file systems don't tell them apart.
    """
    taken: set[str] = set()
    names = []
    for file in files:
        name, n = short_name(file.stem, ending), 1
        while (key := unicodedata.normalize("NFC", name).casefold()) in taken:
            n += 1
            name = short_name(file.stem, f"-{n}{ending}")
        taken.add(key)
        names.append(name)
    return names
