"""Data sets by path: `detkit.datasets.load("path/to/data")`, and batches of them for a training loop of one's own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from detkit.config import Config
from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.file_formats import parse_json
from detkit.data.loader import Loader, LoaderOptions, build_eval_loader, build_train_loader
from detkit.data.transforms.base import Transform
from detkit.hub import local_path
from detkit.registry import DATASETS, TRANSFORMS
from detkit.utils.console import printable, shorten_list
from detkit.utils.types import Tree, Value

VOC_FOLDERS = ("Annotations", "ImageSets/Main", "JPEGImages")
JSON_PLACES = ("*.json", "annotations/*.json")
PROBES = 5
"""Images of an annotation file that must lie in a folder for it to be the right one."""


def load(
    path: str | os.PathLike[str],
    *,
    split: str | None = None,
    images: str | os.PathLike[str] | None = None,
    **options: Value,
) -> DetectionDataset:
    """Opens a data set: a COCO JSON file, a folder with such files, or a Pascal VOC folder.

    Args:
        path: file or folder, here or at an address.
        split: which one, where a folder has several: the name of a list in ImageSets/Main, or a part of the name of a
            JSON file.
        images: folder of the images of a JSON file; None searches it near the file.
        options: more arguments of CocoDataset or VocDataset, as `class_names` or `ignore_classes`.

    Raises FileNotFoundError or ValueError that names what was found instead.
    """
    place = local_path(path)
    if place.is_dir() and is_voc(place):
        if images is not None:
            raise ValueError(f"images: {printable(place)} is a Pascal VOC folder, whose images are in JPEGImages")
        return _build({"type": "VocDataset", "root": str(place), "split": split or only_list(place), **options})
    file = place if not place.is_dir() else only_json(place, split)
    if not file.is_file():
        raise FileNotFoundError(f"no data set {printable(file)}: give a COCO JSON file or a folder")
    folder = local_path(images) if images is not None else image_folder(file)
    return _build({"type": "CocoDataset", "annotations": str(file), "images": str(folder), **options})


def batches(
    dataset: DetectionDataset,
    *,
    train: bool = True,
    transforms: Sequence[Mapping[str, Value] | Transform] | Config = (),
    batch_size: int = 8,
    num_workers: int = 0,
    size_divisor: int = 32,
    seed: int = 0,
) -> Loader:
    """Batches of a data set: endless and shuffled for training, else every image once in its order.

    Args:
        train: whether they are for training.
        transforms: what happens to an image and its boxes: `{"type": "RandomHorizontalFlip"}`, ready transforms, or a
            config, whose `data.train` or `data.val` has them.
        batch_size: images of a batch.
        num_workers: processes that load; 0 loads in this one.
        size_divisor: height and width of a batch are padded with zeros to a multiple of it.
        seed: of the order and the transforms.
    """
    options = LoaderOptions(batch_size=batch_size, num_workers=num_workers, size_divisor=size_divisor)
    if isinstance(transforms, Config):
        transforms = list(transforms.require(f"data.{'train' if train else 'val'}.transforms"))
    chain = [t if isinstance(t, Transform) else TRANSFORMS.build(t) for t in transforms]
    if train:
        return build_train_loader(dataset, chain, options, seed=seed)
    return build_eval_loader(dataset, chain, options)


def is_voc(folder: Path) -> bool:
    """Whether a folder has the three folders of Pascal VOC."""
    return all((folder / name).is_dir() for name in VOC_FOLDERS)


def only_list(root: Path) -> str:
    """The only split of a VOC folder; ValueError that lists them if there are several. Lists of a class don't count."""
    names = sorted(path.stem for path in (root / "ImageSets/Main").glob("*.txt"))
    splits = [name for name in names if not re.search(r"_(train|val|trainval|test)$", name)]
    if len(splits) != 1:
        raise ValueError(f"{printable(root)} has the splits {shorten_list(splits) or 'none'}: choose one with split=")
    return splits[0]


def only_json(root: Path, split: str | None) -> Path:
    """The only COCO file of a folder, of those whose name has the split in it."""
    files = sorted(path for pattern in JSON_PLACES for path in root.glob(pattern))
    if split is not None:
        files = [path for path in files if split in re.split(r"[\W_]+|(?<=[a-z])(?=\d)", path.stem)] or [
            path for path in files if split in path.stem
        ]
    if len(files) == 1:
        return files[0]
    names = shorten_list([printable(path.relative_to(root)) for path in files])
    if files:
        raise ValueError(f"{printable(root)} has several JSON files, {names}: name one, or choose with split=")
    wanted = f" with {split!r} in its name" if split else ""
    content = shorten_list(sorted(printable(entry.name) for entry in root.iterdir()), 10) or "nothing"
    raise FileNotFoundError(
        f"{printable(root)} has no JSON file{wanted}, there or in annotations/, and is no Pascal VOC folder "
        f"({', '.join(VOC_FOLDERS)}); it holds {content}"
    )


def image_folder(file: Path) -> Path:
    """The folder near a COCO file that has its first images; FileNotFoundError that lists where they were sought."""
    content = parse_json(str(file))
    entries = content.get("images") if isinstance(content, dict) else None
    names = [e.get("file_name") for e in entries[:PROBES] if isinstance(e, dict)] if isinstance(entries, list) else []
    texts = [name for name in names if isinstance(name, str)]
    if not texts:  # the reader says what is wrong with the file
        return file.parent
    stem = re.sub(r"^(instances|annotations|_annotations)[._]?|[._]?(coco|annotations|instances)$", "", file.stem)
    places = ["", file.stem, stem, "images", f"images/{stem}", "..", f"../{stem}", "../images", f"../images/{stem}"]
    folders = list(dict.fromkeys(Path(os.path.normpath(file.parent / place)) for place in places))
    for folder in folders:
        if all((folder / text).is_file() for text in texts):
            return folder
    raise FileNotFoundError(
        f"{printable(file)}: its images ({shorten_list([printable(t) for t in texts], 2)}) are in none of "
        f"{shorten_list([printable(f) for f in folders])}: name their folder with images="
    )


def _build(node: Tree) -> DetectionDataset:
    dataset: DetectionDataset = DATASETS.build(node)
    return dataset
