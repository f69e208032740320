"""Where the annotation files and the images of a Pascal VOC data set lie, whatever its layout."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from detkit.data.datasets.found import walk
from detkit.data.datasets.image_files import image_suffixes
from detkit.data.datasets.problems import BY_FILENAME, OTHER_IMAGE, Problems
from detkit.data.datasets.voc_file import VocAnnotation, XmlReader
from detkit.data.datasets.voc_lists import annotation_files, describe_near_stem, read_split
from detkit.utils.console import plural, printable, shorten_list

LAYOUT_WORDS = {
    "annotations", "annotation", "annots", "annot", "anns", "ann", "xml", "xmls", "labels", "label", "voc",
    "jpegimages", "images", "image", "imgs", "img", "jpegs", "jpg", "jpgs", "png", "pictures", "photos",
}  # fmt: skip
"""Names of folders, in lower case, that say what is in them and not to which part of the data it belongs."""


@dataclass(frozen=True)
class VocImageFinder:
    """Finds the image of an annotation file among the images below a folder.

    folder: of the images, searched with its subfolders. root: folder of the annotation files.
    """

    folder: Path
    root: Path

    @cached_property
    def by_name(self) -> dict[str, list[Path]]:
        """Images, as absolute paths, by their name with and without suffix."""
        order = {suffix: i for i, suffix in enumerate(image_suffixes())}
        files = [self.folder / file for file in walk(self.folder) if file.suffix.lower() in order]
        names: dict[str, list[Path]] = {}
        for file in sorted(files, key=lambda f: (order[f.suffix.lower()], f)):
            for name in dict.fromkeys((file.name, file.stem)):
                names.setdefault(name, []).append(file)
        return names

    def find(self, annotation: Path, stated: str, problems: Problems) -> Path:
        """The image of an annotation file, by the file's own name, else by the name that it states.

        Counts an annotation that states another image that is there. ValueError if several images fit equally well.
        A path without a file if there is none.
        """
        image = self.nearest(annotation, annotation.stem, stated)
        source = printable(annotation.relative_to(self.root))
        if image is not None:
            stem = Path(stated).stem
            if stem in self.by_name and stem != image.stem and annotation.stem != image.name:
                problems.add(OTHER_IMAGE, f"{source}: <filename> is {stated}, {image.name} is used")
            return image
        named = self.nearest(annotation, stated, stated) if stated else None
        if named is not None:
            problems.add(BY_FILENAME, f"{source}: {named.name}")
        parent = annotation.parent if self.folder == self.root else self.folder
        return named or parent / (stated or f"{annotation.stem}.jpg")

    def nearest(self, annotation: Path, name: str, stated: str) -> Path | None:
        """The image of a name in the folder of an annotation file, else in the one that corresponds to it."""
        images = self.by_name.get(name, [])
        beside = [image for image in images if image.parent == annotation.parent]
        parallel = [image for image in images if branch(image, self.folder) == branch(annotation, self.root)]
        for group in (beside, parallel, images):
            if len({image.parent for image in group}) > 1:
                texts = shorten_list([printable(image) for image in group])
                raise ValueError(
                    f"{annotation}: several images have its name: {texts}. Choose one of their "
                    "folders as `root`, and the folder of the XML files as `annotations`"
                )
            if group:
                return next((image for image in group if image.name == stated), group[0])
        return None


def branch(file: Path, root: Path) -> tuple[str, ...]:
    """The folders of a file below the root, but for those that say only what is in them."""
    parts = file.relative_to(root).parts[:-1]
    return tuple(part for part in parts if part.lower() not in LAYOUT_WORDS)


@dataclass(frozen=True)
class VocFile:
    """One annotation file: what messages call it, its content, its image."""

    source: str
    annotation: VocAnnotation
    image: str


@dataclass(frozen=True)
class VocFiles:
    """The files of a split, and what is known of the others.

    split: those of the split, in its order. annotations: of all splits, for the classes. annotated: images that belong
    to any of them. images: folder where images are expected. where: the folder of the XML files, for messages.
    """

    split: list[VocFile]
    annotations: list[VocAnnotation]
    annotated: list[str]
    images: str
    where: str


def read_listed(root: Path, annotations: Path | None, split: str, name: str, read: XmlReader) -> VocFiles:
    """The files that a list of images names: in Annotations and JPEGImages, or wherever images lie below the root."""
    folder, images = annotations or root / "Annotations", root / "JPEGImages"
    stems = read_split(root, folder, split)
    contents = read_annotations(folder, stems, name, read)
    finder = VocImageFinder(images, folder) if images.is_dir() else finder_of(root, folder)
    files = []
    for stem in stems:
        image = finder.find(folder / f"{stem}.xml", contents[stem].filename, read.problems)
        files.append(VocFile(f"{stem}.xml", contents[stem], str(image)))
    annotated = [str(path) for stem in contents for path in finder.by_name.get(stem, [])[:1]]
    return VocFiles(files, list(contents.values()), annotated, str(finder.folder), "Annotations")


def read_files(root: Path, annotations: Path | None, name: str, read: XmlReader) -> VocFiles:
    """Every XML file below a folder, with its image."""
    folder = annotations or root
    files = [folder / file for file in walk(folder) if file.suffix.lower() == ".xml"]
    if not files:
        raise FileNotFoundError(f"{name}: no .xml file in {printable(folder)} or below{what_else(folder)}")
    finder = finder_of(root, folder)
    split = []
    for file in files:
        annotation, source = read(file), printable(file.relative_to(folder))
        split.append(VocFile(source, annotation, str(finder.find(file, annotation.filename, read.problems))))
    return VocFiles(split, [file.annotation for file in split], [], str(root), str(folder))


def finder_of(root: Path, folder: Path) -> VocImageFinder:
    """The search below a root for the images of annotation files in a folder, which need not lie below it."""
    return VocImageFinder(root, root if folder.is_relative_to(root) else folder)


def read_annotations(folder: Path, stems: list[str], name: str, read: XmlReader) -> dict[str, VocAnnotation]:
    """Image name -> annotation, of every file of the folder; FileNotFoundError for an image without one."""
    files = annotation_files(folder)
    if not files:
        raise FileNotFoundError(f"{name}: no .xml file in {folder}{what_else(folder, deep=False)}")
    known = {p.stem for p in files}
    missing = [describe_near_stem(s, known) for s in stems if s not in known]
    if missing:
        count = plural(len(missing), "image has", "images have")
        raise FileNotFoundError(f"{name}: {count} no file in Annotations: {shorten_list(missing)}")
    return {p.stem: read(p) for p in files}


def what_else(folder: Path, *, deep: bool = True) -> str:
    """What a folder without XML files has, in words. deep: subfolders are read, too."""
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    suffixes = sorted({p.suffix for p in entries if not p.is_dir()})
    folders = [p.name for p in entries if p.is_dir()]
    hint = f"; it has files with the suffix {shorten_list(suffixes)}" if suffixes else ""
    return hint + (f"; subfolders are not read: {shorten_list(folders)}" if folders and not deep else "")
