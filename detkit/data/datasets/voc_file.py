"""One annotation file of a Pascal VOC folder."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from detkit.data.datasets.box_checks import CORNERS
from detkit.data.datasets.file_formats import decode_text, describe_json, describe_text, describe_xml_root
from detkit.data.datasets.problems import GUESSED_ENCODING, Problems
from detkit.data.datasets.text_encodings import guess_encoding
from detkit.data.datasets.voc_lists import annotation_files
from detkit.utils.console import shorten_list

KNOWN = {"folder", "filename", "path", "source", "size", "segmented", "owner", "object"}
"""Elements by which an annotation without objects is known as one of VOC."""
SHAPES = {"bndbox", "xmin", "polygon", "robndbox", "box", "points", "bbox"}
"""Elements that hold an object's outline; outside of <object> they show that the file is something else."""
READ = {"name", "bndbox", "difficult", "part"}
"""Elements of an object that are read, or counted by themselves."""
NOTHING = ("", "0", "false", "no", "unspecified")
"""What an element has that says nothing of its object."""
SAMPLED = 200
"""Files that are looked at to guess the encoding of one."""


@dataclass
class VocObject:
    """One <object>: class name, corners as written, whether it is difficult, how many parts it has.

    unread: its other elements that say something, as <truncated>1</truncated>.
    """

    name: str
    box: list[float]
    difficult: bool
    parts: int
    unread: tuple[str, ...] = ()


@dataclass
class VocAnnotation:
    """One annotation file: size (height, width) or (-1, -1), objects, name of the image."""

    size: tuple[int, int]
    objects: list[VocObject]
    filename: str


@dataclass
class XmlReader:
    """Reads annotation files.

    encoding: of those that are neither Unicode nor in the encoding that they declare; None guesses it once, for all of
    them, and counts them in `problems`.
    """

    encoding: str | None
    problems: Problems
    guessed: str | None = None

    def __call__(self, path: Path) -> VocAnnotation:
        """Reads one annotation file; errors name the file and what it is instead."""
        try:
            root = self.parse(path)
            check_root(root)
            objects = [read_object(item, i) for i, item in enumerate(root.iter("object"), start=1)]
            size = root.find("size")
            sides = [number(size.findtext(k), f"size has {k}") for k in ("height", "width")] if size is not None else []
        except (ValueError, OSError) as error:
            why = f"it can't be read: {error.strerror}" if isinstance(error, OSError) else error
            raise ValueError(f"{path}: not a VOC annotation: {why}") from None
        height, width = (int(side) if math.isfinite(side) else -1 for side in sides or (-1.0, -1.0))
        filename = (root.findtext("filename") or "").strip().replace("\\", "/").rpartition("/")[2]
        return VocAnnotation((height, width) if height > 0 and width > 0 else (-1, -1), objects, filename)

    def parse(self, path: Path) -> ElementTree.Element:
        """The root element of a file, whose text may be in an encoding that it does not declare."""
        raw = path.read_bytes()
        try:
            return parse(raw)
        except EncodingError:
            encoding = self.encoding or self.guessed or guess_encoding(sample(path, raw))
            if encoding is None:
                raise
        root = parse_as(raw, encoding)
        if self.encoding is None:
            self.guessed = encoding
            found = {(item.findtext("name") or "").strip() for item in root.iter("object")}
            names = sorted(name for name in found if not name.isascii())
            classes = f", with the class names {shorten_list(names)}" if names else ""
            self.problems.add(GUESSED_ENCODING, f"{path.name}: {encoding}{classes}")
        return root


def sample(path: Path, raw: bytes) -> list[bytes]:
    """The text of a file, and of some beside it that are in its encoding, probably."""
    others = [file for file in annotation_files(path.parent)[:SAMPLED] if file != path]
    return [raw, *(file.read_bytes() for file in others)]


def parse_as(raw: bytes, encoding: str) -> ElementTree.Element:
    """Parses a file in an encoding that it does not declare; ValueError if it can't be in it."""
    try:
        return without_namespace(ElementTree.fromstring(without_declaration(raw.decode(encoding))))
    except LookupError:
        raise ValueError(f"the encoding {encoding!r} is unknown") from None
    except UnicodeDecodeError as error:
        way_out = "Set `encoding` to that of the files, or save them as UTF-8"
        raise ValueError(f"the byte 0x{raw[error.start]:02x} is not in the encoding {encoding!r}. {way_out}") from None
    except ElementTree.ParseError as error:
        raise ValueError(str(error)) from None


def parse(raw: bytes) -> ElementTree.Element:
    """The root element; tags lose their namespace. ValueError for what is not XML, or declares entities.

    `EncodingError` for text that is neither Unicode nor in the encoding that it declares.
    """
    # No encoding that the parser knows hides this word, but for the zero bytes of UTF-16.
    if b"<!ENTITY" in raw.replace(b"\0", b""):
        raise ValueError("its DOCTYPE declares entities, which are not expanded: remove them")
    try:
        return without_namespace(ElementTree.fromstring(raw))
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        return without_namespace(parse_text(raw, error))


def without_namespace(root: ElementTree.Element) -> ElementTree.Element:
    """The element, in which no tag has a namespace."""
    for element in root.iter():
        if isinstance(element.tag, str):
            element.tag = element.tag.rpartition("}")[2]
    return root


