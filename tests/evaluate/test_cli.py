from __future__ import annotations

import contextlib
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from detkit.checkpoint import Checkpoint, save_checkpoint
from detkit.cli import main
from detkit.config import load_config
from detkit.data.datasets.shapes import ShapesDataset
from detkit.detectors.build import build_detector
from detkit.evaluate.cli import judge_self_test
from detkit.evaluate.coco import CocoResult
from detkit.evaluate.loop import SelfTest
from detkit.structures import ClassMap

CONFIG = str(Path(__file__).parents[2] / "configs" / "quickstart" / "shapes.yaml")
SMALL = [
    "neck.channels=8", "head.num_convs=1", "data.val.dataset.num_images=3", "data.val.dataset.size=64",
    "data.loader.num_workers=0", "data.loader.batch_size=2",
]  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained detector of the quickstart's classes."""
    config = load_config(CONFIG, SMALL)
    classes = ShapesDataset(num_images=1, split="val").classes
    torch.manual_seed(0)
    model = build_detector(config, len(classes)).state_dict()
    saved = Checkpoint(step=1, seed=0, model=model, config=config.to_dict(), classes=classes)
    folder = tmp_path_factory.mktemp("checkpoints")
    other = ClassMap(("wheel", *classes.names[1:]), classes.ids)
    save_checkpoint(folder / "other.pt", replace(saved, classes=other))
    return save_checkpoint(folder / "own.pt", saved)


