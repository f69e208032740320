"""Encodings that are read, and files that are named as what they are."""

import codecs
import json
from pathlib import Path

import pytest

from detkit.data.datasets.coco_file import read_json
from tests.refusals import Refuses

COCO = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "Straße 鳥"}]}


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_unicode_is_read_in_every_form(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(json.dumps(COCO, ensure_ascii=False).encode(encoding))
    assert read_json(str(file)) == COCO


def test_a_big_endian_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(codecs.BOM_UTF16_BE + json.dumps(COCO).encode("utf-16-be"))
    assert read_json(str(file)) == COCO


@pytest.mark.parametrize("encoding", ["cp1252", "gbk", "shift_jis"])
def test_another_encoding_is_named_with_file_line_and_byte(refuses: Refuses, tmp_path: Path, encoding: str) -> None:
    text = {"cp1252": "Größe", "gbk": "鸟", "shift_jis": "鳥"}[encoding]
    file = tmp_path / "a.json"
    file.write_bytes(f'{{\n"images": "{text}"}}'.encode(encoding))
    with refuses(ValueError):
        read_json(str(file))


LABELME = {"version": "5.0", "shapes": [], "imagePath": "a.png", "imageHeight": 4}
VIA_REGION = {"filename": "a.png", "size": 5, "regions": []}
FORMATS: dict[str, object] = {
    "empty": "  \n",
    "voc": "<?xml version='1.0'?><!-- x --><annotation/>",
    "cvat": "<annotations><image/></annotations>",
    "svg": "<svg xmlns='x'/>",
    "html": "<!DOCTYPE html><html></html>",
    "lfs": "version https://git-lfs.github.com/spec/v1\noid x",
    "yolo": "0 0.5 0.5 0.1 0.2\n3 0.1 0.2 0.3 0.4\n",
    "csv": "filename,width,height,class,xmin\na.png,1,2,cat,3\n",
    "lines": '{"a": 1}\n{"a": 2}\n',
    "yaml": "names:\n- cat\n",
    "cut off": '{"images": [{"id": 1',
    "broken": '{"images": [1 2]}',
    "labelme": LABELME,
    "via project": {"_via_img_metadata": {}},
    "via": {"a.png5": VIA_REGION},
    "geojson": {"type": "FeatureCollection", "features": []},
    "datumaro": {"info": {}, "categories": {}, "items": []},
    "single": {"image": "a.png", "annotations": [{"bbox": [1, 2, 3, 4]}]},
    "one image": {"file_name": "a.png", "annotations": []},
    "captions": {"images": [], "annotations": [{"caption": "a dog"}]},
    "panoptic": {"images": [], "annotations": [{"segments_info": []}]},
    "results": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}],
    "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
    "label studio": [{"id": 1, "annotations": [], "data": {"image": "a.png"}}],
    "createml": [{"image": "a.png", "annotations": []}],
    "bdd": [{"name": "a.jpg", "labels": []}],
    "other list": [{"foo": 1, "bar": 2}],
    "numbers": [1, 2],
    "a text": "coco",
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_another_kind_is_named(refuses: Refuses, tmp_path: Path, name: str) -> None:
    content = FORMATS[name]
    file = tmp_path / "a.json"
    file.write_text(content if isinstance(content, str) and name != "a text" else json.dumps(content))
    with refuses(ValueError):
        read_json(str(file))


@pytest.mark.parametrize("start", [b"\x89PNG\r\n", b"\x1f\x8b\x08\xff", b"\x80\x04\x95"])
def test_a_binary_file_is_named(refuses: Refuses, tmp_path: Path, start: bytes) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(start + bytes([255, 254, 253]))
    with refuses(ValueError):
        read_json(str(file))


def test_a_folder_is_no_file(refuses: Refuses, tmp_path: Path) -> None:
    with refuses(ValueError):
        read_json(str(tmp_path))


def test_endless_nesting_is_an_error_of_the_file(refuses: Refuses, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("[" * 200_000)
    with refuses(ValueError):
        read_json(str(file))
