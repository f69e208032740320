"""A page of pictures: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from PIL import Image

from detkit.utils.console import printable
from detkit.utils.outputs import write_bytes
from detkit.utils.types import Tree
from detkit.version import __version__

QUALITY = 85
"""Of the JPEG pictures."""
MARK = re.compile(rb"<!-- written by detkit [^ ]+, sha256 ([0-9a-f]{64}) -->\n\Z")
SLOT = re.compile(r"@([a-z]+)@")
STYLE = """
body { margin: 0 auto; max-width: 1400px; padding: 16px; font: 15px/1.45 system-ui, sans-serif; color: #20242c; }
h1 { font-size: 22px; margin: 0 0 8px; } h2 { font-size: 16px; margin: 28px 0 8px; overflow-wrap: anywhere; }
p { margin: 4px 0; overflow-wrap: anywhere; } .rows { display: flex; flex-wrap: wrap; gap: 12px; }
figure { margin: 0; max-width: 100%; } figure img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: 13px; color: #4a515d; max-width: 400px; overflow-wrap: anywhere; }
pre { overflow-x: auto; font-size: 13px; background: #f4f5f7; padding: 10px; }
"""


@dataclass(frozen=True)
class Figure:
    """A picture with a line of text below it."""

    picture: Image.Image
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A heading with text and pictures that stand side by side where there is room."""

    heading: str
    text: str = ""
    figures: Sequence[Figure] = ()


def write_page(
    path: str | Path, title: str, lines: Sequence[str], sections: Sequence[Section], table: str = ""
) -> None:
    """Writes a page; its folder is made. lines: paragraphs below the title; table: text in columns below them."""
    body = [f"<h1>{text(title)}</h1>", *(f"<p>{text(line)}</p>" for line in lines)]
    body += [f"<pre>{html.escape(table)}</pre>"] * bool(table)
    for section in sections:
        body.append(f"<section><h2>{text(section.heading)}</h2>")
        body += [f"<p>{text(section.text)}</p>"] * bool(section.text)
        body += ['<div class="rows">', *map(figure_tag, section.figures), "</div></section>"]
    head = f"<meta charset=utf-8><meta name=viewport content='width=device-width'><title>{text(title)}</title>"
    page = f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head>\n<body>\n"
    write_marked_html(path, page + "\n".join(body) + "\n</body></html>\n")


def write_marked_html(path: str | Path, html_text: str) -> None:
    """Writes a page with the mark by which `is_page` knows it again; its folder is made."""
    content = html_text.encode("utf-8", "backslashreplace")
    mark = f"<!-- written by detkit {__version__}, sha256 {hashlib.sha256(content).hexdigest()} -->\n".encode()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content + mark)


def is_page(path: Path) -> bool:
    """Whether a file is a page that detkit wrote and nobody changed."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    mark = MARK.search(content)
    return mark is not None and hashlib.sha256(content[: mark.start()]).hexdigest().encode() == mark[1]


def figure_tag(figure: Figure) -> str:
    """The picture as a JPEG inside the page."""
    width, height = figure.picture.size
    image = f'<img width={width} height={height} alt="" src="{jpeg_uri(figure.picture)}">'
    return f"<figure>{image}<figcaption>{text(figure.caption)}</figcaption></figure>"


def text(words: str) -> str:
    """Text as HTML; control characters of file names are escaped."""
    return html.escape(printable(words))


def filled(template: str, slots: Mapping[str, str]) -> str:
    """A page with its slots `@name@` filled, in one pass, so that the name of a slot inside a value stays text."""
    return SLOT.sub(lambda m: slots.get(m[1], m[0]), template)


def shared_source(name: str) -> str:
    """`report.css` or `charts.js`: style and charts of every report."""
    return (files("detkit.visualize") / name).read_text(encoding="utf-8")


def embedded(content: Tree) -> str:
    """JSON for a script element, without a `<` that could end it."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def jpeg_uri(picture: Image.Image, quality: int = QUALITY) -> str:
    """A picture as the address of a JPEG that contains it."""
    jpeg = io.BytesIO()
    picture.convert("RGB").save(jpeg, format="jpeg", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()
