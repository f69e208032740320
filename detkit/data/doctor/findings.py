"""What the doctor finds: kinds of faults, and each case with its file, box and picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from detkit.utils.console import plural, printable
from detkit.utils.types import Tree

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""error: data that can't be used, or boxes that lie wrong, and `data check` ends with 1. warning: usable data that will
cost AP or flatter it. note: worth knowing."""
Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Kind:
    """A kind of fault. title: in words, as the heading of its cases. fix: what to do about it. pictured: cases that the
    page shows as pictures; it lists the others in words."""

    name: str
    severity: Severity
    title: str
    fix: str
    pictured: int = 12


@dataclass(frozen=True)
class Mark:
    """A box to draw, xyxy pixels, with its text; `suspect` boxes are drawn in the colour of faults."""

    box: Corners
    text: str
    suspect: bool = True


@dataclass(frozen=True)
class Picture:
    """An image that shows a case. turned: draw it as it is stored, without its EXIF orientation."""

    path: str
    marks: tuple[Mark, ...] = ()
    caption: str = ""
    turned: bool = False


@dataclass(frozen=True, kw_only=True)
class Case:
    """One finding: where it is, and what it says.

    split: its split, "" for several. file: the image or annotation file, "" for none. box: its number in the image,
    from 1, 0 for none. weight: how sure or how bad it is; the highest of a kind come first.
    """

    split: str
    text: str
    file: str = ""
    box: int = 0
    weight: float = 0.0
    pictures: tuple[Picture, ...] = ()


@dataclass
class Findings:
    """All cases by kind."""

    cases: dict[Kind, list[Case]] = field(default_factory=dict)

    def add(self, kind: Kind, cases: Iterable[Case]) -> None:
        """Adds cases of a kind; a kind without cases is left out."""
        for case in cases:
            self.cases.setdefault(kind, []).append(case)

    def merge(self, other: Findings) -> None:
        for kind, cases in other.cases.items():
            self.add(kind, cases)

    def ranked(self) -> list[tuple[Kind, list[Case]]]:
        """Kinds by severity, in the order in which they were found; their cases by weight."""
        order = sorted(self.cases, key=lambda kind: SEVERITIES.index(kind.severity))
        return [(kind, sorted(self.cases[kind], key=lambda case: -case.weight)) for kind in order]

    def count(self, severity: Severity) -> int:
        """Cases of a severity."""
        return sum(len(cases) for kind, cases in self.cases.items() if kind.severity == severity)

    def to_json(self) -> list[Tree]:
        """Every kind with all of its cases, as `--json` writes them."""
        return [
            {
                "kind": kind.name,
                "severity": kind.severity,
                "title": kind.title,
                "fix": kind.fix,
                "cases": [
                    {"split": c.split, "file": printable(c.file), "box": c.box or None, "text": printable(c.text)}
                    for c in cases
                ],
            }
            for kind, cases in self.ranked()
        ]


def text_lines(findings: Findings, most: int = 5) -> list[str]:
    """The findings for a terminal: each kind with its count, its first cases, and its fix."""
    lines = []
    for kind, cases in findings.ranked():
        lines.append(f"{kind.severity}: {kind.title} ({plural(len(cases), 'case')})")
        lines += [f"  {describe(case)}" for case in cases[:most]]
        if len(cases) > most:
            lines.append(f"  and {len(cases) - most} more")
        lines.append(f"  fix: {kind.fix}")
    return lines


def describe(case: Case) -> str:
    """`train: IMG_1.jpg, box 3: ...`."""
    where = [printable(case.file.rpartition("/")[2])] * bool(case.file) + [f"box {case.box}"] * bool(case.box)
    front = f"{case.split}: " if case.split else ""
    return f"{front}{', '.join(where)}{': ' if where else ''}{printable(case.text)}"


def verdict(findings: Findings) -> str:
    """`2 errors, 3 warnings, 1 note`."""
    counts = [plural(number, severity) for severity in SEVERITIES if (number := findings.count(severity))]
    return ", ".join(counts) or "nothing odd found"


def corners(values: Sequence[float]) -> Corners:
    """Four numbers as a box."""
    x1, y1, x2, y2 = map(float, values)
    return x1, y1, x2, y2
