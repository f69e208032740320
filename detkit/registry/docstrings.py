"""The docstring of a part or options class as data: summary, text, a meaning for each argument, papers and units.

The form is that of docs/style.md: a first paragraph that says what the thing is, further paragraphs, and under `Args:`
a line `name: meaning` for each argument of the constructor. Papers are arXiv numbers, in brackets as in
`(1708.02002, equation 5)` or in a paragraph `Source: 1708.02002, equation 5.` A unit stands first in a meaning
("seconds without progress ...") or after a comma ("side of a box, pixels", "side, in cells").
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

SECTION = re.compile(r"^(\w[\w ]*):\s*$")
ARGUMENT = re.compile(r"^( +)\*{0,2}(\w+)(?: *\([^)]*\))?: *(.*)$")
SOURCE = "Source: "
ARGS = ("Args", "Arguments", "Parameters")
PLACES = r"(?:sections?|equations?|eqs?\.|algorithms?|tables?|figures?|footnotes?|appendix)"
PAPER = re.compile(
    rf"\b(\d\d(?:0[1-9]|1[0-2])\.\d{{4,5}})\b(?:,\s((?:{PLACES})\s[^();:]*?(?=[();:]|\.\s|\.?$)))?", re.DOTALL
)
UNITS = "|".join((
    "square pixels", "megapixels", "pixels per cell", "pixels", "seconds", "minutes", "optimizer steps", "steps",
    "epochs", "images", "cells", "strides", "degrees", "bytes",
))  # fmt: skip
UNIT = re.compile(
    rf"^({UNITS})(?=[,;.]|$| (?:of|between|without|after|before|above|below|until)\b)|, (?:in )?({UNITS})(?=[,;.)]|$)"
)


@dataclass(frozen=True)
class Paper:
    """A paper on arXiv, and where in it to look."""

    number: str
    place: str = ""

    @property
    def url(self) -> str:
        return f"https://arxiv.org/abs/{self.number}"

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.number, self.place)))


@dataclass(frozen=True)
class Docstring:
    """summary: the first paragraph, in one line. paragraphs: the others. arguments: name -> meaning, in one line.

    source: the paragraph `Source: ...`, where papers have no place in a sentence.
    """

    summary: str = ""
    paragraphs: tuple[str, ...] = ()
    arguments: dict[str, str] = field(default_factory=dict)
    source: str = ""

    @property
    def papers(self) -> tuple[Paper, ...]:
        """Papers that the docstring names, those of its arguments left out; each place once."""
        return papers(" ".join((self.summary, *self.paragraphs, self.source)))


def docstring_of(cls: type) -> Docstring:
    """The docstring of a class; an argument that it does not explain has the meaning that a base class gives it.

    A class without a docstring of its own has an empty one, with the meanings of its bases.
    """
    arguments: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        arguments |= _own_docstring(base).arguments
    own = _own_docstring(cls)
    return replace(own, arguments=arguments)


def _own_docstring(cls: type) -> Docstring:
    text = vars(cls).get("__doc__") or ""
    return parse_docstring("" if text.startswith(f"{cls.__name__}(") else text)  # what dataclass writes


def parse_docstring(text: str) -> Docstring:
    """A docstring in Google's form; sections but the one of arguments are left out."""
    sections = dict(_sections(inspect.cleandoc(text)))
    summary, *paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", sections[""])]
    arguments = next((sections[name] for name in ARGS if name in sections), "")
    source = " ".join(part for part in paragraphs if part.startswith(SOURCE))
    texts = tuple(part for part in paragraphs if part and not part.startswith(SOURCE))
    return Docstring(summary, texts, dict(_arguments(arguments)), source)


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """Title and text of each section; the text before the first one has no title."""
    title = ""
    lines: list[str] = []
    source = text.splitlines() or [""]
    for line, below in zip(source, [*source[1:], ""], strict=True):
        heading = SECTION.match(line)
        if heading and below.startswith(" "):
            yield title, "\n".join(lines)
            title, lines = heading[1], []
        elif title and line and not line.startswith(" "):  # text below a section
            yield title, "\n".join(lines)
            title, lines = f"after {title}", [line]
        else:
            lines.append(line)
    yield title, "\n".join(lines)


def _arguments(text: str) -> Iterator[tuple[str, str]]:
    """Name and meaning of each argument; a line that is indented further goes on with the one above."""
    name, indent = "", None
    words: list[str] = []
    for line in text.splitlines():
        start = ARGUMENT.match(line)
        if start and (indent is None or len(start[1]) == indent):
            if name:
                yield name, " ".join(words)
            indent, name, words = len(start[1]), start[2], start[3].split()
        else:
            words += line.split()
    if name:
        yield name, " ".join(words)


def papers(text: str) -> tuple[Paper, ...]:
    """The papers that a text names, in order, each place once."""
    named = [Paper(m[1], " ".join((m[2] or "").split())) for m in PAPER.finditer(text)]
    return tuple(dict.fromkeys(named))


def unit(meaning: str) -> str:
    """The unit that a meaning names; empty if it names none."""
    match = UNIT.search(meaning)
    return match[1] or match[2] if match else ""
