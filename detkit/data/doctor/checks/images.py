"""Images that can't be used, stated sizes that are wrong, and orientations that EXIF leaves in doubt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from detkit.data.doctor.findings import Case, Findings, Kind, Picture
from detkit.data.doctor.store import ImageFacts
from detkit.data.doctor.subject import Split, Subject
from detkit.utils.types import Floats

UNREADABLE = Kind(
    "unreadable", "error", "images can't be read",
    "replace the files; data.images.bad_images=skip leaves them out, =repair decodes what is there",
)  # fmt: skip
LEFT_OUT = Kind(
    "left-out", "note", "images that can't be read are left out, as configured (bad_images: skip)", "replace the files"
)  # fmt: skip
REPAIRED = Kind("repaired", "warning", "damaged images are repaired", "replace the files")
SWAPPED = Kind(
    "swapped-size", "error", "the stated width and height are swapped", "swap <width> and <height> of these annotations"
)  # fmt: skip
UNTURNED = Kind(
    "exif-ignored", "error", "boxes were drawn on the image without its EXIF rotation",
    "rotate the pixels of the files and delete their EXIF orientation, or turn the boxes",
)  # fmt: skip
OTHER_SIZE = Kind(
    "other-size", "error", "the image has another size than its annotation states, so its boxes are unreliable",
    "correct the annotation, or restore the image that was annotated",
)  # fmt: skip
EXIF_DOUBT = Kind(
    "exif-doubt", "warning", "EXIF turns the image, and nothing shows whether its boxes were drawn before that",
    "look at the two pictures; if the second one is right, delete the EXIF orientation of the file",
)  # fmt: skip
TURNED = {2: "mirrored", 3: "turned by 180 degrees", 4: "flipped", 5: "transposed", 6: "turned by 90 degrees",
          7: "transversed", 8: "turned by 270 degrees"}  # fmt: skip


def check_images(subject: Subject) -> Findings:
    """What opening every image has shown."""
    findings = Findings()
    for split in subject:
        for index, why in split.gathered.scan.bad.items():
            findings.add(*judge_bad(split, index, why))
        for index, why in split.gathered.scan.repaired.items():
            findings.add(REPAIRED, [image_case(split, index, without_path(why, split.path(index)))])
        findings.add(EXIF_DOUBT, exif_doubts(split))
    return findings


def judge_bad(split: Split, index: int, why: str) -> tuple[Kind, list[Case]]:
    """What is wrong with an image that can't be used."""
    facts = split.facts.get(index)
    stated = tuple(split.dataset.records.sizes[index].tolist())
    if facts is None:
        missing = Picture("", caption="it does not decode")
        text = without_path(why, split.path(index))
        kind = LEFT_OUT if split.dataset.image_options.bad_images == "skip" else UNREADABLE
        return kind, [Case(split=split.name, file=split.path(index), text=text, pictures=(missing,))]
    sizes = f"the file has {facts.size[1]}x{facts.size[0]} pixels, the annotation says {stated[1]}x{stated[0]}"
    if stated == facts.stored and facts.orientation != 1:
        text = f"{TURNED[facts.orientation]} by EXIF: {sizes}"
        return UNTURNED, [image_case(split, index, text, turned=True)]
    kind = SWAPPED if stated == facts.size[::-1] else OTHER_SIZE
    return kind, [image_case(split, index, sizes)]


def exif_doubts(split: Split) -> Iterator[Case]:
    """Images that EXIF turns without changing their size, or whose annotation states no size."""
    for index, facts in split.facts.items():
        stated = tuple(split.dataset.records.sizes[index].tolist())
        if facts.orientation == 1 or index in split.gathered.scan.bad or not len(split.rows(index)):
            continue
        fits = [inside(split, index, size) for size in (facts.size, facts.stored)]
        if facts.size != facts.stored and (stated == facts.size or fits == [True, False]):
            continue
        text = f"{TURNED[facts.orientation]} by EXIF"
        if fits == [False, True]:
            text += "; the boxes lie inside the image only without that"
        yield both_ways(split, index, text, facts, 1.0 if fits == [False, True] else 0.0)


def inside(split: Split, index: int, size: tuple[int, int]) -> bool:
    """Whether all boxes of an image lie in (height, width) `size`."""
    boxes: Floats = split.corners[list(split.rows(index))]
    height, width = size
    return bool((np.nan_to_num(boxes[:, 2:]) <= (width + 1, height + 1)).all())


def both_ways(split: Split, index: int, text: str, facts: ImageFacts, weight: float) -> Case:
    upright = split.picture(index, caption="as EXIF turns it, and as detkit reads it")
    stored = replace(upright, caption="as stored", turned=True)
    return Case(split=split.name, file=upright.path, text=text, weight=weight, pictures=(upright, stored))


def image_case(split: Split, index: int, text: str, *, turned: bool = False) -> Case:
    picture = replace(split.picture(index), turned=turned)
    return Case(split=split.name, file=picture.path, text=text, pictures=(picture,))


def without_path(why: str, path: str) -> str:
    """A message without the path that stands before it."""
    return why.removeprefix(f"{path}: ")