def without_declaration(text: str) -> str:
    """A text without <?xml ...?> and byte order mark, as the parser takes it."""
    return re.sub(r"^\s*<\?xml.*?\?>", "", text.lstrip("\ufeff"), flags=re.S)


class EncodingError(ValueError):
    """A text is neither Unicode nor in the encoding that it declares."""


def parse_text(raw: bytes, error: Exception) -> ElementTree.Element:
    """Parses as text what the parser refused as bytes because of its encoding; ValueError with the reason."""
    declared = re.match(rb"""\s*<\?xml[^>]*?encoding\s*=\s*["']([\w.:-]+)["'][^>]*\?>""", raw)
    name = declared.group(1).decode() if declared else None
    text = decode_declared(raw, name)
    if not text.lstrip("\ufeff \r\n\t").startswith("<"):
        raise ValueError(f"the file is {describe_non_xml(text)}")
    try:
        return ElementTree.fromstring(without_declaration(text))
    except ElementTree.ParseError as again:
        cut = "no element found" in str(again) or again.position[0] >= text.rstrip().count("\n") + 1
        page = describe_text(text) if text.lstrip().lower().startswith(("<!doctype html", "<html")) else None
        hint = f" (the file is {page})" if page else " (cut off?)" if cut else ""
        raise ValueError(f"{again if name is None else error}{hint}") from None


def decode_declared(raw: bytes, name: str | None) -> str:
    """Decodes a text in the encoding that it declares, else as Unicode; EncodingError with the reason."""
    try:
        if name is None or json.detect_encoding(raw) != "utf-8":
            return decode_text(raw, "")
        return raw.decode(name)
    except LookupError:
        raise EncodingError(f"it declares the encoding {name!r}, which is unknown: save it as UTF-8") from None
    except UnicodeDecodeError as wrong:
        raise EncodingError(
            f"it declares the encoding {name!r}, but has the byte 0x{raw[wrong.start]:02x}, which that encoding "
            "lacks: save it as UTF-8"
        ) from None
    except ValueError as wrong:
        raise EncodingError(str(wrong)) from None


def describe_non_xml(text: str) -> str:
    """What a text that is not XML is, in words."""
    if text.lstrip().startswith(("{", "[")):
        try:
            return f"JSON: {describe_json(json.loads(text)) or 'of an unknown kind'}"
        except ValueError:
            return "JSON, or the beginning of it"
    return describe_text(text) or f"not XML (it begins with {text.strip()[:40]!r})"


def check_root(root: ElementTree.Element) -> None:
    """Raises ValueError unless the elements are VOC's, so that no unknown file counts as one without objects."""
    if root.tag != "annotation":
        raise ValueError(f"{describe_xml_root(root.tag)}; the root of a VOC annotation is <annotation>")
    tags = {child.tag for child in root}
    if not tags & KNOWN:
        content = f"it has only {shorten_list(sorted(f'<{t}>' for t in tags))}" if tags else "it is empty"
        raise ValueError(f"{content}; expected elements such as {shorten_list(sorted(f'<{t}>' for t in KNOWN))}")
    inside = {id(e) for item in root.iter("object") for e in item.iter()}
    stray = sorted({e.tag for e in root.iter() if e.tag in SHAPES and id(e) not in inside})
    if stray:
        found = shorten_list([f"<{t}>" for t in stray])
        raise ValueError(f"{found} is outside of <object>, where VOC has no such element")


def read_object(item: ElementTree.Element, position: int) -> VocObject:
    """Reads one <object>; ValueError that names it and what it lacks."""
    name = (item.findtext("name") or "").strip()
    if not name:
        raise ValueError(f"object {position} has no name")
    where = f"object {position} ({name})"
    for tag in ("name", "bndbox"):
        if (count := len(item.findall(tag))) > 1:
            raise ValueError(f"{where}: {count} <{tag}> elements; each box must have its own <object>")
    box = item.find("bndbox")
    if box is None:
        shapes = sorted(f"<{child.tag}>" for child in item if child.tag in SHAPES)
        hint = f" but {shorten_list(shapes)}: export the set with boxes" if shapes else ""
        raise ValueError(f"{where}: no bndbox{hint}")
    texts = {key: box.findtext(key) for key in CORNERS}
    missing = [key for key, text in texts.items() if not (text or "").strip()]
    if missing:
        raise ValueError(f"{where}: bndbox has no {shorten_list(missing)}")
    return VocObject(
        name=name,
        box=[number(text, f"{where} has {key}") for key, text in texts.items()],
        difficult=(item.findtext("difficult") or "0").strip().lower() in ("1", "true", "yes"),
        parts=len(item.findall("part")),
        unread=tuple(child.tag for child in item if child.tag not in READ and says_something(child)),
    )


def says_something(element: ElementTree.Element) -> bool:
    """Whether a text of an element is another one than tools write where they know nothing."""
    return any(text.strip().lower() not in NOTHING for text in element.itertext())


def number(text: str | None, what: str) -> float:
    """The number in a text, -1 in an empty one; ValueError that says what it should be."""
    if not (text or "").strip():
        return -1.0
    try:
        return float(text or "")
    except ValueError:
        raise ValueError(f"{what} {text!r}, not a number") from None
