"""Image files that annotations name: where they are, and what is near where they are not."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from detkit.data.datasets.images import image_suffixes
from detkit.utils.console import plural, printable

SEARCHED = 200_000
"""Files of a folder that are looked at for one with a similar name."""


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
        """The path without detours and symbolic links, so that two ways to one file are equal."""
        folder, name = os.path.split(path)
        entry = self.names(folder).get(name)
        if entry is not None and entry.is_symlink():
            return os.path.realpath(path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        return os.path.join(self._real[folder], name)

    def inode(self, path: str) -> int | None:
        """What hard links to one file have in common (but files of other disks may, too); None for no file."""
        folder, name = os.path.split(path)
        entry = self.names(folder).get(name)
        try:
            return None if entry is None else os.stat(path).st_ino if entry.is_symlink() else entry.inode()
        except OSError:
            return None


def image_path(images: str, file_name: str, folders: Folders) -> str:
    """Where an annotation's file name leads: relative to the folder `images`, backslashes read as slashes."""
    path = os.path.join(images, file_name)
    if "\\" in file_name and path not in folders:
        path = os.path.join(images, file_name.replace("\\", "/"))
    return str(Path(path))


def check_files(paths: Sequence[str], name: str, folder: str | None = None, folders: Folders | None = None) -> None:
    """Raises FileNotFoundError that names missing files and what is near; one directory listing a folder.

    folder: where the images are said to be; files of similar names are looked for in all of it.
    """
    folders = folders or Folders()
    missing = [text for text in paths if text not in folders]
    if not missing:
        return
    near = Nearby(folder or os.path.commonpath([os.path.dirname(os.path.abspath(p)) for p in missing]))
    texts = [f"{printable(path)}{near.hint(path)}" for path in missing[: len(missing) if len(missing) < 5 else 5]]
    more = f" and {len(missing) - len(texts)} more" if len(missing) > len(texts) else ""
    where = f" ({folder} is no folder)" if folder is not None and not os.path.isdir(folder) else ""
    some = f"{len(missing)} of {plural(len(paths), 'image')} {'is' if len(missing) == 1 else 'are'} missing"
    raise FileNotFoundError(f"{name}: {some}{where}: {', '.join(texts)}{more}")


class Nearby:
    """Files below a folder by what is left of their name without case, Unicode form and suffix."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._found: dict[str, list[str]] | None = None

    def hint(self, path: str) -> str:
        """What is there instead of a missing file, in words; empty if nothing is near."""
        if self._found is None:
            self._found = {}
            for file in files_below(self.folder):
                self._found.setdefault(similarity_key(file), []).append(file)
        near = self._found.get(similarity_key(path), [])
        if not near:
            return ""
        file = min(near, key=lambda f: (os.path.basename(f) != os.path.basename(path), f))
        return f" (there is {printable(file)}{describe_name_difference(path, file)})"


def describe_name_difference(wanted: str, there: str) -> str:
    """What a file name and that of a near file differ in."""
    a, b = os.path.basename(wanted), os.path.basename(there)
    if a == b:
        return ", in another folder: correct `images`, or the path in the annotation"
    if unicodedata.normalize("NFC", a) == unicodedata.normalize("NFC", b):
        forms = ["composed (NFC)" if unicodedata.is_normalized("NFC", text) else "decomposed (NFD)" for text in (b, a)]
        return f", the same name in another Unicode form: {forms[0]} on disk, {forms[1]} in the annotation"
    (stem, suffix), (its_stem, its_suffix) = os.path.splitext(a), os.path.splitext(b)
    if stem == its_stem and suffix.lower() != its_suffix.lower():
        return f", with another suffix: {its_suffix or 'none'} instead of {suffix or 'none'}"
    return ", which differs in upper and lower case" if a.lower() == b.lower() else ", under a similar name"


def similarity_key(path: str) -> str:
    """What similar file names have in common."""
    name = os.path.splitext(os.path.basename(path.replace("\\", "/")))[0]
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def files_below(folder: str) -> Iterator[str]:
    """Files of a folder and its subfolders, up to SEARCHED of them."""
    count = 0
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for file in sorted(files):
            count += 1
            if count > SEARCHED:
                return
            yield os.path.join(parent, file)


def find_unlisted_images(folder: str, paths: Sequence[str], folders: Folders) -> list[str]:
    """Image files in the folders of `paths` (or in `folder`) that are not among them, in order."""
    suffixes = image_suffixes()
    there = {folder, *(os.path.dirname(path) for path in paths)}
    taken = set(paths)
    return [
        path
        for parent in sorted(there)
        for name in sorted(folders.names(parent))
        if name.lower().endswith(suffixes)
        and not name.startswith(".")
        and (path := str(Path(parent) / name)) not in taken
    ]


def find_duplicate_files(paths: Sequence[str], folders: Folders) -> dict[str, list[int]]:
    """Real path -> numbers of the paths that lead to it, by whatever link, for those that several lead to."""
    places: dict[str, list[int]] = {}
    by_inode: dict[int | None, str] = {None: ""}
    for i, path in enumerate(paths):
        real = folders.real(path)
        if real not in places:
            first = by_inode.setdefault(folders.inode(path), real)
            if first and first != real and os.path.samefile(first, real):
                real = first
        places.setdefault(real, []).append(i)
    return {path: where for path, where in places.items() if len(where) > 1}
