"""Image files: which files are images, where annotations lead, and what is near a missing one."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import compress, islice
from pathlib import Path

from PIL import Image

from detkit.data.datasets.images import HEIF, HEIF_HINT, NO_PICTURES, reads_heif
from detkit.utils.console import plural, printable, shorten_list

SEARCHED = 200_000
"""Files of a folder that are looked at for one with a similar name."""
COMMON = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".gif")
"""In order of preference where a name exists in several formats."""
NO_IMAGE = (".xml", ".json", ".txt", ".csv")
"""Suffixes of annotations, which often have the name of their image."""


def image_suffixes() -> tuple[str, ...]:
    """Suffixes, in lower case, of the files that can be read: Pillow's, and pillow-heif's where it is installed."""
    reads_heif()
    formats = Image.registered_extensions()
    known = {s for s, name in formats.items() if name in Image.OPEN and name not in NO_PICTURES}
    return (*(s for s in COMMON if s in known), *sorted(known.difference(COMMON)))


def list_images(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """Images of a folder, without its subfolders, and its other entries; both by name, without hidden files."""
    suffixes = image_suffixes()
    entries = sorted(p for p in Path(folder).iterdir() if not p.name.startswith("."))
    is_image = [p.suffix.lower() in suffixes and p.is_file() for p in entries]
    return list(compress(entries, is_image)), list(compress(entries, (not image for image in is_image)))


def describe_left_out(folder: str | Path, left_out: list[Path]) -> str | None:
    """A sentence on what `list_images` left out; None if it is nothing."""
    if not left_out:
        return None
    folders = [p.name for p in left_out if p.is_dir()]
    files = [p.name for p in left_out if not p.is_dir()]
    parts = [f"{plural(len(files), 'file')} that can't be read as images: {shorten_list(files)}"] if files else []
    parts += [f"{plural(len(folders), 'folder')} below it: {shorten_list(folders)}"] if folders else []
    hint = f" ({HEIF_HINT})" if any(p.suffix.lower() in HEIF for p in left_out) and not reads_heif() else ""
    return f"{folder}: skipped {'; '.join(parts)}{hint}"


def images_by_stem(folder: Path) -> dict[str, Path]:
    """Image name without suffix -> file; a name in several formats gives the one named first in `image_suffixes`."""
    if not folder.is_dir():
        return {}
    order = {suffix: i for i, suffix in enumerate(image_suffixes())}
    images = sorted(list_images(folder)[0], key=lambda p: (order[p.suffix.lower()], p.name))
    return {path.stem: path for path in reversed(images)}


class Folders:
    """Names of the files in folders, each folder listed once."""

    def __init__(self) -> None:
        self._listed: dict[str, dict[str, os.DirEntry[str]]] = {}
        self._real: dict[str, str] = {}

    def names(self, folder: str) -> dict[str, os.DirEntry[str]]:
        """File name -> its entry."""
        if folder not in self._listed:
            try:
                with os.scandir(folder or ".") as entries:
                    self._listed[folder] = {entry.name: entry for entry in entries}
            except OSError:
                self._listed[folder] = {}
        return self._listed[folder]

    def __contains__(self, path: str) -> bool:
        folder, name = os.path.split(path)
        return name in self.names(folder)

    def real(self, path: str) -> str:
        """The path without detours and symbolic links."""
        folder, name = os.path.split(path)
        entry = self.names(folder).get(name)
        if entry is not None and entry.is_symlink():
            return os.path.realpath(path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        return os.path.join(self._real[folder], name)

    def inode(self, path: str) -> int | None:
        """The inode, which hard links to one file share (and files of other disks may, too); None for no file."""
        folder, name = os.path.split(path)
        entry = self.names(folder).get(name)
        try:
            return None if entry is None else os.stat(path).st_ino if entry.is_symlink() else entry.inode()
        except OSError:
            return None

    def image_path(self, images: str, file_name: str) -> str:
        """The path of an annotation's file name, relative to the folder `images`; backslashes are read as slashes."""
        path = os.path.join(images, file_name)
        if "\\" in file_name and path not in self:
            path = os.path.join(images, file_name.replace("\\", "/"))
        return str(Path(path))

    def unlisted_images(self, folder: str, paths: Sequence[str]) -> list[str]:
        """Image files in the folders of `paths` (or in `folder`) that are not among them, in order."""
        suffixes, listed = image_suffixes(), set(paths)
        found = [
            str(Path(parent) / name)
            for parent in sorted({folder, *map(os.path.dirname, paths)})
            for name in sorted(self.names(parent))
            if name.lower().endswith(suffixes) and not name.startswith(".")
        ]
        return [path for path in found if path not in listed]

    def duplicates(self, paths: Sequence[str]) -> dict[str, list[int]]:
        """Real path -> indices of the paths that lead to it, by links or detours, where there are several."""
        indices: dict[str, list[int]] = {}
        by_inode: dict[int | None, str] = {None: ""}
        for i, path in enumerate(paths):
            real = self.real(path)
            if real not in indices:
                first = by_inode.setdefault(self.inode(path), real)
                if first and first != real and os.path.samefile(first, real):
                    real = first
            indices.setdefault(real, []).append(i)
        return {path: same for path, same in indices.items() if len(same) > 1}


