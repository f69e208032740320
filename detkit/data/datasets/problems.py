"""What a reader, a filter or a transform did to annotations besides reading them, counted by kind and named."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

log = logging.getLogger("detkit.problems")
NAMED = 20
"""Examples kept of one kind; the rest is counted."""
NAMED_QUIETLY = 5
"""Examples told of a kind that nobody has to act on."""


class Kind(NamedTuple):
    """text: follows the count, as in "3 boxes are clipped"; one: the same for a count of 1. lost: objects or images no
    longer take part in training. quiet: nothing that a user has to act on, so it is logged as information and not as
    a warning."""

    text: str
    lost: bool = False
    quiet: bool = False
    one: str | None = None

    def counted(self, number: int) -> str:
        """`3 boxes are clipped`."""
        return f"{number} {self.one if number == 1 and self.one else self.text}"


DROPPED = Kind("boxes are unusable and left out of training", lost=True, one="box is unusable and left out of training")
CLIPPED = Kind(
    "boxes reach over the image's edge and are clipped for training",
    one="box reaches over the image's edge and is clipped for training",
)
CLIPPED_A_PIXEL = Kind(
    "boxes reach over the image's edge by a pixel or less and are clipped for training",
    quiet=True,
    one="box reaches over the image's edge by a pixel or less and is clipped for training",
)
SWAPPED_CORNERS = Kind(
    "boxes have swapped corners, which are put right for training",
    one="box has swapped corners, which are put right for training",
)
REPEATED = Kind(
    "boxes are listed again with the same class and coordinates; all of them are kept",
    one="box is listed again with the same class and coordinates; both are kept",
)
RENAMED = Kind("objects have another class by class_map", quiet=True, one="object has another class by class_map")
UNSELECTED = Kind(
    "objects are left out because class_names does not list their class",
    lost=True,
    one="object is left out because class_names does not list its class",
)
IGNORED = Kind(
    "objects are ignore regions because ignore_classes lists their class",
    lost=True,
    one="object is an ignore region because ignore_classes lists its class",
)
EMPTY = Kind(
    "images without objects are left out (keep_empty: false)",
    lost=True,
    one="image without objects is left out (keep_empty: false)",
)
MERGED = Kind(
    "image entries repeat a file and are merged into its first entry",
    one="image entry repeats a file and is merged into its first entry",
)
NO_SCORE = Kind(
    "objects have an area below zero: evaluation ignores them, as pycocotools does",
    one="object has an area below zero: evaluation ignores it, as pycocotools does",
)
BAD_AREA = Kind(
    "objects have no usable area; that of the box is used", one="object has no usable area; that of the box is used"
)
BAD_IDS = Kind(
    "annotation ids are missing or used twice; nothing depends on them",
    quiet=True,
    one="annotation id is missing or used twice; nothing depends on it",
)
FROM_MASK = Kind(
    "boxes are missing and derived from the segmentation", one="box is missing and derived from the segmentation"
)
RENUMBERED = Kind(
    "ids are text or too large, and numbered in alphabetical order",
    quiet=True,
    one="id is text or too large, and numbered",
)
UNLISTED = Kind(
    "image files of the folder are not in the annotations of this split",
    quiet=True,
    one="image file of the folder is not in the annotations of this split",
)
PARTS = Kind("parts of objects are not read", quiet=True, one="part of an object is not read")
COUNTS_FROM_ZERO = Kind(
    "boxes begin at 0, so pixels seem to be counted from 0 and not from 1: one_based: false reads them so",
    one="box begins at 0, so pixels seem to be counted from 0 and not from 1: one_based: false reads them so",
)
OTHER_IMAGE = Kind(
    "annotations name another image that is there, too; the image with the annotation's own name is used",
    one="annotation names another image that is there, too; the image with the annotation's own name is used",
)
SUSPECT = Kind(
    "boxes look as if they are written in another format", one="box looks as if it is written in another format"
)
UNUSED_CATEGORIES = Kind(
    "category entries are unused or repeated and left out",
    quiet=True,
    one="category entry is unused or repeated and left out",
)


@dataclass
class Occurrences:
    """How often a kind of problem was found, and the first few places."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


class Problems:
    """Kind -> count and examples.

    `for kind, found in problems` walks through them. An example names file and box: "image 5 (a.jpg), box 3
    [10.0, 5.0, 5000.0, 50.0]: xmax=5000 in an image 500 wide".
    """

    def __init__(self) -> None:
        self.found: dict[Kind, Occurrences] = {}

    def __iter__(self) -> Iterator[tuple[Kind, Occurrences]]:
        yield from self.found.items()

    def __bool__(self) -> bool:
        return bool(self.found)

    def add(self, kind: Kind, example: str, count: int = 1) -> None:
        """Counts, and keeps the example if there are few so far."""
        found = self.found.setdefault(kind, Occurrences())
        found.count += count
        if len(found.examples) < NAMED:
            found.examples.append(example)

    def count(self, kind: Kind) -> int:
        """How often; 0 if never."""
        return self.found[kind].count if kind in self.found else 0

    @property
    def dropped_count(self) -> int:
        """Boxes that were left out because they are unusable."""
        return self.count(DROPPED)

    @property
    def lost_count(self) -> int:
        """Objects and images that no longer take part in training, for whatever reason."""
        return sum(found.count for kind, found in self if kind.lost)

    def merge(self, other: Problems) -> None:
        """Adds what another one found."""
        for kind, found in other:
            mine = self.found.setdefault(kind, Occurrences())
            mine.count += found.count
            mine.examples += found.examples[: NAMED - len(mine.examples)]

    def lines(self, *, quiet: bool = True) -> list[str]:
        """A line for each kind, then one for each example; without the quiet kinds if told so."""
        lines = []
        for kind, found in self:
            if quiet or not kind.quiet:
                lines += describe_problem(kind, found)
        return lines

    def report(self, name: str) -> None:
        """Logs one record for each kind, a warning unless the kind is quiet."""
        for kind, found in self:
            level = logging.INFO if kind.quiet else logging.WARNING
            log.log(level, "%s: %s", name, "\n".join(describe_problem(kind, found)))


def describe_problem(kind: Kind, found: Occurrences) -> list[str]:
    """The count, the examples below it, and how many more there are."""
    named = found.examples[:NAMED_QUIETLY] if kind.quiet else found.examples
    lines = [f"{kind.counted(found.count)}:", *(f"  {example}" for example in named)]
    if len(found.examples) > len(named):
        lines.append("  and others")
    elif found.count > len(named) >= NAMED:
        lines.append(f"  and {found.count - len(named)} more")
    return lines
