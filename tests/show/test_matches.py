"""Matched anchors are counted right, for a case made by hand and for every registered assigner and class loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from detkit.cli import main
from detkit.config import load_config
from detkit.data.loader import LoaderOptions, Sample
from detkit.detectors.build import build_detector
from detkit.detectors.dense import DenseDetector
from detkit.predict.predictor import Predictor
from detkit.registry import ASSIGNERS, CLASS_LOSSES
from detkit.show.cli import read_detector
from detkit.show.matches import Counts, count, count_levels, describe_unmatched, match_image, unmatched
from detkit.structures import Targets
from tests.contracts.examples import EXAMPLES

ONE_CELL = ["backbone.out_features=[c3]", "neck.extra_levels=0", "anchors.base_scale=2.0"]
"""One level of stride 8; with one scale per octave, one anchor of 16 pixels in each cell."""


def detector(*overrides: str) -> DenseDetector:
    torch.manual_seed(0)
    return build_detector(load_config("quickstart", [*ONE_CELL, *overrides]), 2).eval()


def sample(boxes: list[list[float]], ignore: list[list[float]] = []) -> Sample:  # noqa: B006
    targets = Targets(
        torch.tensor(boxes).reshape(-1, 4), torch.zeros(len(boxes)).long(), torch.tensor(ignore).reshape(-1, 4)
    )
    return Sample(torch.zeros(3, 64, 64, dtype=torch.uint8), targets, (64, 64), 1, "a.jpg")


def only_level(boxes: list[list[float]], *overrides: str, ignore: list[list[float]] = []) -> Counts:  # noqa: B006
    found = match_image(detector("anchors.scales_per_octave=1", *overrides), sample(boxes, ignore), LoaderOptions())
    (counts,) = count_levels(found, 1)
    assert counts == count(found)
    return counts


def test_an_object_that_equals_an_anchor() -> None:
    # 8x8 cells of 8 px, an anchor of 16 px on each: that of the cell (2, 2) is [8, 8, 24, 24].
    counts = only_level([[8, 8, 24, 24]], "assigner.positive=0.5", "assigner.negative=0.3")
    # Its four neighbours are shifted by half their side: IoU (8 * 16) / (2 * 256 - 128) = 1/3.
    assert counts == Counts(64, positive=1, forced=0, dropped=0, ignored=4, in_region=0, background=59, mined=59)


def test_a_forced_match() -> None:
    # Four anchors contain the object, each with IoU 36 / 256.
    counts = only_level([[17, 17, 23, 23]], "assigner.positive=0.5", "assigner.negative=0.4")
    assert (counts.positive, counts.forced) == (4, 4)
    assert only_level([[17, 17, 23, 23]], "assigner.low_quality=false").positive == 0


def test_an_ignore_region() -> None:
    # On each axis the region holds 1/2 of [-8, 8], all of [0, 16] and 3/4 of [8, 24]: over half of four anchors.
    counts = only_level([], ignore=[[0, 0, 20, 20]])
    assert (counts.in_region, counts.ignored, counts.positive) == (4, 0, 0)
    assert counts.background == counts.mined == 60


def test_hard_negatives_are_counted() -> None:
    mining = "losses.classification={type: BCEMiningLoss, ratio: 3.0, floor: 10}"
    counts = only_level([], mining)
    assert (counts.background, counts.mined) == (64, 10)
    exact = ["assigner.positive=0.5", "assigner.negative=0.3"]
    boxes = [[8.0, 8, 24, 24], [32.0, 32, 48, 48], [8.0, 32, 24, 48], [32.0, 8, 48, 24]]
    assert only_level(boxes, mining, *exact).mined == 12


def test_positives_that_the_loss_drops_are_counted() -> None:
    counts = only_level([[8, 8, 24, 24]], "losses.classification={type: OHEMLoss, count: 1}")
    assert counts.positive - counts.dropped + counts.mined == 1


def test_an_object_without_anchors_is_named() -> None:
    found = match_image(detector("assigner.low_quality=false"), sample([[1, 1, 3, 3]]), LoaderOptions())
    assert unmatched(found) == [0]
    assert (
        describe_unmatched([found], ("cat", "dog")) == "1 of 1 objects have no positive anchor: a.jpg cat [1, 1, 3, 3]"
    )


@pytest.mark.parametrize("name", [name for name in ASSIGNERS.names() if "." not in name])
def test_every_assigner(name: str) -> None:
    arguments = json.dumps(EXAMPLES["assigners"].get(name, {}))[1:-1]
    node = f"{{type: {name}, {arguments}}}"
    found = match_image(detector(f"assigner={node}"), sample([[8, 8, 24, 24]]), LoaderOptions())
    check_sums(count(found), found.per_object)


ALONE = [n for n in CLASS_LOSSES.names() if "." not in n and not CLASS_LOSSES.get(n).joint]
"""Class losses that need no other part; a loss of positives alone needs a quality branch."""


@pytest.mark.parametrize("name", [name for name in ALONE if not CLASS_LOSSES.get(name).positives_only])
def test_every_class_loss(name: str) -> None:
    # All scores of a new detector are below the default margin of an asymmetric loss, so no background teaches it.
    arguments = EXAMPLES["class_losses"].get(name, {}) | ({"margin": 0.0} if name == "AsymmetricLoss" else {})
    node = json.dumps({"type": name, **arguments})
    found = match_image(detector(f"losses.classification={node}"), sample([[8, 8, 24, 24]]), LoaderOptions())
    check_sums(count(found), found.per_object)


def check_sums(counts: Counts, per_object: Tensor) -> None:
    assert counts.positive + counts.ignored + counts.in_region + counts.background == counts.anchors
    assert counts.positive == int(per_object.sum()) > 0
    assert 0 < counts.mined <= counts.background


def test_the_command(folder: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, figures = tmp_path / "m.html", tmp_path / "m.json"
    words = ["show", "matches", str(folder.config), "--images", "2", "--html", str(page), "--json", str(figures)]
    assert main(words) == 0
    out = capsys.readouterr().out
    content = json.loads(figures.read_text())
    assert len(content["images"]) == 2
    total = sum(level["positive"] for level in content["levels"].values())
    assert total == sum(o["positive"] for image in content["images"] for o in image["objects"]) > 0
    assert out.splitlines()[0].startswith("2 images of train as the network sees them in epoch 0; MaxIoUAssigner")
    assert page.read_text().count("<figure>") >= 4
    assert main(words) == 0  # its own files are replaced
    page.write_text("mine")
    assert main(words) == 2
    assert page.read_text() == "mine"


def test_a_run_is_shown_with_its_weights_and_classes(
    folder: Any, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "m.html"
    detector, _, classes = read_detector(str(trained), [])
    saved = Predictor.from_checkpoint(trained).detector.state_dict()
    assert all(torch.equal(value, saved[key]) for key, value in detector.state_dict().items())
    assert classes.names == ("<b>cat",)
    assert not detector.training
    untrained = read_detector(str(folder.config), [])[0].state_dict()
    assert any(not torch.equal(value, untrained[key]) for key, value in detector.state_dict().items())
    capsys.readouterr()
    assert main(["show", "matches", str(trained), "--split", "val", "--html", str(page)]) == 0
    assert capsys.readouterr().out.startswith("3 images of val as the network sees them in epoch 0; MaxIoUAssigner")
    assert f"<h1>Matches of {trained}</h1>" in page.read_text()
    assert page.read_text().count("ground truth: 1 object<") == 3
