"""Feeds the readers of data sets with broken files; every one must be read or refused in detkit's own words.

    python tests/data/fuzz_readers.py --reader yolo --minutes 10

atheris changes the files of a small good set, led by the code that they reach. It stops at the first input that ends in
an error of a library, hangs, fills the memory or gives an impossible box, and leaves that input in `--output`.
`tests/data/test_fuzz_readers.py` feeds a few broken files of each reader with hypothesis.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.data.hostile import (
    BOX,
    COCO,
    CSV,
    CVAT_BOX,
    HEADER,
    JPEG,
    PICTURE,
    ROW,
    SHAPE,
    VOC,
    YAML,
    YOLO,
    Node,
    check_words,
    coco_content,
    item,
    rooted,
    xml,
)

SIDES = (100, 50)
"""Width and height of the only image."""


@dataclass(frozen=True)
class Reader:
    """What is fuzzed: the file that changes, the good set around it, what reads it, and words of its format."""

    file: str
    good: Mapping[str, str | bytes]
    node: Node
    words: tuple[str, ...]


NUMBERS = ("nan", "-1", "1e400", "0.5", "99999999999999999999", "0x1", "1_0", "\0", "\ufeff", "\n", "'", '"')
CVAT = (
    '<annotations><image id="0" name="a.jpg" width="100" height="50">'
    f'{CVAT_BOX}<polygon label="dog" points="1,2;30,4;30,40"/></image></annotations>'
)
READERS = {
    "yolo": Reader(
        "labels/a.txt",
        {"images/a.jpg": JPEG, "data.yaml": YAML, "labels/a.txt": f"{BOX}1 0.1 0.2 0.2 0.2\n0 .1 .1 .3 .1 .3 .4\n"},
        YOLO,
        (",", "0 0.5 0.5 0.2 0.4\n", " 0.1 0.1", "\t"),
    ),
    "yolo-yaml": Reader(
        "data.yaml",
        {"images/a.jpg": JPEG, "data.yaml": f"path: .\n{YAML}nc: 2\nval: [images]\n", "labels/a.txt": BOX},
        YOLO,
        ("&a", "*a", "!!python/name:os.system", "{0: cat}", "[", "]", "- ", "names:", "train:", "../", "? "),
    ),
    "csv": Reader(
        "a.csv",
        {"images/a.jpg": JPEG, "a.csv": HEADER + ROW + 'a.jpg,100,50,"dog",1,1,20,20\n'},
        CSV,
        (",", ";", "\t", "|", '""', "class", "xmin", "x1", "bbox", "filename", "a.jpg", "images/", "/"),
    ),
    "coco": Reader(
        "a.json",
        {"images/a.jpg": JPEG, "a.json": json.dumps(coco_content(box={"iscrowd": 0, "area": 4.5, "segmentation": []}))},
        COCO,
        ("null", "true", "[]", "{}", '"id"', '"bbox"', '"counts"', '"size"', '"segmentation"', "[1,2,3,4,5,6]"),
    ),
    "voc": Reader(
        "Annotations/a.xml",
        {"JPEGImages/a.jpg": JPEG, "ImageSets/Main/train.txt": "a\n", "Annotations/a.xml": xml(item() + item())},
        VOC,
        ("<object>", "</object>", "<name>", "<bndbox>", "<xmin>", "<!DOCTYPE a [<!ENTITY b 'c'>]>", "&b;", "<![CDATA["),
    ),
    "labelme": Reader(
        "a.json",
        {"a.jpg": JPEG, "a.json": json.dumps({"imagePath": "a.jpg", "shapes": [SHAPE]})},
        {"type": "LabelMeDataset", "root": "."},
        ("null", "true", "[]", "{}", '"shapes"', '"points"', '"label"', '"circle"', '"polygon"'),
    ),
    "cvat": Reader(
        "a.xml",
        {"images/a.jpg": JPEG, "a.xml": CVAT},
        {"type": "CvatDataset", "annotations": "a.xml", "images": "images"},
        ("<image>", "</image>", "<box ", "<polygon ", "<track>", 'points="1,2;3,4"', 'rotation="30"', "<mask "),
    ),
    "list": Reader(
        "a.json",
        {"images/a.jpg": JPEG, "a.json": json.dumps([PICTURE])},
        {"type": "ListDataset", "annotations": "a.json", "images": "images"},
        ("null", "true", "[]", "{}", '"boxes"', '"labels"', '"objects"', '"annotations"', '"bbox"', '"bbox_mode"'),
    ),
}  # fmt: skip


def prepare(reader: Reader, folder: Path) -> Node:
    """Writes the good set; returns the node that reads it."""
    for path, content in reader.good.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    return {key: rooted(key, value, folder) for key, value in reader.node.items()}


def attempt(reader: Reader, folder: Path, node: Node, content: bytes) -> bool:
    """Reads the set with `content` in the place of its file; returns whether that is a data set.

    AssertionError if the error is not one of detkit's, or a box is not inside its image of the stated size, which
    loading refuses if the image has another one.
    """
    from detkit.registry import DATASETS

    (folder / reader.file).write_bytes(content)
    try:
        data = DATASETS.build(node)
    except Exception as error:
        check_words(error)
        return False
    for i, stated in enumerate(data.records.sizes.tolist()):
        width, height = stated[::-1] if stated[0] > 0 else SIDES
        annotation = data.records.annotation(i)
        for (x1, y1, x2, y2), label in zip(annotation.boxes.tolist(), annotation.labels.tolist(), strict=True):
            assert 0 <= x1 < x2 <= width, content
            assert 0 <= y1 < y2 <= height, content
            assert 0 <= label < len(data.classes), content
        if (width, height) != SIDES:
            with pytest.raises(ValueError, match="the boxes are unreliable"):
                data.check_size(i, SIDES[::-1])
    assert len(data.records.truth.labels) >= len(data.records.labels)
    assert all(not math.isnan(v) for v in data.records.boxes.ravel().tolist())
    return True


def dictionary_line(word: str) -> str:
    """A word as libFuzzer's dictionaries write it, byte by byte."""
    return '"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--reader", choices=READERS, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--output", default=".", help="folder for the input that fails")
    args = parser.parse_args()
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    with atheris.instrument_imports(include=["detkit.data.datasets"]):
        from detkit.registry import DATASETS

        DATASETS.names()
    import logging

    logging.disable(logging.CRITICAL)
    reader = READERS[args.reader]
    with tempfile.TemporaryDirectory(prefix="detkit-fuzz-") as temporary:
        folder, seeds, words = (Path(temporary) / name for name in ("set", "seeds", "words.txt"))
        node = prepare(reader, folder)
        seeds.mkdir()
        (seeds / "good").write_bytes((folder / reader.file).read_bytes())
        words.write_text("".join(map(dictionary_line, reader.words + NUMBERS)))
        options = [f"-max_total_time={round(60 * args.minutes)}", "-timeout=60", "-rss_limit_mb=2048", "-max_len=4096"]
        options += [f"-dict={words}", f"-artifact_prefix={Path(args.output)}/", "-print_final_stats=1"]

        def feed(content: bytes) -> None:
            attempt(reader, folder, node, content)

        atheris.Setup([sys.argv[0], str(seeds), *options], feed)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
