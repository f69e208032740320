"""Reading of text in any Unicode encoding, and names for files that are not what a reader expects."""

from __future__ import annotations

import json
import re
from pathlib import Path

from detkit.utils.types import Value

MAGIC = (
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"PK\x03\x04", "a ZIP archive: unpack it"),
    (b"BZh", "a bzip2 archive: unpack it"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x80\x04", "a Python pickle"),
    (b"PAR1", "a Parquet file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"SQLite format 3", "an SQLite database"),
)
XML_ROOTS = {
    "annotation": "a Pascal VOC file; VocDataset reads a folder of them",
    "annotations": "an export of CVAT, which CvatDataset reads",
    "dataset": "a file of dlib's imglab",
    "svg": "a drawing",
    "html": "an HTML page, as after a failed download",
}


def read_text(path: str | Path, problem: str = "not text", encoding: str | None = None) -> str:
    """The text of a file; FileNotFoundError or ValueError that names it and what it is instead.

    encoding: None finds the Unicode encoding; UnicodeError or LookupError for one that does not fit or exist.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path}: {problem}: this is a folder")
    if not Path(path).is_file():
        raise FileNotFoundError(f"annotation file not found: {path}")
    raw = Path(path).read_bytes()
    return decode_text(raw, str(path), problem) if encoding is None else raw.decode(encoding).removeprefix("\ufeff")


def decode_text(raw: bytes, name: str, problem: str = "not text") -> str:
    """Decodes text by its byte order mark, or by its zero bytes; ValueError that names file (`name`), line and byte."""
    encoding, start = json.detect_encoding(raw), f"{name}: " if name else ""
    try:
        return raw.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        known = next((text for mark, text in MAGIC if raw.startswith(mark)), None)
        if known is not None:
            raise ValueError(f"{start}{problem}: this is {known}") from None
        line = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"{start}the file is not in {encoding.removesuffix('-sig').upper()}: line {line} has the byte "
            f"0x{raw[error.start]:02x}, as in files of another encoding (a Windows code page, Latin-1, GBK). "
            "Save it as UTF-8"
        ) from None


def describe_text(text: str) -> str | None:
    """The format of a text that is not JSON, in words; None if it is not known."""
    start = text.lstrip().lower()
    if not start:
        return "empty"
    if start.startswith("version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself: run `git lfs pull`"
    if start.startswith(("<!doctype html", "<html")):
        return "an HTML page, as after a failed download"
    if start.startswith("<"):
        body = re.sub(r"<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>]*>", "", text, flags=re.S)
        root = re.search(r"<([A-Za-z_][\w:.-]*)", body)
        return f"XML ({describe_xml_root(root[1].rpartition(':')[2]) if root else 'without an element'})"
    lines = [line for line in text.splitlines() if line.strip()][:5]
    if lines and all(re.fullmatch(r"\s*\d+(\s+-?[\d.]+([eE]-?\d+)?){4,}\s*", line) for line in lines):
        return "a YOLO label file (class and box in fractions of the image)"
    if len(lines) > 1 and all(line.lstrip().startswith("{") and line.rstrip().endswith("}") for line in lines):
        return "JSON lines, one object on each line, which ListDataset reads if they are images with boxes"
    if lines and lines[0].count(",") >= 3 and not start.startswith(("{", "[")):
        return f"a CSV table (first line: {lines[0][:60]!r}), which CsvDataset reads once `columns` names its columns"
    if re.match(r"[\w .-]+:(\s|$)", lines[0]):
        return "YAML"
    return None


def describe_xml_root(tag: str) -> str:
    """The format that an XML root element belongs to, in words."""
    return f"root <{tag}>" + (f": {XML_ROOTS[tag]}" if tag in XML_ROOTS else "")


def describe_json(content: object) -> str | None:
    """The format of a JSON value that is not a COCO instances file, in words; None if it is not known."""
    if isinstance(content, list):
        return describe_json_list(content)
    if not isinstance(content, dict):
        return f"a single {type(content).__name__}"
    keys = set(content)
    values = [v for v in list(content.values())[:3] if isinstance(v, dict)]
    if "shapes" in keys and keys & {"imagePath", "imageData", "imageHeight"}:
        return "a LabelMe file of one image; LabelMeDataset reads a folder of them"
    if "_via_img_metadata" in keys or (values and all({"filename", "regions"} <= set(v) for v in values)):
        return "a project or export of VGG Image Annotator, which ViaDataset reads"
    if keys >= {"type", "features"}:
        return "GeoJSON"
    if keys & {"openlabel", "vcd"}:
        return "an OpenLABEL file"
    if keys >= {"items", "categories"}:
        return "a data set of Datumaro, which DatumaroDataset reads"
    if "file_name" in keys or "filename" in keys or ("image" in keys and "annotations" in keys):
        return "the annotation of a single image; a COCO instances file lists `images`, `annotations` and `categories`"
    annotations = content.get("annotations")
    first = annotations[:3] if isinstance(annotations, list) else []
    annotation_keys = {key for a in first if isinstance(a, dict) for key in a}
    if "segments_info" in annotation_keys:
        return "a COCO panoptic file, whose annotations have no boxes of their own"
    if "caption" in annotation_keys:
        return "a COCO captions file, which has no boxes"
    return None


def describe_json_list(content: list[object]) -> str:
    """The format of a JSON list, in words."""
    first = content[0] if content else None
    if not isinstance(first, dict):
        return "a list" if content else "an empty list"
    keys = set(first)
    if keys >= {"image_id", "category_id", "score"}:
        return "a list of COCO results (detections with scores), not annotations"
    if keys >= {"image_id", "category_id"}:
        return "the list of annotations alone, without `images` and `categories`"
    if (keys & {"completions", "predictions"} and "data" in keys) or ("annotations" in keys and "data" in keys):
        return "an export of Label Studio, which LabelStudioDataset reads"
    if keys >= {"image", "annotations"}:
        return "a CreateML file, which CreateMlDataset reads"
    if "labels" in keys and "name" in keys:
        return "a file of BDD100K or Scalabel, which ScalabelDataset reads"
    if keys & {"file_name", "filename"}:
        return "a list of images alone"
    return f"a list of objects with the keys {', '.join(sorted(map(str, keys))[:8])}"


def read_json_file(path: str) -> Value:
    """The content of a JSON file; FileNotFoundError or ValueError that names file, line and what it is instead."""
    text = read_text(path, "not JSON")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"{path}: not JSON: its lists are nested too deeply") from None
    except ValueError as error:
        known = describe_text(text)
        if known is None and isinstance(error, json.JSONDecodeError) and not text[error.pos :].strip():
            known = "truncated: it ends before its last bracket"
        raise ValueError(f"{path}: not JSON: {f'the file is {known}' if known else error}") from None
