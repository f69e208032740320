"""The lists of images of a Pascal VOC folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from detkit.data.datasets.file_formats import decode_text
from detkit.data.datasets.image_files import fold_name
from detkit.utils.console import plural, shorten_list

CODE_PAGES = ("cp1252", "gb18030", "shift_jis", "euc_kr", "big5", "cp1251", "cp1250", "cp437", "cp850")
"""Encodings that a list from another system often has."""
LIST_PLACES = ("ImageSets/Main", "ImageSets", ".")
"""Folders below the root that may have the lists of images."""


def read_split(root: Path, annotations: Path, split: str) -> list[str]:
    """Image names of a split; errors name the list and the other splits."""
    path = find_list(root, split)
    annotated = {p.stem for p in annotation_files(annotations)}
    stems = list_stems(read_list(path, annotated), annotated)
    if not stems:
        raise ValueError(f"{path}: the split is empty: write its images into the list, or delete the list")
    twice = sorted(stem for stem, count in Counter(stems).items() if count > 1)
    if twice:
        raise ValueError(f"{path}: {plural(len(twice), 'image is', 'images are')} listed twice: {shorten_list(twice)}")
    return stems


def find_list(root: Path, split: str) -> Path:
    """The list of a split; FileNotFoundError that names the splits there are."""
    places = [root / place for place in LIST_PLACES]
    path = next((place / f"{split}.txt" for place in places if (place / f"{split}.txt").is_file()), None)
    if path is None:
        splits = sorted({p.stem for place in places[:2] for p in place.glob("*.txt")})
        hint = f"known splits: {shorten_list(splits)}" if splits else f"not a VOC folder ({places[0]} has no lists)"
        if (root / split).is_dir():
            hint = f"{root / split} is a folder: for its XML files, set type: auto, or `root` to it without `split`"
        raise FileNotFoundError(f"no split {split!r}: {places[0] / f'{split}.txt'}; {hint}")
    return path


def read_list(path: Path, annotated: set[str]) -> str:
    """Reads the text of a list; ValueError that names file, encoding and the encoding that fits."""
    raw = path.read_bytes()
    try:
        return decode_text(raw, str(path))
    except ValueError as error:
        fitting = [name for name in CODE_PAGES if fits(raw, name, annotated)]
        hint = f". Read as {fitting[0]}, its names match Annotations" if fitting else ""
        raise ValueError(f"{error}{hint}") from None


def fits(raw: bytes, encoding: str, annotated: set[str]) -> bool:
    """Whether a list that is read in an encoding names annotations only."""
    try:
        return set(list_stems(raw.decode(encoding), annotated)) <= annotated
    except UnicodeDecodeError:
        return False


def list_stems(text: str, annotated: set[str]) -> list[str]:
    """Image names of a list, in order."""
    return [stem_of(line.strip(), annotated) for line in text.splitlines() if line.strip()]


def stem_of(line: str, annotated: set[str]) -> str:
    """The name in Annotations that a line means: with 1 or -1 behind it, a suffix, or folders in front.

    The challenges' lists of a class have 1 or -1 behind the name; a name may have spaces itself.
    """
    path = line.replace("\\", "/").rpartition("/")[2]
    for text in (line, line.split()[0], path, path.rpartition(".")[0], path.split()[0].rpartition(".")[0]):
        if text in annotated:
            return text
    return line if len(line.split()) > 2 else line.split()[0]


def annotation_files(folder: Path) -> list[Path]:
    """Files with the suffix .xml, in whatever case; not the hidden ones, as the ._a.xml that macOS leaves."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() == ".xml" and not p.name.startswith("."))


def describe_near_stem(stem: str, annotated: set[str]) -> str:
    """A missing name, with an annotation whose name is the same but for case or Unicode form."""
    near = sorted(a for a in annotated if fold_name(a) == fold_name(stem))
    return f"{stem} (there is {near[0]}.xml)" if near else stem