def check_files(paths: Sequence[str], name: str, folder: str | None = None, folders: Folders | None = None) -> None:
    """Raises FileNotFoundError that names missing files and what is near. Each folder is listed once.

    folder: where the images should be; files of similar names are looked for in all of it.
    """
    folders = folders or Folders()
    missing = [text for text in paths if text not in folders]
    if not missing:
        return
    near = Nearby(folder or os.path.commonpath([os.path.dirname(os.path.abspath(p)) for p in missing]))
    # Looking for what is near each of them could take long.
    texts = shorten_list([f"{printable(path)}{near.hint(path) if i < 5 else ''}" for i, path in enumerate(missing)], 5)
    where = f" ({folder} is not a folder)" if folder and not os.path.isdir(folder) else ""
    count = f"{len(missing)} of {plural(len(paths), 'image')} {'is' if len(missing) == 1 else 'are'} missing"
    raise FileNotFoundError(f"{name}: {count}{where}: {texts}")


def check_inside(paths: Sequence[str], roots: Sequence[str], name: str = "") -> None:
    """Raises ValueError that names the paths outside of all roots; none is outside if there are no roots."""
    starts = tuple(os.path.join(os.path.abspath(root), "") for root in roots)
    outside = [path for path in paths if starts and not os.path.abspath(path).startswith(starts)]
    if outside:
        folders = shorten_list([printable(root or ".") for root in dict.fromkeys(roots)])
        count = plural(len(outside), "image lies", "images lie")
        raise ValueError(
            f"{name}{': ' if name else ''}{count} outside of {folders}, where a path in the annotations leads: "
            f"{shorten_list([printable(path) for path in outside], 5)}. Annotations of others must not make detkit "
            "read other files: set data.images.outside=true if you trust them"
        )


class Nearby:
    """Finds files below a folder whose names differ in case, Unicode form or suffix only."""

    def __init__(self, folder: str) -> None:
        self._files: dict[str, list[str]] = {}
        for file in islice(files_below(folder), SEARCHED):
            if file.lower().endswith(NO_IMAGE):
                continue
            self._files.setdefault(similarity_key(file), []).append(file)

    def hint(self, path: str) -> str:
        """The file that is near a missing one, in words; empty if there is none."""
        near = self._files.get(similarity_key(path), [])
        if not near:
            return ""
        file = min(near, key=lambda f: (os.path.basename(f) != os.path.basename(path), f))
        return f" (there is {printable(file)}{describe_name_difference(path, file)})"


def describe_name_difference(missing: str, near: str) -> str:
    """What a missing file name and that of a near file differ in."""
    a, b = os.path.basename(missing), os.path.basename(near)
    if a == b:
        return ", in another folder: correct `images`, or the path in the annotation"
    if unicodedata.normalize("NFC", a) == unicodedata.normalize("NFC", b):
        forms = ["composed (NFC)" if unicodedata.is_normalized("NFC", text) else "decomposed (NFD)" for text in (b, a)]
        return f", the same name in another Unicode form: {forms[0]} on disk, {forms[1]} in the annotation"
    (stem, suffix), (near_stem, near_suffix) = os.path.splitext(a), os.path.splitext(b)
    if stem == near_stem and suffix.lower() != near_suffix.lower():
        return f", with another suffix: {near_suffix or 'none'} instead of {suffix or 'none'}"
    return ", which differs in upper and lower case" if a.lower() == b.lower() else ", under a similar name"


def similarity_key(path: str) -> str:
    """The form of a file name that similar names share: without folder, suffix, case and Unicode form."""
    return fold_name(os.path.splitext(os.path.basename(path.replace("\\", "/")))[0])


def fold_name(name: str) -> str:
    """A name without case and Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def files_below(folder: str) -> Iterator[str]:
    for parent, folders, files in os.walk(folder):
        folders.sort()
        yield from (os.path.join(parent, file) for file in sorted(files))
