"""Encodings that are read, and files that are named as what they are."""

import codecs
import json
from pathlib import Path

import pytest

from detkit.data.datasets.coco_file import read_json
from detkit.data.datasets.text import read_text

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
def test_another_encoding_is_named_with_file_line_and_byte(tmp_path: Path, encoding: str) -> None:
    text = {"cp1252": "Größe", "gbk": "鸟", "shift_jis": "鳥"}[encoding]
    file = tmp_path / "a.json"
    file.write_bytes(f'{{\n"images": "{text}"}}'.encode(encoding))
    with pytest.raises(ValueError, match=r"a.json: the file is not in UTF-8: line 2 has the byte 0x.*Save it as UTF-8"):
        read_text(file)


LABELME = {"version": "5.0", "shapes": [], "imagePath": "a.png", "imageHeight": 4}
VIA_REGION = {"filename": "a.png", "size": 5, "regions": []}
FORMATS = {
    "empty": ("  \n", "not JSON: the file is empty"),
    "voc": ("<?xml version='1.0'?><!-- x --><annotation/>", r"XML \(root <annotation>: a Pascal VOC file; VocDataset"),
    "cvat": ("<annotations><image/></annotations>", r"XML \(root <annotations>: an export of CVAT"),
    "svg": ("<svg xmlns='x'/>", r"XML \(root <svg>: a drawing"),
    "html": ("<!DOCTYPE html><html></html>", "an HTML page, as a failed download leaves it"),
    "lfs": ("version https://git-lfs.github.com/spec/v1\noid x", "a pointer of Git LFS.*git lfs pull"),
    "yolo": ("0 0.5 0.5 0.1 0.2\n3 0.1 0.2 0.3 0.4\n", "a YOLO label file"),
    "csv": ("filename,width,height,class,xmin\na.png,1,2,cat,3\n", r"a CSV table \(first line: 'filename,width"),
    "lines": ('{"a": 1}\n{"a": 2}\n', "JSON lines"),
    "yaml": ("names:\n- cat\n", "the file is YAML"),
    "cut off": ('{"images": [{"id": 1', "cut off: it ends before its last bracket"),
    "broken": ('{"images": [1 2]}', "not JSON: Expecting ',' delimiter: line 1"),
    "labelme": (LABELME, "not a COCO instances file: it is a LabelMe file of one image"),
    "via project": ({"_via_img_metadata": {}}, "a project or export of VGG Image Annotator"),
    "via": ({"a.png5": VIA_REGION}, "a project or export of VGG Image Annotator"),
    "geojson": ({"type": "FeatureCollection", "features": []}, "GeoJSON"),
    "datumaro": ({"info": {}, "categories": {}, "items": []}, "a data set of Datumaro"),
    "single": ({"image": "a.png", "annotations": [{"bbox": [1, 2, 3, 4]}]}, "the annotation of a single image"),
    "one image": ({"file_name": "a.png", "annotations": []}, "the annotation of a single image"),
    "captions": ({"images": [], "annotations": [{"caption": "a dog"}]}, "a COCO captions file"),
    "panoptic": ({"images": [], "annotations": [{"segments_info": []}]}, "a COCO panoptic file"),
    "results": ([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}], "a list of COCO results"),
    "annotations": ([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}], "the list of annotations alone"),
    "label studio": ([{"id": 1, "annotations": [], "data": {"image": "a.png"}}], "an export of Label Studio"),
    "createml": ([{"image": "a.png", "annotations": []}], "a CreateML file"),
    "bdd": ([{"name": "a.jpg", "labels": []}], "BDD100K"),
    "other list": ([{"foo": 1, "bar": 2}], "a list of objects with the keys bar, foo"),
    "numbers": ([1, 2], "it is a list"),
    "a text": ("coco", "it is a single str"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str) -> None:
    content, message = FORMATS[name]
    file = tmp_path / "a.json"
    file.write_text(content if isinstance(content, str) and name != "a text" else json.dumps(content))
    with pytest.raises(ValueError, match=rf"a\.json: .*{message}"):
        read_json(str(file))


@pytest.mark.parametrize(
    ("start", "message"), [(b"\x89PNG\r\n", "a PNG image"), (b"\x1f\x8b\x08\xff", "gzip"), (b"\x80\x04\x95", "pickle")]
)
def test_a_binary_file_is_named(tmp_path: Path, start: bytes, message: str) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(start + bytes([255, 254, 253]))
    with pytest.raises(ValueError, match=rf"a\.json: not JSON: this is .*{message}"):
        read_json(str(file))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a folder; a COCO data set is one JSON file"):
        read_json(str(tmp_path))


def test_endless_nesting_is_an_error_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"a\.json"):
        read_json(str(file))
