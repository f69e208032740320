"""The findings as one page that needs no network: it contains its pictures."""

from __future__ import annotations

import html
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from detkit.data.doctor.checks.classes import counts_by_name
from detkit.data.doctor.findings import Case, Findings, Kind, Picture, verdict
from detkit.data.doctor.pictures import data_uri
from detkit.data.doctor.subject import Split, Subject
from detkit.utils.console import bar_stream, plural, printable
from detkit.utils.cores import usable_cores
from detkit.version import __version__
from detkit.visualize.page import filled, write_marked_html

LISTED = 1000
"""Cases of a kind that are listed in words below those with a picture."""


@dataclass(frozen=True)
class Table:
    """A table of the page. rows: texts; the first column is a name."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    text: str = ""


def to_html(subject: Subject, findings: Findings, notes: Sequence[str] = (), tables: Sequence[Table] = ()) -> str:
    """The page. notes: sentences below the heading. tables: more tables than those of splits and classes."""
    sources = files("detkit.data.doctor")
    ranked = findings.ranked()
    slots = {
        "title": escape(f"Check of {subject.place}"),
        "verdict": escape(verdict(findings)),
        "notes": "\n".join(f'<p class="soft">{escape(note)}</p>' for note in notes),
        "contents": "\n".join(map(entry, ranked)),
        "splits": split_table(subject),
        "classes": class_table(subject),
        "tables": "\n".join(map(section_of_table, tables)),
        "findings": "\n".join(sections(subject, ranked)),
        "footer": escape(f"Written by detkit {__version__}."),
        "css": (sources / "page.css").read_text(encoding="utf-8"),
    }
    return filled((sources / "page.html").read_text(encoding="utf-8"), slots)


def write_page(
    path: Path, subject: Subject, findings: Findings, notes: Sequence[str] = (), tables: Sequence[Table] = ()
) -> None:
    """Writes the page, with the mark by which detkit knows it again; its folder is made."""
    write_marked_html(path, to_html(subject, findings, notes, tables))


def escape(text: object) -> str:
    return html.escape(printable(text))


def entry(item: tuple[Kind, list[Case]]) -> str:
    """A kind in the list at the top."""
    kind, cases = item
    title = f'<a href="#{kind.name}">{escape(kind.title)}</a> ({len(cases)})'
    return f'<li class="{kind.severity}"><span class="tag">{kind.severity}</span>{title}</li>'


def rows_to_html(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells are HTML."""
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>\n{body}\n</tbody></table>"


def split_table(subject: Subject) -> str:
    """Images and boxes of each split."""
    head = ["split", "images", "without objects", "boxes", "boxes per image", "unusable boxes", "unusable images"]
    return rows_to_html(head, [[escape(text) for text in split_row(split)] for split in subject])


def split_row(split: Split) -> list[str]:
    images, boxes = len(split.dataset), len(split.objects)
    empty = images - len(np.unique(split.image_of[split.objects]))
    bad = len(split.gathered.scan.bad)
    lost = int((~split.truth.trained).sum())
    return [split.name, str(images), str(empty), str(boxes), f"{boxes / max(images, 1):.1f}", str(lost), str(bad)]


def class_table(subject: Subject) -> str:
    """Boxes of each class in each split, with bars."""
    names, splits = subject.class_names, list(subject)
    counts = np.stack([counts_by_name(split, names) for split in splits], axis=1)
    most = max(int(counts.max(initial=0)), 1)
    order = np.argsort(-counts.sum(axis=1), kind="stable")
    bar = '{}<span class="room"><span class="bar" style="width:{:.1f}px"></span></span>'
    rows = [[escape(names[k]), *(bar.format(n, 80 * n / most) for n in counts[k].tolist())] for k in order.tolist()]
    return rows_to_html(["class", *(escape(f"boxes in {split.name}") for split in splits)], rows)


def section_of_table(table: Table) -> str:
    head, rows = [escape(h) for h in table.head], [[escape(cell) for cell in row] for row in table.rows]
    text = f'<p class="soft">{escape(table.text)}</p>' if table.text else ""
    label = f'tabindex="0" role="region" aria-label="{escape(table.title)}"'
    return f'<h2>{escape(table.title)}</h2>{text}<div class="scroll" {label}>{rows_to_html(head, rows)}</div>'


def sections(subject: Subject, ranked: Sequence[tuple[Kind, list[Case]]]) -> list[str]:
    """A section for each kind; the pictures are made on all cores."""
    from tqdm import tqdm

    pictures = list(
        dict.fromkeys(p for kind, cases in ranked for case in cases[: kind.pictured] for p in case.pictures)
    )
    with ThreadPoolExecutor(usable_cores()) as pool:
        work = pool.map(lambda picture: data_uri(picture, subject), pictures)
        bar = tqdm(work, desc="pictures", total=len(pictures), leave=False, disable=None, file=bar_stream())
        made = dict(zip(pictures, bar, strict=True))
    return [section(kind, cases, made, subject.place) for kind, cases in ranked]


def section(kind: Kind, cases: list[Case], made: dict[Picture, str | None], place: str) -> str:
    shown = "\n".join(case_to_html(case, made, place) for case in cases[: kind.pictured])
    others = cases[kind.pictured :]
    rest, more = others[:LISTED], len(others) - LISTED
    items = "".join(f"<li>{escape(where(case, place))}: {escape(case.text)}</li>" for case in rest)
    items += f"<li>and {more} more</li>" if more > 0 else ""
    details = f"<details><summary>{plural(len(others), 'more case')}</summary><ul>{items}</ul></details>"
    tag = f'<span class="tag {kind.severity}">{kind.severity}</span>'
    pairs = " pairs" if any(len(case.pictures) > 1 for case in cases) else ""
    return (
        f'<section id="{kind.name}"><h2>{tag}{escape(kind.title)} ({len(cases)})</h2>\n'
        f"<p>{escape(kind.fix)}</p>\n"
        f'<div class="cases{pairs}">{shown}</div>{details if rest else ""}</section>'
    )


def where(case: Case, place: str) -> str:
    """Split, file below the place of the data, and box of a case."""
    parts = [case.split, case.file.removeprefix(place.rstrip("/") + "/"), f"box {case.box}" if case.box else ""]
    return ", ".join(part for part in parts if part)


def case_to_html(case: Case, made: dict[Picture, str | None], place: str) -> str:
    shown = [picture for picture in case.pictures if made.get(picture) or picture.caption]
    figures = "".join(figure(picture, made.get(picture)) for picture in shown)
    pictures = f'<div class="pictures">{figures}</div>' if figures else ""
    spot = where(case, place)
    file = f'<p class="file">{escape(spot)}</p>' if spot else ""
    return f'<article class="case"><p>{escape(case.text)}</p>{file}{pictures}</article>'


def figure(picture: Picture, uri: str | None) -> str:
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    name = escape(picture.path.rpartition("/")[2])
    image = f'<img src="{uri}" alt="{name} with its boxes" loading="lazy">' if uri else ""
    return f"<figure>{image}{caption}</figure>"
