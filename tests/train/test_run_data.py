"""What a run does when its images are damaged, its data have moved, or its last evaluation fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.checkpoint import load_checkpoint, step_path
from detkit.cli import main
from detkit.config import load_config
from detkit.data.datasets.base import DetectionDataset
from detkit.detectors.dense import DenseDetector


@pytest.fixture(autouse=True)
def torch_settings() -> Iterator[None]:
    """A run sets torch up for itself; the other tests get back what they had."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def train(folder: Any, *more: Any) -> Any:
    return main(["train", str(folder.config), "--output", str(folder.root.parent / "run"), *more])


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_damaged_image_ends_the_run_before_its_first_step(
    folder: Any, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.damage(split, 1)
    assert train(folder) == 2
    err = capsys.readouterr().err
    assert f"1 of 3 images can't be used:\n  {folder.file(split, 1)}: not a readable image" in err
    assert "data.images.bad_images=skip" in err
    assert not (folder.root.parent / "run/metrics.jsonl").exists()


def test_damaged_images_of_both_splits_are_told_at_once(folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder.damage("train", 2)
    folder.damage("val", 0)
    assert train(folder) == 2
    err = capsys.readouterr().err
    assert "train2.jpg: not a readable image" in err
    assert "val0.jpg: not a readable image" in err


def test_skip_trains_and_evaluates_without_it_and_eval_agrees(folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder.damage("val", 1)
    folder.damage("train", 0)
    assert train(folder, "data.images.bad_images=skip") == 0
    run = folder.root.parent / "run"
    result = json.loads((run / "result.json").read_text())
    assert "left out 1 of 3 images" in (run / "log.txt").read_text()
    assert main(["eval", str(run), "--json", str(run / "eval.json")]) == 0
    assert "2 images, 2 objects" in capsys.readouterr().out
    assert json.loads((run / "eval.json").read_text())["ap"] == result["ap"]
    assert load_checkpoint(run).data["bad training images"] == "train0.jpg"


def test_repair_trains_on_all_of_them(folder: Any) -> None:
    folder.damage("val", 1)
    assert train(folder, "data.images.bad_images=repair") == 0
    run = folder.root.parent / "run"
    assert "repaired (data.images.bad_images: repair)" in (run / "log.txt").read_text()


def spoil_after(monkeypatch: Any, steps: Any, error: Any) -> None:
    """From its `steps`-th evaluation on, the second validation image can't be read."""
    count = [0]
    original = DetectionDataset.load_image

    def load(self: Any, index: Any) -> Any:
        if "val" in self.records.path(index) and index == 1:
            count[0] += 1
            if count[0] > steps:
                raise error
        return original(self, index)

    monkeypatch.setattr(DetectionDataset, "load_image", load)
    monkeypatch.setattr(DetectionDataset, "reads_files", True)


def test_an_image_that_is_lost_during_the_run_costs_the_evaluation_not_the_training(
    folder: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = folder.root.parent / "whole"
    assert main(["train", str(folder.config), "--output", str(whole)]) == 0
    with monkeypatch.context() as patch:
        spoil_after(patch, 1, OSError("the disk is gone"))  # the first time is the look at the start
        assert train(folder, "train.eval_every=1") == 1
    run = folder.root.parent / "run"
    result = json.loads((run / "result.json").read_text())
    assert f"image 2 ({folder.file('val', 1)}): the disk is gone" in result["evaluation_error"]
    assert result["step"] == 2
    assert "ap" not in result
    err = capsys.readouterr().err
    assert f"its weights are in {step_path(run, 2)}, but the last evaluation failed" in err
    assert f"detkit train {run / 'config.yaml'} --output {run} --resume" in err
    assert "step 1: the evaluation failed" in err, "one that is not the last ends nothing either"
    ours, theirs = load_checkpoint(step_path(run, 2)).model, load_checkpoint(step_path(whole, 2)).model
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    assert main(["eval", str(run)]) == 0
    assert main(["train", str(run / "config.yaml"), "--output", str(run), "--resume"]) == 0
    completed = json.loads((run / "result.json").read_text())
    assert completed["ap"] == json.loads((whole / "result.json").read_text())["ap"]
    assert "evaluation_error" not in completed
    assert load_checkpoint(step_path(run, 2)).ap == completed["ap"]
    assert main(["train", str(run / "config.yaml"), "--output", str(run), "--resume"]) == 0
    assert "is finished" in capsys.readouterr().out


def test_a_fault_in_the_last_evaluation_leaves_weights_and_reason(folder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = folder.root.parent / "run"
    with monkeypatch.context() as patch:
        patch.setattr(DenseDetector, "detect", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(folder)
    assert json.loads((run / "result.json").read_text())["evaluation_error"] == "ZeroDivisionError: division by zero"
    assert load_checkpoint(step_path(run, 2)).step == 2
    assert main(["train", str(folder.config), "--output", str(run), "--resume"]) == 0
    assert "ap" in json.loads((run / "result.json").read_text())


@pytest.mark.usefixtures("pictures")
def test_a_picture_that_can_not_be_drawn_costs_no_result(
    folder: Any, pictures: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("detkit.runs.run.plot_curves", lambda *_, **__: (_ for _ in ()).throw(ValueError("no font")))
    assert train(folder) == 0
    assert "curves.png or predictions.png could not be drawn: ValueError: no font" in capsys.readouterr().err
    assert "ap" in json.loads((folder.root.parent / "run/result.json").read_text())


@pytest.fixture
def half(folder: Any) -> Any:
    """A run that has done one of its two steps."""
    assert train(folder, "train.iterations=1", "schedule={type: Constant}") == 0
    run = folder.root.parent / "run"
    (run / "result.json").unlink()
    return run


LONGER = ["train.iterations=2", "schedule={type: Constant}", "--resume"]


def test_data_that_have_moved_are_resumed_with_one_override(
    folder: Any, half: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = folder.root.parent / "elsewhere"
    shutil.move(folder.root, moved)
    words = ["train", str(half / "config.yaml"), "--output", str(half), *LONGER]
    assert main(words) == 2
    assert f'if its folder has moved, add "moved={{{folder.root}: NEW_FOLDER}}"' in capsys.readouterr().err
    assert main([*words, f"moved={{{folder.root}: {moved}}}"]) == 0
    text = f"data.val.dataset.images has moved from {folder.root}/val to {moved}/val; the annotations are the same"
    assert text in capsys.readouterr().out
    config = load_config(half / "config.yaml")
    assert set(config.paths().values()) == {str(moved / n) for n in ("train", "val", "train.json", "val.json")}
    assert main(["eval", str(half), f"moved={{{folder.root}: {moved}}}"]) == 0


def test_annotations_that_have_changed_are_refused_by_name(
    folder: Any, half: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write("train", [[[8, 8, 40, 31]]] * 3)
    assert train(folder, *LONGER) == 2
    err = capsys.readouterr().err
    assert "annotations have changed since" in err
    assert "training data: " in err
    assert "validation data" not in err


def test_a_repaired_image_is_no_change(folder: Any, half: Any) -> None:
    folder.damage("val", 1)
    assert train(folder, *LONGER) == 2
    folder.write("val", [[[8, 8, 40, 30]]] * 3)
    assert train(folder, *LONGER) == 0


def test_a_run_that_met_a_damaged_image_is_resumed_with_repair(
    folder: Any, half: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.damage("train", 1)
    assert train(folder, *LONGER, "data.images.bad_images=repair") == 0
    assert "repaired" in capsys.readouterr().err
    assert load_checkpoint(step_path(half, 2)).config["data"]["images"]["bad_images"] == "repair"


def test_skip_is_another_training(folder: Any, half: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(folder, *LONGER, "data.images.bad_images=skip") == 2
    assert "data.images.bad_images: 'error' in the run, 'skip' now" in capsys.readouterr().err


def test_other_images_left_out_are_another_training(folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    whole = folder.damage("train", 0)
    skip = "data.images.bad_images=skip"
    assert train(folder, "train.iterations=1", "schedule={type: Constant}", skip) == 0
    folder.file("train", 0).write_bytes(whole)
    assert train(folder, *LONGER, skip) == 2
    assert "bad training images: train0.jpg in the run, none now" in capsys.readouterr().err


def test_eval_takes_the_runs_own_data_wherever_it_is_started(
    folder: Any, half: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copytree(folder.root / "val", other / "val")
    (other / "val.json").write_text((folder.root / "val.json").read_text().replace('"id": 3', '"id": 4'))
    monkeypatch.chdir(other)
    (folder.root / "val.json").rename(folder.root / "gone.json")
    assert main(["eval", str(half)]) == 2
    err = capsys.readouterr().err
    assert f"annotation file not found: {folder.root}/val.json" in err
    assert "data.val.dataset.annotations" in err


def test_the_start_tells_of_lost_objects_and_shared_images(folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder.write("train", [[[8, 8, 40, 30], [8, 8, 0.7, 30]]] * 3)
    (folder.root / "val.json").write_text((folder.root / "train.json").read_text())
    assert train(folder, "data.val.dataset.images=" + str(folder.root / "train")) == 0
    err = capsys.readouterr().err
    assert err.count("3 of 6 objects never reach the network: 3 by the annotation") == 2
    assert "the validation split is the training split" in err


def test_a_training_without_a_single_object_does_not_begin(folder: Any, capsys: pytest.CaptureFixture[str]) -> None:
    folder.write("train", [[[8, 8, 0.7, 30]]] * 3)
    assert train(folder) == 2
    assert "nothing to train on: " in capsys.readouterr().err
