"""What `--save` writes, read back."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image

from detkit.cli import main
from detkit.predict.detections import Detections
from detkit.predict.results import Results
from detkit.registry import DATASETS
from detkit.structures import ClassMap
from detkit.utils.outputs import ForeignFileError
from tests.refusals import Refuses

CLASSES = ClassMap(("größe <&>", "dog", "ant"), (7, 3, 4))
BOXES = [[[10.25, 20.5, 30.125, 60.0], [0.0, 0.0, 100.0, 80.0]], [], [[5.0, 6.0, 7.5, 8.25]]]
LABELS = [[1, 0], [], [1]]
SCORES = [[0.875, 0.5], [], [0.75]]
FORMATS = ["coco", "yolo", "csv", "voc", "fiftyone", "crops"]


def fill(root: Path, formats: list[str]) -> Path:
    """The results of three images in root/out, one of them without detections, two of one name."""
    files = [root / "photos" / name for name in ("a.png", "b.png", "deep/a.png")]
    results = Results(root / "out", CLASSES, formats, draws=False)
    for file, boxes, labels, scores, name in zip(files, BOXES, LABELS, SCORES, ("a", "b", "a-2"), strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.full((80, 100, 3), 90, np.uint8))
        image.save(file)
        columns = torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores), torch.tensor(labels).long()
        results.add(file, f"{name}.png", image, Detections(*columns, CLASSES, str(file)))
    results.write()
    return root / "out"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("saving")
    (root / "out").mkdir()
    return fill(root, FORMATS)


@pytest.mark.parametrize(
    "node",
    [
        {"type": "YoloDataset", "data": "yolo/data.yaml", "split": "train"},
        {"type": "VocDataset", "root": "voc", "split": "all"},
        {"type": "CsvDataset", "annotations": "csv/labels.csv", "images": "../photos", "classes": "csv/classes.csv"},
    ],
    ids=lambda node: node["type"],
)
def test_what_is_written_is_read_as_a_data_set(out: Path, node: Any) -> None:
    paths = {k: str(out / v) for k, v in node.items() if k not in ("type", "split")}
    dataset: Any = DATASETS.build({**node, **paths})
    assert len(dataset) == 3
    assert set(dataset.classes.names) <= set(CLASSES.names)
    truth = dataset.records.truth
    boxes = truth.boxes.copy()
    boxes[:, 2:] += boxes[:, :2]
    order = {tuple(Path(dataset.records.path(i)).resolve().parts[-2:]): i for i in range(3)}
    for place, expected, labels in zip((("photos", "a.png"), ("photos", "b.png"), ("deep", "a.png")), BOXES, LABELS,
                                       strict=True):  # fmt: skip
        index = order[place]
        start = truth.ends[index - 1] if index else 0
        np.testing.assert_allclose(boxes[start : truth.ends[index]], np.reshape(expected, (-1, 4)), atol=1e-9)
        names = [dataset.classes.names[k] for k in truth.labels[start : truth.ends[index]]]
        assert names == [CLASSES.names[k] for k in labels]
        assert dataset.load_image(index).size == (100, 80)


def test_scores_are_in_every_format(out: Path) -> None:
    lines = (out / "yolo/labels/all/a.txt").read_text().splitlines()
    assert [float(line.split()[5]) for line in lines] == SCORES[0]
    assert lines[0].split()[:5] == ["1", "0.201875", "0.503125", "0.19875", "0.49375"]
    rows = list(csv.DictReader((out / "csv/labels.csv").open(encoding="utf-8")))
    assert [row["score"] for row in rows] == ["0.875", "0.5", "", "0.75"]
    assert [row["filename"] for row in rows] == ["a.png", "a.png", "b.png", "deep/a.png"]
    objects = ElementTree.parse(out / "voc/Annotations/a.xml").getroot().findall("object")
    assert [item.findtext("score") for item in objects] == ["0.875", "0.5"]
    assert [item.findtext("name") for item in objects] == ["dog", "größe <&>"]
    assert [d["score"] for d in json.loads((out / "predictions.json").read_text())] == [0.875, 0.5, 0.75]


def test_fiftyone_gets_fractions_class_numbers_and_the_places_of_the_images(out: Path) -> None:
    """As FiftyOne documents FiftyOneImageDetectionDataset."""
    content = json.loads((out / "fiftyone/labels.json").read_text())
    files = json.loads((out / "fiftyone/data.json").read_text())
    assert content["classes"] == list(CLASSES.names)
    assert content["labels"].keys() == files.keys() == {"a", "b", "a-2"}
    assert content["labels"]["b"] is None
    assert content["labels"]["a"][0] == {
        "label": 1, "bounding_box": pytest.approx([0.1025, 0.25625, 0.19875, 0.49375]), "confidence": 0.875,
    }  # fmt: skip
    assert all(Path(path).is_file() for path in files.values())


def test_crops_are_the_pixels_of_each_box_by_class(out: Path) -> None:
    crops = {str(path.relative_to(out / "crops")): Image.open(path).size for path in (out / "crops").rglob("*.png")}
    assert crops == {"dog/a-1.png": (21, 40), "größe <&>/a-2.png": (100, 80), "dog/a-2-1.png": (3, 3)}


def test_results_of_an_earlier_run_are_replaced_and_a_persons_files_are_not(tmp_path: Path, refuses: Refuses) -> None:
    out = tmp_path / "out"
    out.mkdir()
    fill(tmp_path, FORMATS)
    (out / "crops" / "stale").mkdir()
    fill(tmp_path, FORMATS)
    assert not (out / "crops" / "stale").exists()
    (out / "voc" / "mine.txt").write_text("mine")
    with refuses(ForeignFileError):
        fill(tmp_path, FORMATS)
    assert (out / "voc" / "mine.txt").read_text() == "mine"
    assert (out / "yolo" / "data.yaml").is_file()


def test_results_of_an_earlier_run_stay_if_there_is_nothing_in_their_place(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    fill(tmp_path, ["voc"])
    (tmp_path / "no.png").write_text("no image")
    words = ["predict", str(tiny), str(tmp_path / "no.png"), "--output", str(out), "--save", "voc"]
    assert main([*words, "--device", "cpu"]) == 2
    assert (out / "voc" / "Annotations" / "a.xml").is_file()


def test_boxes_outside_of_the_image_do_no_harm(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 10))
    image.save(tmp_path / "a.png")
    (tmp_path / "out").mkdir()
    results = Results(tmp_path / "out", CLASSES, FORMATS, draws=False)
    boxes = torch.tensor([[-5.0, -5, 30, 30], [40, 40, 50, 50], [3, 3, 3, 3]])
    found = Detections(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 1, 2]), CLASSES, "a.png")
    results.add(tmp_path / "a.png", "a.png", image, found)
    results.write()
    assert len(list((tmp_path / "out" / "crops").rglob("*.png"))) == 1
    assert len((tmp_path / "out/yolo/labels/all/a.txt").read_text().splitlines()) == 3


def test_the_command_saves_what_it_is_asked_for(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos" / "deep"
    photos.mkdir(parents=True)
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 256, (60 + k, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{k}.png")
    words = ["predict", str(tiny), str(tmp_path / "photos"), "--recursive", "--output", str(tmp_path / "out"),
             "--score", "0.1", "--device", "cpu"]  # fmt: skip
    views = ["--tile", "48", "--flip", "--scales", "1,1.5", "--merge", "wbf"]
    assert main([*words, *views, "--save", "yolo, crops"]) == 0
    assert "drawn images, yolo/, crops/ in" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        ".detkit.json", "0.png", "1.png", "2.png", "crops", "yolo",
    ]  # fmt: skip
    labels = sorted((tmp_path / "out/yolo/labels/all").iterdir())
    assert [path.name for path in labels] == ["0.txt", "1.txt", "2.txt"]
    assert all(float(line.split()[5]) > 0.1 for path in labels for line in path.read_text().splitlines())
    assert main([*words, "--no-draw", "--save", "coco,voc,csv,fiftyone"]) == 0
    assert "predictions.json and images.json, voc/, csv/, fiftyone/ in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--save", "cocoo"], "--save: unknown format 'cocoo'; did you mean coco?"),
        (["--tiles-only"], "--tiles-only needs --tile PIXELS"),
        (["--tile", "0"], "--tile: 0 must be between 1 and 16384"),
        (["--overlap", "1"], "--overlap: 1 must be between 0 and 0.9"),
        (["--scales", "1;2"], "--scales: '1;2' must be numbers separated by commas"),
        (["--scales", "0"], "--scales.0: 0 must be between 0.05 and 20"),
        (["--scales", "nan"], "--scales.0: nan must be"),
    ],
)
def test_senseless_options_are_refused(words: Any, text: str, tiny: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(tiny), __file__, *words]) == 2
    assert text in capsys.readouterr().err
