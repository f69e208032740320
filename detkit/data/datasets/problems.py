"""The report of a reader: what it dropped, changed or left out, counted by kind, with examples."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

log = logging.getLogger("detkit.problems")
NAMED = 20
"""Examples kept of one kind; the rest is counted."""
NAMED_QUIETLY = 5
"""Examples printed of a kind that nobody has to act on."""
FORMS = re.compile(r"\[([^|\]]*)\|([^|\]]*)\]")
"""`[plural|singular]` in the text of a kind."""


class Kind(NamedTuple):
    """A kind of problem. `text` follows the count, in both numbers: "[boxes are|box is] clipped".

    lost: objects or images no longer take part in training. quiet: nothing that a user has to act on, so it is logged
    as information and not as a warning.
    """

    text: str
    lost: bool = False
    quiet: bool = False

    def counted(self, number: int) -> str:
        """`3 boxes are clipped`."""
        return f"{number} {FORMS.sub(lambda forms: forms[2 if number == 1 else 1], self.text)}"


DROPPED = Kind("[boxes are|box is] unusable and left out of training", lost=True)
CLIPPED = Kind("[boxes extend|box extends] beyond the image and [are|is] clipped for training")
CLIPPED_A_PIXEL = Kind(
    "[boxes extend|box extends] beyond the image by a pixel or less and [are|is] clipped for training", quiet=True
)
SWAPPED_CORNERS = Kind("[boxes have|box has] swapped corners, which are swapped back for training")
REPEATED = Kind("[boxes are|box is] listed again with the same class and coordinates; [all of them|both] are kept")
RENAMED = Kind("[objects have|object has] another class by class_map", quiet=True)
UNSELECTED = Kind("[objects are|object is] left out because class_names does not list [their|its] class", lost=True)
IGNORED = Kind(
    "[objects are ignore regions|object is an ignore region] because ignore_classes lists [their|its] class", lost=True
)
EMPTY = Kind("[images without objects are|image without objects is] left out (keep_empty: false)", lost=True)
MERGED = Kind("image [entries repeat|entry repeats] a file and [are|is] merged into its first entry")
NO_SCORE = Kind("[objects have|object has] an area below zero: evaluation ignores [them|it], as pycocotools does")
BAD_AREA = Kind("[objects have|object has] no usable area; the box's is used")
BAD_IDS = Kind("annotation [ids are|id is] missing or used twice; nothing depends on [them|it]", quiet=True)
FROM_MASK = Kind("[boxes are|box is] missing and derived from the segmentation")
RENUMBERED = Kind("[ids are|id is] text or too large, and numbered[ in alphabetical order|]", quiet=True)
UNLISTED = Kind("image [files|file] of the folder [are|is] not in the annotations of this split", quiet=True)
PARTS = Kind("[parts of objects are|part of an object is] not read", quiet=True)
COUNTS_FROM_ZERO = Kind(
    "[boxes begin|box begins] at 0, so pixels seem to be counted from 0 and not from 1: set one_based: false"
)
OTHER_IMAGE = Kind(
    "[annotations name|annotation names] another existing image; the image with the annotation's own name is used"
)
BY_FILENAME = Kind(
    "[annotations have|annotation has] another name than [their images|its image], which <filename> states"
)
IN_FOLDER = Kind(
    "file [names lead|name leads] to no file; [those|that] of the same name in the folder of the images [are|is] used",
    quiet=True,
)
NO_SIZE = Kind("[images state|image states] no size; that of the file is used", quiet=True)
GUESSED_ENCODING = Kind(
    "[files are|file is] not in the encoding that [they declare|it declares], which is guessed: `encoding` sets it"
)
SUSPECT = Kind("[boxes seem|box seems] to be in another format")
FOUND_ELSEWHERE = Kind("[images are|image is] found in another folder than the annotation says")
NO_BOX = Kind("[shapes are|shape is] no object with a box (points, lines, tags) and [are|is] not read")
JOINED = Kind("[shapes are|shape is] another part of an object with the same group and joined to its box")
UNANNOTATED = Kind("[images have|image has] no annotation yet and [are|is] left out", lost=True)
OTHER_FILE = Kind("[files are|file is] of another format and not read")
INTERPOLATED = Kind("[boxes are|box is] missing between keyframes of a track and interpolated")
FROM_OUTLINE = Kind("[boxes are|box is] drawn around another outline", quiet=True)
UNNAMED_CLASS = Kind('[objects have|object has] no class and [are|is] of the class "object"')
NUMBERED = Kind("[objects have|object has] a number for a class, which is its name: set names", quiet=True)
SEVERAL_ANNOTATORS = Kind("[images have|image has] several annotations, of which the newest is used")
MASKS = Kind("[masks are|mask is] not read: a data set has boxes, with the area of the mask", quiet=True)
KEYPOINTS = Kind("[objects have|object has] keypoints, which are not read", quiet=True)
OTHER_KEYS = Kind("[keys of the file are|key of the file is] not read", quiet=True)
UNUSED_CATEGORIES = Kind("category [entries are|entry is] unused or repeated and left out", quiet=True)


@dataclass
class Occurrences:
    """How often a kind of problem occurs, and its first few examples."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


class Problems:
    """What a reader dropped, changed or left out: for each kind a count and examples.

    `for kind, occurrences in problems` iterates over them. An example names file and box: "image 5 (a.jpg), box 3
    [10.0, 5.0, 5000.0, 50.0]: xmax=5000 in an image 500 wide".
    """

    def __init__(self) -> None:
        self.by_kind: dict[Kind, Occurrences] = {}

    def __iter__(self) -> Iterator[tuple[Kind, Occurrences]]:
        yield from self.by_kind.items()

    def __bool__(self) -> bool:
        return bool(self.by_kind)

    def add(self, kind: Kind, *examples: str, count: int = 1) -> None:
        """Counts a problem, and keeps the examples if there are few so far."""
        occurrences = self.by_kind.setdefault(kind, Occurrences())
        occurrences.count += count
        occurrences.examples += examples[: NAMED - len(occurrences.examples)]

    def count(self, kind: Kind) -> int:
        """How often a kind occurs."""
        return self.by_kind[kind].count if kind in self.by_kind else 0

    @property
    def lost_count(self) -> int:
        """Objects and images that do not take part in training, for any reason."""
        return sum(occurrences.count for kind, occurrences in self if kind.lost)

    def merge(self, other: Problems) -> None:
        """Adds the counts and examples of another one."""
        for kind, occurrences in other:
            self.add(kind, *occurrences.examples, count=occurrences.count)

    def lines(self) -> list[str]:
        """A line for each kind, followed by one for each example."""
        return [line for kind, occurrences in self for line in describe_problem(kind, occurrences)]

    def report(self, name: str) -> None:
        """Logs one record for each kind, a warning unless the kind is quiet."""
        for kind, occurrences in self:
            level = logging.INFO if kind.quiet else logging.WARNING
            log.log(level, "%s: %s", name, "\n".join(describe_problem(kind, occurrences)))


def describe_problem(kind: Kind, occurrences: Occurrences) -> list[str]:
    """The count, the examples below it, and how many more there are."""
    named = occurrences.examples[:NAMED_QUIETLY] if kind.quiet else occurrences.examples
    lines = [f"{kind.counted(occurrences.count)}:", *(f"  {example}" for example in named)]
    if len(occurrences.examples) > len(named):
        lines.append("  and others")
    elif occurrences.count > len(named) >= NAMED:
        lines.append(f"  and {occurrences.count - len(named)} more")
    return lines
