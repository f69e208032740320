"""Bad inputs: files of every format, and images, as broken tools, wrong settings and attackers make them.

    python tests/data/hostile.py FOLDER

writes them all below a folder. `tests/data/test_hostile.py` holds what detkit says of each. A case is a folder of files
and the config node that reads it; without a node, detkit looks for the format itself.
"""

from __future__ import annotations

import io
import json
import struct
import sys
import traceback
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

import detkit

Node = dict[str, Any]
PACKAGE = Path(detkit.__file__).parent
OWN_WORDS = (ValueError, FileNotFoundError)


def encoded(kind: str = "JPEG", size: tuple[int, int] = (100, 50), mode: str = "RGB", **more: Any) -> bytes:
    """A plain image as a file's bytes."""
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, kind, **more)
    return buffer.getvalue()


JPEG = encoded()
YAML = "train: images\nnames: [cat, dog]\n"
BOX = "0 0.5 0.5 0.2 0.4\n"
PLAIN = "filename,class,xmin,ymin,xmax,ymax\n"
HEADER = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
ROW = "a.jpg,100,50,cat,41,16,60,35\n"
YOLO: Node = {"type": "YoloDataset", "data": "data.yaml", "split": "train"}
CSV: Node = {"type": "CsvDataset", "annotations": "a.csv", "images": "images"}
COCO: Node = {"type": "CocoDataset", "annotations": "a.json", "images": "images"}
VOC: Node = {"type": "VocDataset", "root": ".", "split": "train"}


@dataclass(frozen=True)
class Case:
    """One bad input. files: path -> content. node: what reads them; None lets detkit look."""

    name: str
    files: Mapping[str, str | bytes]
    node: Node | None
    links: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> Node | None:
        """Writes the files; returns the node with paths below the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for path, content in self.files.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        for path, target in self.links.items():
            (folder / path).symlink_to(target)
        return None if self.node is None else {key: rooted(key, value, folder) for key, value in self.node.items()}


def rooted(key: str, value: Any, folder: Path) -> Any:
    """A path of a node below the folder; any other value as it is."""
    return str(folder / value) if key in ("data", "annotations", "images", "root", "classes") else value


def yolo(name: str, label: str | bytes = BOX, yaml: str | bytes = YAML, **more: str | bytes) -> Case:
    files = {"images/a.jpg": JPEG, "labels/a.txt": label, "data.yaml": yaml, **renamed(more)}
    return Case(f"yolo: {name}", files, YOLO)


def csv(name: str, text: str | bytes, node: Node | None = None) -> Case:
    return Case(f"csv: {name}", {"images/a.jpg": JPEG, "a.csv": text}, {**CSV, **(node or {})})


def coco(name: str, content: object = None, **changes: Any) -> Case:
    """content: of the file; None is a good one with `changes`; `image`, `box` and `category` change one entry."""
    if content is None:
        content = coco_content(**changes)
    text = content if isinstance(content, (str, bytes)) else json.dumps(content)
    return Case(f"coco: {name}", {"images/a.jpg": JPEG, "a.json": text}, COCO)


def coco_content(
    image: Mapping[str, object] | None = None, box: Mapping[str, object] | None = None,
    category: Mapping[str, object] | None = None, **parts: object,
) -> dict[str, object]:  # fmt: skip
    """A small COCO file; a value of `...` removes the key."""
    entries: dict[str, object] = {
        "images": [changed({"id": 1, "file_name": "a.jpg", "width": 100, "height": 50}, image)],
        "annotations": [changed({"id": 1, "image_id": 1, "category_id": 1, "bbox": [40, 15, 20, 20]}, box)],
        "categories": [changed({"id": 1, "name": "cat"}, category)],
    }
    return changed(entries, parts)


def changed(entry: Mapping[str, object], changes: Mapping[str, object] | None) -> dict[str, object]:
    """An entry with changes; `...` removes a key."""
    return {key: value for key, value in {**entry, **(changes or {})}.items() if value is not ...}


SIZE = "<size><width>100</width><height>50</height></size>"


def xml(objects: str = "", size: str = SIZE) -> str:
    return f"<annotation><filename>a.jpg</filename>{size}{objects}</annotation>"


def item(box: str = "41 16 60 35", name: str = "cat", more: str = "") -> str:
    corners = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=False)
    )
    return f"<object><name>{name}</name>{more}<bndbox>{corners}</bndbox></object>"


def voc(name: str, text: str | bytes, listed: str | bytes = "a\n", **more: str | bytes) -> Case:
    files = {"JPEGImages/a.jpg": JPEG, "Annotations/a.xml": text, "ImageSets/Main/train.txt": listed, **renamed(more)}
    return Case(f"voc: {name}", files, VOC)


def image(name: str, content: bytes, file: str = "a.jpg") -> Case:
    """A bad image with a good annotation, whose size is not stated."""
    text = json.dumps(coco_content(image={"file_name": file, "width": ..., "height": ...}))
    return Case(f"image: {name}", {f"images/{file}": content, "a.json": text}, COCO)


def found(name: str, files: Mapping[str, str | bytes], **links: str) -> Case:
    return Case(f"find: {name}", files, None, links)


def renamed(files: Mapping[str, str | bytes]) -> dict[str, str | bytes]:
    """Paths as Python names: `images__b_jpg` is images/b.jpg."""
    return {key.replace("__", "/").replace("_", "."): value for key, value in files.items()}


def png(width: int, height: int, *, data: bytes = b"", chunks: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """A PNG whose header may lie."""
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), *chunks, (b"IDAT", zlib.compress(data))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in [*parts, (b"IEND", b"")])


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 50\n%%EndComments\n"
BMP = b"BM" + struct.pack("<IIIIii", 60, 0, 54, 40, 2**30, 2**30) + b"\1\0\x18" + b"\0" * 25
"""Of 2^60 pixels, by its header."""
LAUGHS = '<!DOCTYPE a [<!ENTITY l0 "ha">' + "".join(
    f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10)
) + "]>"  # fmt: skip
YAML_LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def check_words(error: Exception) -> None:
    """The error is one of detkit's, raised in detkit: no traceback from inside a library."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    if last.filename.endswith("registry.py") and isinstance(error.__cause__, Exception):
        return check_words(error.__cause__)  # which the registry prefixes with the name of the part
    text = f"{type(error).__name__} from {last.filename}:{last.lineno}: {error}"
    assert type(error) in OWN_WORDS or type(error).__module__.startswith("detkit."), text
    assert Path(last.filename).is_relative_to(PACKAGE), text
    assert len(str(error)) < 8000, f"{len(str(error))} characters"


