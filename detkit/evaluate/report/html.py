"""The report as one page that needs no network: it contains data, pictures, style and script."""

from __future__ import annotations

import html
from importlib.resources import files

from detkit.evaluate.errors import KINDS
from detkit.evaluate.report.words import ERROR_WORDS, METHOD, conclusions, picture_note, subtitle
from detkit.utils.types import Tree
from detkit.version import __version__
from detkit.visualize.page import embedded, filled, shared_source, text


def to_html(found: Tree) -> str:
    """The page. Everything from outside is escaped here, or set as text by the script."""
    sources = files("detkit.evaluate.report")
    slots = {
        "title": text(found["title"]),
        "subtitle": text(subtitle(found)),
        "verdicts": "\n".join(f"<li>{text(line)}</li>" for line in conclusions(found)),
        "pictures": text(picture_note(found)),
        "method": "\n".join(f"<p>{html.escape(line)}</p>" for line in METHOD),
        "footer": html.escape(f"Written by detkit {__version__}."),
        "css": shared_source("report.css") + (sources / "page.css").read_text(encoding="utf-8"),
        "js": shared_source("charts.js") + (sources / "page.js").read_text(encoding="utf-8"),
        "json": embedded(found),
        "names": embedded({"errors": [[kind, ERROR_WORDS[kind]] for kind in KINDS]}),
    }
    return filled((sources / "page.html").read_text(encoding="utf-8"), slots)
