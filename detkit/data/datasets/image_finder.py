"""Finds the image that an annotation names, wherever the tool that wrote it had the file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from detkit.data.datasets.coco_file import is_file_name, short
from detkit.data.datasets.found import is_file, walk
from detkit.data.datasets.image_files import Folders, image_suffixes
from detkit.data.datasets.problems import FOUND_ELSEWHERE, Problems
from detkit.data.datasets.records import ImageRecord
from detkit.utils.console import plural, printable, shorten_list


class ImageFinder:
    """The images below a folder, by the name that an annotation has for them.

    A name is looked for as a path relative to the annotation's folder and to `folder`, then by as many of its last
    parts as one file has. What is not below `folder` is not found, so that no annotation leads to other files.

    folder: of the images. problems: where a file that is found in another folder than a relative name says is counted.
    """

    def __init__(self, folder: str | Path, problems: Problems) -> None:
        self.folder, self.problems = Path(folder), problems

    @cached_property
    def by_name(self) -> dict[str, list[str]]:
        """File name -> paths of the images with it, relative to the folder, with slashes."""
        suffixes, files = image_suffixes(), dict[str, list[str]]()
        for file in walk(self.folder) if self.folder.is_dir() else ():
            if file.suffix.lower() in suffixes:
                files.setdefault(file.name, []).append(file.as_posix())
        return files

    @cached_property
    def by_stem(self) -> dict[str, list[str]]:
        """File name without suffix -> the names of files, in any folder, that begin with it."""
        names = dict[str, list[str]]()
        for name in self.by_name:
            names.setdefault(name.rpartition(".")[0], []).append(name)
        return names

    def find(self, name: str, where: str, beside: Path | None = None) -> str:
        """Path of the image; of a missing one where it should be. ValueError if several files may be meant.

        where: the annotation, in messages. beside: folder of the annotation's file, if names may be relative to it.
        """
        if not is_file_name(name):
            raise ValueError(f"{where}: {short(name)} is no name that a file can have")
        written = name.replace("\\", "/")
        for base in (beside, self.folder):
            path = base and self._below(base, written)
            if path is not None:
                return str(path)
        parts = [part for part in PurePosixPath(written).parts if part not in ("..", ".", "/")]
        candidates = self.by_name.get(parts[-1], []) if parts else []
        best = most_alike(candidates, parts)
        if len(best) > 1:
            raise ValueError(
                f"{where}: the image {printable(name)} may be {shorten_list([printable(b) for b in best], 3)} below "
                f"{printable(self.folder)}: name the folder of the images that are meant"
            )
        if not best:
            return str(self.folder.joinpath(*parts)) if parts else str(self.folder / "?")
        if not is_foreign(written) and not is_tail(parts, best[0]):
            self.problems.add(FOUND_ELSEWHERE, f"{where}: {printable(name)} is {printable(best[0])}")
        return str(self.folder / best[0])

    def _below(self, base: Path, written: str) -> Path | None:
        """The file that a name means relative to a folder, if it exists below `folder`."""
        path = Path(os.path.normpath(base / written))
        top = os.path.normpath(self.folder)
        return path if (top == "." or path.is_relative_to(top)) and is_file(path) else None


def most_alike(candidates: Sequence[str], parts: Sequence[str]) -> list[str]:
    """The paths that share the most parts at their end with a name."""
    shared = [count_shared(PurePosixPath(c).parts[::-1], parts[::-1]) for c in candidates]
    return [c for c, count in zip(candidates, shared, strict=True) if count == max(shared)]


def count_shared(a: Sequence[str], b: Sequence[str]) -> int:
    """How many parts two sequences begin with together."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def is_tail(parts: Sequence[str], path: str) -> bool:
    """Whether a name is the end of a path, or the path the end of the name."""
    shared = min(len(parts), len(PurePosixPath(path).parts))
    return list(parts[-shared:]) == list(PurePosixPath(path).parts[-shared:])


def is_foreign(written: str) -> bool:
    """Whether a name is an address or an absolute path, which another machine may have had."""
    return re.match(r"[A-Za-z][\w+.-]*:|/", written) is not None


def check_records(records: Sequence[ImageRecord], name: str, nothing: str = "it lists no image") -> None:
    """Raises ValueError for no record (`nothing` says so), and for an image file with several."""
    if not records:
        raise ValueError(f"{name}: {nothing}")
    refuse_duplicates(records, name)


def refuse_duplicates(
    records: Sequence[ImageRecord], name: str, way_out: str = "Put all objects of an image into one annotation"
) -> None:
    """Raises ValueError if several records are of one image file: each would lack the objects of the others."""
    duplicates = Folders().duplicates([record.path for record in records]).values()
    if duplicates:
        groups = [[records[i] for i in same] for same in duplicates]
        texts = [f"{printable(same[0].path)} ({', '.join(r.source or r.path for r in same[:3])})" for same in groups]
        count = plural(len(duplicates), "image file belongs", "image files belong")
        raise ValueError(
            f"{name}: {count} to several annotations, so the objects of one would be background in the other: "
            f"{shorten_list(texts)}. {way_out}"
        )