YOLO_CASES = [
    yolo("a comma alone", ",\n"),
    yolo("no objects in an empty file", ""),
    yolo("a name instead of a class", "cat 0.5 0.5 0.2 0.4"),
    yolo("a class below zero", "-1 0.5 0.5 0.2 0.4"),
    yolo("a class that is not whole", "0.5 0.5 0.5 0.2 0.4"),
    yolo("a class as 1.0", "1.0 0.5 0.5 0.2 0.4"),
    yolo("a class without a name", f"{BOX}7 0.5 0.5 0.2 0.4"),
    yolo("classes from one", "1 0.5 0.5 0.2 0.4\n2 0.5 0.5 0.2 0.4"),
    yolo("an endless class", "9" * 5000 + " 0.5 0.5 0.2 0.4"),
    yolo("pixels", "0 50 25 20 20"),
    yolo("one box in pixels among others", f"{BOX * 3}0 50 25 20 20"),
    yolo("four numbers", "0 0.5 0.5 0.2"),
    yolo("a confidence", "0 0.5 0.5 0.2 0.4 0.9"),
    yolo("half a point", "0 0.1 0.1 0.3 0.1 0.3 0.4 0.2"),
    yolo("a polygon that is cut off", "0 0.1 0.1 0.3 0.1 0.3 0.4\n0 0.1 0.1 0.3 0.1 0.3"),
    yolo("a polygon with nan", "0 0.1 0.1 nan 0.1 0.3 0.4"),
    yolo("nan and inf", "0 nan 0.5 0.2 0.4\n0 0.5 inf 0.2 0.4\n" + BOX),
    yolo("no area and a negative width", f"0 0.5 0.5 0 0.4\n0 0.5 0.5 -0.2 0.4\n{BOX}"),
    yolo("outside of the image", f"0 1.5 0.5 0.2 0.4\n{BOX}"),
    yolo("over the edge", "0 0.95 0.5 0.2 0.4"),
    yolo("commas", "0,0.5,0.5,0.2,0.4"),
    yolo("decimal commas", "0 0,5 0,5 0,2 0,4"),
    yolo("decimal commas and separating ones", "0,0,5,0,5,0,2,0,4"),
    yolo("underscores", "0 0.5 0.5 0.2 0_4"),
    yolo("hexadecimal", "0 0x1 0.5 0.2 0.4"),
    yolo("digits of another script", "0 \u0660.\u0665 0.5 0.2 0.4"),
    yolo("the same line twice", BOX * 2),
    yolo("UTF-16", BOX.encode("utf-16")),
    yolo("zero bytes", b"0 0.5 0.5 0.2 0.4\n\0\0\0\0"),
    yolo("not text", b"\xff\xfe\xfa\x80 1"),
    yolo("an image", JPEG),
    yolo("JSON", '{"shapes": [], "imagePath": "a.jpg"}'),
    yolo("a page of HTML", "<!DOCTYPE html><html></html>"),
    yolo("a pointer of Git LFS", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    yolo("one endless line", "0 " + "0.5 " * 200_001),
    yolo("data.yaml is empty", yaml=""),
    yolo("data.yaml is a list", yaml="- a\n"),
    yolo("data.yaml is not YAML", yaml="train: [\n"),
    yolo("data.yaml has control characters", yaml=b"train: images\x07\nnames: [cat]"),
    yolo("data.yaml in another encoding", yaml="train: images\nnames: [Größe]".encode("cp1252")),
    yolo("data.yaml executes", yaml="train: images\nnames: !!python/object/apply:os.system ['touch hacked']\n"),
    yolo("data.yaml expands", yaml=YAML_LAUGHS + "train: images\nnames: *i\n"),
    yolo("data.yaml is nested", yaml="train: images\nnames: " + "[" * 3000),
    yolo("a key twice", yaml=YAML + "names: [dog, cat]\n"),
    yolo("a class number twice", yaml="train: images\nnames: {0: cat, 0: dog}\n"),
    yolo("nc contradicts names", yaml=YAML + "nc: 3\n"),
    yolo("names twice", yaml="train: images\nnames: [cat, cat]\n"),
    yolo("names of YAML's own", yaml="train: images\nnames: [no, null]\n"),
    yolo("no names", yaml="train: images\n"),
    yolo("no split", yaml="names: [cat]\n"),
    yolo("the split is empty", yaml="train: ''\nval: images\nnames: [cat]\n"),
    yolo("the split is a map", yaml="train: {a: images}\nnames: [cat]\n"),
    yolo("no folder", yaml="train: pictures\nnames: [cat]\n"),
    yolo("the path of another machine", yaml="path: /home/bob/set\ntrain: /home/bob/set/images\nnames: [cat]\n"),
    yolo("the folder is a file of images", yaml="train: images/a.jpg\nnames: [cat]\n"),
    yolo("a list that is binary", yaml="train: list.txt\nnames: [cat]\n", list_txt=b"\x00\x01\x02\n"),
    yolo("a list of images that are not there", yaml="train: list.txt\nnames: [cat]\n", list_txt="images/b.jpg\n"),
    yolo("a list with an endless name", yaml="train: list.txt\nnames: [cat]\n", list_txt="a" * 5000 + ".jpg\n"),
    yolo("an image twice in a list", yaml="train: list.txt\nnames: [cat]\n", list_txt="images/a.jpg\n" * 2),
    yolo("a label file of two images", images__a_png=encoded("PNG")),
    yolo("a label file without image", labels__b_txt=BOX),
    Case("yolo: no label file at all", {"images/a.jpg": JPEG, "data.yaml": YAML}, YOLO),
    Case("yolo: a folder for labels", {"images/a.jpg": JPEG, "data.yaml": YAML, "labels/a.txt/b": ""}, YOLO),
    yolo("an image that is none", images__a_jpg=b"nothing"),
]  # fmt: skip
CSV_CASES = [
    csv("five separators of ASCII, then no table", "\x1e" * 6 + "?"),
    csv("empty", ""),
    csv("a header alone", HEADER),
    csv("no header that is known", "a,b,c\n1,2,3\n"),
    csv("rows of nothing", HEADER + "a.jpg,100,50,,,,,\n"),
    csv("too few columns", HEADER + "a.jpg,100,50,cat,41,16\n"),
    csv("too many columns", HEADER + "a.jpg,100,50,cat, big,41,16,60,35\n"),
    csv("a number is missing", HEADER + "a.jpg,100,50,cat,41,16,60,\n"),
    csv("the class is missing", HEADER + "a.jpg,100,50,,41,16,60,35\n"),
    csv("the box is missing", HEADER + "a.jpg,100,50,cat,,,,\n"),
    csv("the image is missing", HEADER + ",100,50,cat,41,16,60,35\n"),
    csv("an O for a zero", HEADER + "a.jpg,100,50,cat,4O,16,60,35\n"),
    csv("nan and inf", HEADER + ROW + "a.jpg,100,50,cat,nan,16,60,inf\n"),
    csv("corners in the wrong order", HEADER + ROW + "a.jpg,100,50,cat,60,16,41,35\n"),
    csv("outside of the image", HEADER + ROW + "a.jpg,100,50,cat,400,16,500,35\n"),
    csv("a huge number", HEADER + ROW + "a.jpg,100,50,cat,1,1,1e300,35\n"),
    csv("a size of zero", HEADER + "a.jpg,0,0,cat,41,16,60,35\n"),
    csv("two sizes of an image", HEADER + ROW + "a.jpg,50,100,cat,41,16,60,35\n"),
    csv("a size that is not the image's", HEADER + "a.jpg,50,100,cat,1,16,20,35\n"),
    csv("boxes that count from zero", HEADER + "a.jpg,100,50,cat,0,0,60,35\n"),
    csv("fractions", PLAIN + "a.jpg,cat,0.4,0.3,0.6,0.7\n"),
    csv("fractions that are said to be pixels", PLAIN + "a.jpg,cat,0.4,0.3,0.6,0.7\n", {"fractions": False}),
    csv("decimal commas", "filename;class;xmin;ymin;xmax;ymax\na.jpg;cat;40,5;15;60;35\n"),
    csv("thousands of Europe", "filename;class;xmin;ymin;xmax;ymax\na.jpg;cat;1.040,5;15;60;35\n"),
    csv("x and y of what", "filename,x,y,width,height,class\na.jpg,40,15,20,20,cat\n"),
    csv("a box of three numbers", 'image_id,bbox,class\na,"[1,2,3]",cat\n', {"box_format": "xywh"}),
    csv("a box of texts", 'image_id,bbox,class\na,"[a,b,c,d]",cat\n', {"box_format": "xywh"}),
    csv("a column twice", "filename,class,class,xmin,ymin,xmax,ymax\na.jpg,cat,dog,41,16,60,35\n"),
    csv("an open quote", HEADER + '"a.jpg,100,50,cat,41,16,60,35\n'),
    csv("a quote inside", HEADER + '"a".jpg,100,50,cat,41,16,60,35\n'),
    csv("an endless cell", HEADER + "a" * 200_000 + ",100,50,cat,41,16,60,35\n"),
    csv("a zero byte", HEADER + "a\0.jpg,100,50,cat,41,16,60,35\n"),
    csv("another encoding", HEADER.encode() + "a.jpg,100,50,Größe,41,16,60,35\n".encode("cp1252")),
    csv("UTF-16", (HEADER + ROW).encode("utf-16")),
    csv("a workbook", b"PK\x03\x04\xff\xfe\x00"),
    csv("JSON", '{"images": []}'),
    csv("XML", "<annotation/>"),
    csv("an image that is not there", HEADER + "b.jpg,100,50,cat,41,16,60,35\n"),
    csv("a path that leads out", HEADER + "../../passwd,100,50,cat,41,16,60,35\n"),
    csv("a formula", HEADER + "=cmd|'/c calc'!A1,100,50,cat,41,16,60,35\n"),
    csv("a row twice", HEADER + ROW * 2),
    csv("classes that differ in case", HEADER + ROW + "a.jpg,100,50,Cat,1,1,20,20\n"),
    csv("classes that are not there", HEADER + "a.jpg,100,50,3,41,16,60,35\n", {"classes": "classes.csv"}),
]  # fmt: skip
COCO_CASES = [
    coco("five blank lines, then no JSON", "\n\n\n\n\n?"),
    coco("empty", ""),
    coco("null", "null"),
    coco("a list", "[]"),
    coco("cut off", json.dumps(coco_content())[:80]),
    coco("nested", "[" * 100_000),
    coco("an endless number", json.dumps(coco_content(image={"id": 77})).replace("77", "9" * 5000)),
    coco("no categories", categories=[]),
    coco("images is a map", images={"1": "a.jpg"}),
    coco("an image is a text", images=["a.jpg"]),
    coco("an image without name", image={"file_name": ...}),
    coco("a name with a zero byte", image={"file_name": "a\0.jpg"}),
    coco("a name that is a lone surrogate", image={"file_name": "\ud800.jpg"}),
    coco("an id that is a list", image={"id": [1]}),
    coco("an id that is true", image={"id": True}),
    coco("an id twice", images=[{"id": 1, "file_name": "a.jpg"}, {"id": "1", "file_name": "b.jpg"}]),
    coco("one file under two ids", images=[{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "./a.jpg"}]),
    coco("an unknown image", box={"image_id": 2}),
    coco("an unknown class", box={"category_id": 2}),
    coco("no box", box={"bbox": ...}),
    coco("a box of three numbers", box={"bbox": [1, 2, 3]}),
    coco("a box of texts", box={"bbox": ["a", "b", "c", "d"]}),
    coco("a box of null", box={"bbox": [1, 2, None, 3]}),
    coco("a box of NaN", json.dumps(coco_content(box={"bbox": [1, 2, float("nan"), 3]}))),
    coco("a huge box", box={"bbox": [1, 2, 1e300, 3]}),
    coco("a box without area", box={"bbox": [1, 2, 0, 3]}),
    coco("a negative width", box={"bbox": [40, 15, -20, 20]}),
    coco("corners instead of sizes", box={"bbox": [70, 30, 95, 45]}),
    coco("fractions", box={"bbox": [0.4, 0.3, 0.2, 0.4]}),
    coco("a size of zero", image={"width": 0, "height": 0}),
    coco("a size that is a text", image={"width": "wide"}),
    coco("a size below zero", image={"width": -100}),
    coco("a size of a million terapixels", image={"width": 10**18}),
    coco("a name twice", categories=[{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}]),
    coco("a class with two names", categories=[{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}]),
    coco("a class that is empty", category={"name": " "}),
    coco("crowd of maybe", box={"iscrowd": "maybe"}),
    coco("an area of a text", box={"area": "large"}),
    coco("results", [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]),
    coco("another encoding", json.dumps(coco_content(category={"name": "G0"})).encode().replace(b"G0", b"Gr\xf6\xdfe")),
    coco("a path that leads out", image={"file_name": "../../passwd"}),
    coco("an image that is not there", image={"file_name": "b.jpg"}),
]  # fmt: skip
VOC_CASES = [
    voc("empty", ""),
    voc("cut off", xml(item())[:60]),
    voc("billion laughs", LAUGHS.replace("DOCTYPE a", "DOCTYPE annotation") + xml(item(name="&l9;"))),
    voc("an external entity", '<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/hosts">]>' + xml(item(name="&x;"))),
    voc("an unknown entity", xml(item(name="&cat;"))),
    voc("nested", "<annotation>" + "<a>" * 20_000),
    voc("another root", "<annotations><image/></annotations>"),
    voc("no known element", "<annotation><a/></annotation>"),
    voc("a box outside of an object", xml("<bndbox><xmin>1</xmin></bndbox>")),
    voc("no name", xml(item(name=" "))),
    voc("no box", xml("<object><name>cat</name></object>")),
    voc("a polygon", xml("<object><name>cat</name><polygon><x1>1</x1></polygon></object>")),
    voc("two boxes", xml(item(more="<bndbox><xmin>1</xmin></bndbox>"))),
    voc("two names", xml(item(more="<name>dog</name>"))),
    voc("a corner is missing", xml(item("41 16 60"))),
    voc("a corner is a text", xml(item("41 16 60 x"))),
    voc("nan", xml(item("41 16 nan 35") + item())),
    voc("no area", xml(item("41 16 41 35") + item())),
    voc("corners in the wrong order", xml(item("60 16 41 35") + item())),
    voc("outside of the image", xml(item("400 16 500 35") + item())),
    voc("fractions", xml(item("0.4 0.3 0.6 0.7"))),
    voc("boxes that count from zero", xml(item("0 0 60 35"))),
    voc("a size of zero", xml(item(), SIZE.replace("100", "0").replace("50", "0"))),
    voc("a size that is a text", xml(item(), SIZE.replace("100", "x"))),
    voc("a size that is not the image's", xml(item("1 16 20 35"), SIZE.replace("100", "50"))),
    voc("an encoding that is unknown", '<?xml version="1.0" encoding="klingon"?>' + xml(item())),
    voc("an encoding that is not declared", xml(item(name="Größe")).encode("cp1252")),
    voc("another encoding than declared", ('<?xml version="1.0" encoding="ascii"?>' + xml(item(name="é"))).encode()),
    voc("zero bytes", xml(item()).encode() + b"\0\0\0"),
    voc("JSON", '{"shapes": []}'),
    voc("an image", JPEG),
    voc("the list is empty", xml(item()), ""),
    voc("the list names what is not there", xml(item()), "a\nb\n"),
    voc("the list has a name twice", xml(item()), "a\na\n"),
    voc("a list that leads out", xml(item()), "../../../../etc/passwd\n"),
    voc("the image is not there", xml(item()), "b\n", Annotations__b_xml=xml(item())),
    voc("no objects at all", xml()),
]  # fmt: skip
IMAGE_CASES = [
    image("empty", b""),
    image("text", b"hello"),
    image("a page of HTML", b"<!DOCTYPE html><html></html>"),
    image("a pointer of Git LFS", b"version https://git-lfs.github.com/spec/v1\n"),
    image("a JPEG that is cut off", encoded(size=(300, 300), quality=95)[:900]),
    image("a JPEG of its head", JPEG[:20]),
    image("a PNG that is cut off", encoded("PNG", (300, 300))[:60]),
    image("a PNG bomb", png(100_000, 100_000)),
    image("a PNG bomb with late EXIF", png(60_000, 60_000, chunks=((b"tEXt", b"a\0b"),))),
    image("a PNG without pixels", png(100, 50)),
    image("a PNG of no size", png(0, 0)),
    image("a PNG with a wrong sum", png(100, 50)[:-20] + b"\0" * 20),
    image("floating point", encoded("TIFF", mode="F"), "a.tif"),
    image("an EPS, which starts a program", EPS, "a.eps"),
    image("an EPS under another name", EPS),
    image("a GIF of its head", b"GIF89a\x64\x00\x32\x00\xf0\x00\x00"),
    image("a BMP that lies", BMP, "a.bmp"),
    image("a TIFF that loops", b"II*\x00\x08\x00\x00\x00\x00\x00\x08\x00\x00\x00", "a.tif"),
    image("a PNG under another name", encoded("PNG")),
    image("EXIF that is broken", JPEG[:2] + b"\xff\xe1\x00\x10Exif\x00\x00II*\x00\xff\xff\xff\xff" + JPEG[2:]),
]  # fmt: skip
SHAPE = {"label": "cat", "points": [[40, 15], [60, 35]], "shape_type": "rectangle"}
PICTURE = {"file_name": "a.jpg", "width": 100, "height": 50, "boxes": [[40, 15, 60, 35]], "labels": [0]}
CVAT_BOX = '<box label="cat" xtl="40" ytl="15" xbr="60" ybr="35"/>'


def tool(part: str, name: str, content: object) -> Case:
    """A file of a labelling tool."""
    text = content if isinstance(content, (str, bytes)) else json.dumps(content)
    return Case(f"{part}: {name}", {"images/a.jpg": JPEG, "a.json": text}, {**COCO, "type": part})


def labelme(name: str, content: object = None, **changes: object) -> Case:
    entry = changed({"imagePath": "a.jpg", "imageWidth": 100, "imageHeight": 50, "shapes": [SHAPE]}, changes)
    text: str | bytes = content if isinstance(content, (str, bytes)) else json.dumps(entry)
    return Case(f"labelme: {name}", {"a.jpg": JPEG, "a.json": text}, {"type": "LabelMeDataset", "root": "."})


def cvat(name: str, inside: str = CVAT_BOX, *, text: str | None = None) -> Case:
    head = '<annotations><version>1.1</version><image id="0" name="a.jpg" width="100" height="50">'
    files: dict[str, str | bytes] = {"images/a.jpg": JPEG, "a.xml": text or f"{head}{inside}</image></annotations>"}
    return Case(f"cvat: {name}", files, {"type": "CvatDataset", "annotations": "a.xml", "images": "images"})


def listed(name: str, **changes: object) -> Case:
    return tool("ListDataset", name, [changed(PICTURE, changes)])


TOOL_CASES = [
    labelme("good"),
    labelme("cut off", json.dumps({"shapes": [SHAPE]})[:40]),
    labelme("no shapes", shapes=...),
    labelme("shapes is a text", shapes="none"),
    labelme("one point", shapes=[{**SHAPE, "points": [[1, 2]]}]),
    labelme("points of texts", shapes=[{**SHAPE, "points": [["a", "b"], [3, 4]]}]),
    labelme("points of null", shapes=[{**SHAPE, "points": [None, None]}]),
    labelme("no label", shapes=[{**SHAPE, "label": None}]),
    labelme("an unknown shape", shapes=[{**SHAPE, "shape_type": "spiral"}]),
    labelme("a size that is not the image's", imageWidth=50, shapes=[]),
    labelme("a path that leads out", imagePath="../../passwd"),
    cvat("good"),
    cvat("cut off", text="<annotations><image"),
    cvat("billion laughs", text=LAUGHS.replace("DOCTYPE a", "DOCTYPE annotations") + "<annotations>&l9;</annotations>"),
    cvat("an external entity", text='<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hosts">]><annotations>&x;</annotations>'),
    cvat("a corner is missing", '<box label="cat" xtl="40" ytl="15" xbr="60"/>'),
    cvat("a corner is a text", '<box label="cat" xtl="x" ytl="15" xbr="60" ybr="35"/>'),
    cvat("nan", f'<box label="cat" xtl="nan" ytl="15" xbr="60" ybr="35"/>{CVAT_BOX}'),
    cvat("no label", '<box xtl="40" ytl="15" xbr="60" ybr="35"/>'),
    cvat("half a point", '<polygon label="cat" points="1,2;3"/>'),
    listed("good"),
    listed("more boxes than labels", boxes=[[1, 2, 3, 4]] * 2),
    listed("a box of three numbers", boxes=[[1, 2, 3]]),
    listed("a box of texts", boxes=[["a", "b", "c", "d"]]),
    listed("no file name", file_name=...),
    listed("a zero byte in a name", file_name="a\0.jpg"),
    listed("a label that is not whole", labels=[0.5]),
    listed("a label below zero", labels=[-1]),
    tool("ListDataset", "an empty list", []),
    tool("ListDataset", "numbers", [1, 2]),
    tool("ViaDataset", "no regions", {"a.jpg1": {"filename": "a.jpg", "size": 1}}),
    tool("ViaDataset", "regions of text", {"a.jpg1": {"filename": "a.jpg", "size": 1, "regions": "x"}}),
    tool("ViaDataset", "a region without shape", {"a.jpg1": {"filename": "a.jpg", "size": 1, "regions": [{}]}}),
    tool("LabelStudioDataset", "no annotations", [{"id": 1, "data": {"image": "a.jpg"}}]),
    tool("LabelStudioDataset", "a result of text", [{"data": {"image": "a.jpg"}, "annotations": [{"result": "x"}]}]),
    tool("CreateMlDataset", "no coordinates", [{"image": "a.jpg", "annotations": [{"label": "cat"}]}]),
    tool("CreateMlDataset", "an annotation of text", [{"image": "a.jpg", "annotations": ["cat"]}]),
    tool("ScalabelDataset", "no box", [{"name": "a.jpg", "labels": [{"category": "cat"}]}]),
    tool("DatumaroDataset", "items of text", {"items": "x", "categories": {}}),
    tool("DatumaroDataset", "no labels", {"items": [{"id": "a"}], "categories": {}}),
]  # fmt: skip
FIND_CASES = [
    found("nothing", {"notes.md": "hello"}),
    found("images alone", {"a.jpg": JPEG, "b.jpg": JPEG}),
    found("a config", {"config.yaml": "data: {}\nnames: 3\n"}),
    found("a loop of links", {"sub/a.txt": "x"}, loop="."),
    found("a link to nowhere", {"a.txt": "x"}, **{"data.yaml": "nowhere"}),
    found("labels without names", {"images/a.jpg": JPEG, "labels/a.txt": BOX}),
    found("a table of something else", {"a.csv": "time,price\n1,2\n"}),
]
CASES = [*YOLO_CASES, *CSV_CASES, *COCO_CASES, *VOC_CASES, *IMAGE_CASES, *TOOL_CASES, *FIND_CASES]


if __name__ == "__main__":
    for each in CASES:
        each.write(Path(sys.argv[1]) / each.name.replace("/", "_"))
    print(f"{len(CASES)} cases in {sys.argv[1]}")
