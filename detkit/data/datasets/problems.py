"""What a reader, a filter or a transform did to annotations besides reading them, counted by kind and named."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

log = logging.getLogger("detkit")
NAMED = 20
"""Examples kept of one kind; the rest is counted."""


class Kind(NamedTuple):
    """text: follows the count, as in "3 boxes are clipped". lost: objects or images no longer take part in
    training. quiet: nothing that a user has to act on, so it is logged as information and not as a warning."""

    text: str
    lost: bool = False
    quiet: bool = False


DROPPED = Kind("boxes are unusable and left out of training", lost=True)
CLIPPED = Kind("boxes reach over the image's edge and are clipped for training")
CLIPPED_A_PIXEL = Kind("boxes reach over the image's edge by a pixel or less and are clipped for training", quiet=True)
MENDED = Kind("boxes have swapped corners, which are put right for training")
REPEATED = Kind("boxes are listed again with the same class and coordinates; all of them are kept")
UNSELECTED = Kind("objects are left out because class_names does not list their class", lost=True)
IGNORED = Kind("objects are ignore regions because ignore_classes lists their class", lost=True)
EMPTY = Kind("images without objects are left out (keep_empty: false)", lost=True)
MERGED = Kind("image entries repeat a file and are merged into its first entry")
NO_SCORE = Kind("objects have an area below zero: evaluation ignores them, as pycocotools does")
BAD_AREA = Kind("objects have no usable area; that of the box is used")
BAD_IDS = Kind("annotation ids are missing or used twice; nothing depends on them", quiet=True)
FROM_MASK = Kind("boxes are missing and derived from the segmentation")
RENUMBERED = Kind("ids are text and numbered in alphabetical order", quiet=True)
UNLISTED = Kind("image files of the folder are not in the annotations and left out", quiet=True)
SUSPECT = Kind("boxes look as if they are written in another format")
UNUSED_CATEGORIES = Kind("category entries are unused or repeated and left out", quiet=True)


@dataclass
class Found:
    """How often a kind of problem was found, and the first few places."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


class Problems:
    """Kind -> count and examples.

    `for kind, found in problems` walks through them. An example names file and box: "image 5 (a.jpg), box 3
    [10.0, 5.0, 5000.0, 50.0]: xmax=5000 in an image 500 wide".
    """

    def __init__(self) -> None:
        self.found: dict[Kind, Found] = {}

    def __iter__(self) -> Iterator[tuple[Kind, Found]]:
        yield from self.found.items()

    def __bool__(self) -> bool:
        return bool(self.found)

    def add(self, kind: Kind, example: str, count: int = 1) -> None:
        """Counts, and keeps the example if there are few so far."""
        found = self.found.setdefault(kind, Found())
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
            mine = self.found.setdefault(kind, Found())
            mine.count += found.count
            mine.examples += found.examples[: NAMED - len(mine.examples)]

    def lines(self, *, quiet: bool = True) -> list[str]:
        """A line for each kind, then one for each example; without the quiet kinds if told so."""
        lines = []
        for kind, found in self:
            if quiet or not kind.quiet:
                lines += described(kind, found)
        return lines

    def report(self, name: str) -> None:
        """Logs one record for each kind, a warning unless the kind is quiet."""
        for kind, found in self:
            level = logging.INFO if kind.quiet else logging.WARNING
            log.log(level, "%s: %s", name, "\n".join(described(kind, found)))


def described(kind: Kind, found: Found) -> list[str]:
    """The count, the examples below it, and how many more there are."""
    lines = [f"{found.count} {kind.text}:", *(f"  {example}" for example in found.examples)]
    if found.count > len(found.examples) >= NAMED:
        lines.append(f"  and {found.count - len(found.examples)} more")
    return lines