@pytest.mark.parametrize("engine", ["faster", "pycocotools"])
def test_prints_the_table_and_writes_json(
    checkpoint: Path, tmp_path: Path, engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "new" / "eval.json"
    overrides = [
        "data.val.dataset.num_images=5",
        "postprocess.score_threshold=0",
        f"evaluator.engine={engine}",
    ]
    assert main(["eval", str(checkpoint), *overrides, "--json", str(file), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    content = json.loads(file.read_text())
    assert content["num_images"] == 5
    assert content["num_detections"] > 50
    assert 0 <= content["ap"] < 0.5
    assert list(content["per_class"]) == list(ShapesDataset(num_images=1, split="val").classes.names)
    assert f"5 images, {sum(content['num_objects'].values())} objects" in out
    assert content["ap_large"] is None
    assert "large: n/a (no ground truth from 96² px on)" in out
    assert "-1" not in out
    assert "seconds: data" in out


def test_other_classes_are_refused_by_name(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    many = "data.val.dataset.num_images=12"
    assert main(["eval", str(checkpoint.with_name("other.pt")), many, "--device", "cpu"]) == 2
    assert re.search(
        r"shapes \(val, seed 0\): 'circle' \(\d+ objects\) is not a class of the checkpoint \(classes: wheel, .*"
        r"ignore_classes: \[circle\].*class_map: \{circle: .*data.classes",
        capsys.readouterr().err,
    )


@pytest.mark.parametrize("source", ["checkpoint", "config"])
def test_self_test(checkpoint: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(checkpoint)] if source == "checkpoint" else [CONFIG, *SMALL]
    assert main(["eval", *arguments, "--self-test"]) == 0
    assert "self-test passed" in capsys.readouterr().out


def test_self_test_finds_a_transform_that_moves_boxes(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A flip has no business in data.val, for its boxes are those of another picture."""
    flip = "data.val.transforms=[{type: RandomHorizontalFlip, p: 1.0}]"
    assert main(["eval", str(checkpoint), flip, "--self-test"]) == 1
    out = capsys.readouterr().out
    assert "self-test failed" in out
    assert "all classes: ap 0." in out


def test_self_test_without_ground_truth_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = CocoResult({"ap": None}, {}, {}, 1, 0)
    assert judge_self_test(SelfTest(nothing, nothing, 0, 0)) == 1
    assert "nothing to measure" in capsys.readouterr().out


def test_a_bad_override_is_named(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", str(checkpoint), "evaluator.engin=faster"]) == 2
    assert "engin" in capsys.readouterr().err


def coco_of(folder: Path, annotations: list[dict[str, object]], categories: dict[int, str]) -> list[str]:
    """Overrides of `data.val` for a file of one image of 100 x 100 pixels."""
    Image.new("RGB", (100, 100)).save(folder / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 100}],
        "annotations": [{"image_id": 1, **a} for a in annotations],
        "categories": [{"id": i, "name": name} for i, name in categories.items()],
    }
    (folder / "truth.json").write_text(json.dumps(content))
    return [
        f"data.val.dataset={{type: CocoDataset, annotations: {folder}/truth.json, images: {folder}}}",
        "data.val.transforms=[{type: Resize, height: 128, width: 96}]",
    ]


ODD = [
    {"category_id": 7, "bbox": [-15, 10, 40, 50]},  # five eighths of it are inside
    {"category_id": 7, "bbox": [50, 50, 0, 20], "area": 5},
    {"category_id": 3, "bbox": [60, 60, 30.5, 20.25], "area": -600},
    {"category_id": 3, "bbox": [5, 70, 20, 20], "area": 400},
]


def test_self_test_passes_on_odd_boxes_and_says_what_they_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = coco_of(tmp_path, ODD, {3: "ring", 7: "star"})
    assert main(["eval", CONFIG, "data.loader.num_workers=0", *overrides, "--self-test"]) == 0
    out = capsys.readouterr().out
    assert "1 image, 3 objects, 3 detections" in out  # the object of negative area is ignored
    # star: the clipped box is right at 0.5, 0.55 and 0.6, and one of two is found: 51 of 101 recalls.
    assert re.search(r"star +2 +0.151 +0.505 +0.000", out)
    assert (
        "training differs from the file in 2 objects: 1 have other boxes (clipped at the edge), 1 are skipped as "
        "unusable. Evaluation uses the boxes of the file, against which the training boxes reach AP 0.576" in out
    )
    assert "self-test passed" in out


def test_another_files_ids_and_order_follow_the_names(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = coco_of(tmp_path, ODD, {3: "ring", 7: "star", 9: "unused"})
    assert main(["eval", str(checkpoint), *overrides, "--device", "cpu", "--json", str(tmp_path / "out.json")]) == 0
    content = json.loads((tmp_path / "out.json").read_text())
    assert list(content["per_class"]) == list(ShapesDataset(num_images=1, split="val").classes.names)
    assert content["per_class"]["moon"]["ap"] is None
    assert (content["num_objects"]["ring"], content["num_objects"]["star"], content["num_objects"]["moon"]) == (1, 2, 0)
    assert "moon, cross, triangle: n/a (no ground truth of the class)" in capsys.readouterr().out


def test_written_detections_give_pycocotools_the_same_ap(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file has ids of its own, in another order than the detector's classes."""
    names = ShapesDataset(num_images=1, split="val").classes.names
    categories = {10 * k + 5: name for k, name in enumerate(reversed(names), start=1)}
    annotations = [
        {"id": k, "category_id": c, "bbox": [3 * k - 9, 4 * k, 30 + k, 25], "area": 25.0 * (30 + k), "iscrowd": 0}
        for k, c in enumerate(categories, start=1)
    ]
    overrides = [*coco_of(tmp_path, annotations, categories), "postprocess.score_threshold=0", "nms.iou_threshold=0.9"]
    out, found = tmp_path / "out.json", tmp_path / "new" / "found.json"
    arguments = ["eval", str(checkpoint), *overrides, "--device", "cpu", "--json", str(out)]
    assert main([*arguments, "--detections", str(found)]) == 0
    assert main([*arguments, "--detections", str(found)]) == 0  # its own of before
    results = json.loads(found.read_text())
    assert {r["category_id"] for r in results} <= set(categories)
    assert {r["image_id"] for r in results} == {1}
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "truth.json"))
        run = COCOeval(truth, truth.loadRes(str(found)), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    assert main([*arguments, "--detections", str(out)]) == 2
    assert "out.json is the file of --json, too" in capsys.readouterr().err
    found.write_text(json.dumps(results[1:]))
    assert main([*arguments, "--detections", str(found)]) == 2
    assert "found.json exists" in capsys.readouterr().err
    assert json.loads(found.read_text()) == results[1:]
    assert main([*arguments, "--detections", str(tmp_path / "truth.json")]) == 2
    assert "truth.json exists" in capsys.readouterr().err
    assert main([*arguments, "--detections", str(found.with_name("x")), "--self-test"]) == 2
    content = json.loads(out.read_text())
    assert run.stats[8] > 0  # the recall at 100 detections, so that something was matched
    assert content["ap"] == pytest.approx(run.stats[0], abs=1e-12)
    assert content["ar100"] == pytest.approx(run.stats[8], abs=1e-12)


def test_figures_take_nobody_s_place(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text('{"ap": 1}')
    for file, text in (
        (checkpoint, "would overwrite"), (mine, "detkit did not write it"), (tmp_path, "is a folder"),
        (mine / "x.json", "mine.json is a file, not a folder"), (Path(""), "is not a file name"),
    ):  # fmt: skip
        assert main(["eval", str(checkpoint), "--json", str(file)]) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: --json: ")
        assert text in err
    assert mine.read_text() == '{"ap": 1}'
    words = ["eval", str(checkpoint), "--device", "cpu", "--json", str(tmp_path / "figures.json")]
    assert main(words) == 0
    assert main(words) == 0  # its own may be replaced


def test_a_report_with_slices(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", str(checkpoint), "postprocess.score_threshold=0", "--device", "cpu", "--report", str(tmp_path)]
    assert main([*words, "--slice", "objects", "--json", str(tmp_path / "e.json")]) == 0
    assert f"report: {tmp_path}/report.html" in capsys.readouterr().out
    text = (tmp_path / "report.md").read_text()
    content = json.loads((tmp_path / "e.json").read_text())
    assert f"AP {100 * content['ap']:.1f}" in text
    assert "## By objects" in text
    assert main([*words, "--slice", "object"]) == 2
    assert "'object' is no column of shapes" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--slice", "objects"], ["--self-test", "--report", "r"]])
def test_options_of_the_report_that_do_not_go_together(
    checkpoint: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(checkpoint), *words, "--device", "cpu"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {words[-2] if '--self-test' in words else '--slice'}: ")
