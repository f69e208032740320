"""`--init-from` takes over no last layer whose numbers mean something else in the new config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.structures import ClassMap
from detkit.train.meaning import Differences, differences
from detkit.train.weights import format_rows, init_from, last_layers

ROOT = Path(__file__).resolve().parents[2]
CLASSES = ClassMap(("cat", "dog"), (1, 2))
RETINANET = ["backbone.depth=18", "neck.channels=16", "head.num_convs=1"]
BOX = {"head.box_out.weight", "head.box_out.bias"}
CLASS = {"head.class_out.weight", "head.class_out.bias"}


def model(*overrides: str, base: str = "retinanet") -> tuple[Any, Any]:
    small = RETINANET if base == "retinanet" else ["backbone.width=0.0625", "neck.channels=[16, 8, 8, 8]"]
    config = load_config(ROOT / f"configs/base/{base}.yaml", [*small, *overrides])
    torch.manual_seed(len(overrides))
    return build_detector(config, len(CLASSES)), config


def started(old: list[str], new: list[str], base: str = "retinanet") -> tuple[dict[str, Any], Differences, Any, Any]:
    """Rows by name, the differences, and both detectors, of a run with the overrides `new` from one with `old`."""
    (theirs, saved), (mine, config) = model(*old, base=base), model(*new, "train.iterations=1", base=base)
    changed = differences(saved.to_dict(), config, mine)
    columns = tuple(d.class_loss.num_columns(len(CLASSES)) for d in (theirs, mine))
    rows = init_from(mine, theirs.state_dict(), CLASSES, CLASSES, columns, changed)
    return {row.name: row for row in rows}, changed, theirs, mine


def fresh(rows: dict[str, Any]) -> set[str]:
    return {name for name, row in rows.items() if row.status == "reinit"}


def test_the_same_config_is_loaded_whole() -> None:
    rows, changed, theirs, mine = started([], [])
    assert {row.status for row in rows.values()} == {"loaded"}
    assert changed == Differences()
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in mine.state_dict().items())


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ([], ["anchors.base_scale=2.5"], "other anchors: [45.3, 22.6] px there, [28.3, 14.1] here, at stride 8"),
        ([], ["anchors.aspect_ratios=[0.25, 1.0, 2.0]"], "other anchors: [45.3, 22.6] px there, [64.0, 16.0] here"),
        ([], ["anchors.aspect_ratios=[2.0, 1.0, 0.5]"], "other anchors: [45.3, 22.6] px there, [22.6, 45.3] here"),
        ([], ["anchors.scales_per_octave=2"], "other anchors: 9 a cell there, 6 here, at stride 8"),
        ([], ["anchors.offset=0.5"], "other anchors: of the same size elsewhere in their cells, at stride 8"),
        ([], ["anchors={type: TorchvisionAnchors}"], "other anchors:"),
        (["anchors.base_scale=8.0"], [], "other anchors:"),
    ],
)
def test_other_anchors_leave_the_last_layers_as_initialised_and_load_the_towers(
    old: list[str], new: list[str], reason: str
) -> None:
    rows, _, theirs, mine = started(old, new)
    first = model(*new, "train.iterations=1")[0].state_dict()
    assert fresh(rows) == BOX | CLASS
    assert all(rows[name].note.startswith(reason) for name in BOX | CLASS)
    for name in BOX | CLASS:
        assert torch.equal(mine.state_dict()[name], first[name])
    assert rows["head.box_tower.0.weight"].status == rows["head.class_tower.0.weight"].status == "loaded"
    assert torch.equal(mine.head.box_tower[0].weight, theirs.head.box_tower[0].weight)
    assert reason in format_rows(list(rows.values()))


def test_more_levels_of_the_same_anchors_are_the_same_anchors() -> None:
    rows, changed, _, _ = started([], ["neck.extra_levels=1"])
    assert changed.anchors == ""
    assert not BOX & fresh(rows)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("coder.weights=[10.0, 10.0, 5.0, 5.0]", "another coder: DeltaCoder with weights [1.0, 1.0, 1.0, 1.0] there, "),
    ],
)
def test_another_coder_is_an_affair_of_the_boxes_alone(override: str, reason: str) -> None:
    rows, _, _, _ = started([], [override])
    assert fresh(rows) == BOX
    assert all(rows[name].note.startswith(reason) for name in BOX)


def test_another_link_is_an_affair_of_the_classes_alone() -> None:
    rows, _, _, _ = started([], ["losses.classification={type: SoftmaxMiningLoss}"])
    assert fresh(rows) == CLASS
    assert all("another class link: SigmoidFocalLoss there, SoftmaxMiningLoss here" in rows[n].note for n in CLASS)


@pytest.mark.parametrize(
    "loss", ["{type: BCELoss}", "{type: QualityFocalLoss}", "{type: SigmoidFocalLoss, gamma: 1.0}"]
)
def test_another_loss_with_the_same_link_is_loaded(loss: str) -> None:
    rows, changed, _, _ = started([], [f"losses.classification={loss}"])
    assert not fresh(rows)
    assert changed.link == ""


def test_other_pixels_and_other_wiring_are_told() -> None:
    _, changed, _, _ = started([], ["pixels.order=bgr", "backbone.norm=bn", "neck.extra_from=p5"])
    assert changed.notes == (
        "pixels.order: the weights were trained with rgb, here it is bgr",
        "neck.extra_from: the weights were trained with c5, here it is p5",
    )
    _, changed, _, _ = started([], ["pixels.std=[1.0, 1.0, 1.0]", "backbone.freeze_at=2"])
    assert [note.partition(":")[0] for note in changed.notes] == ["pixels.std"]


def test_a_head_with_layers_for_each_level_loads_the_levels_that_mean_the_same() -> None:
    ratios = "anchors.aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [3]]"
    rows, changed, _, _ = started([], [ratios], base="ssd")
    assert list(changed.levels) == [5]
    assert fresh(rows) == {
        f"head.{branch}.5.{kind}" for branch in ("class_out", "box_out") for kind in ("weight", "bias")
    }


def test_a_checkpoint_whose_parts_are_unknown_gives_no_last_layer() -> None:
    (_, saved), (mine, config) = model(), model()
    old = saved.to_dict()
    old["neck"] = {"type": "NeckOfAPlugin"}
    changed = differences(old, config, mine)
    assert "anchors that can't be compared" in changed.of_boxes(None)
    assert "NeckOfAPlugin" in changed.of_classes(3)


def test_a_layer_before_the_last_is_no_class_layer_though_the_columns_divide_its_width() -> None:
    """As in SSDlite, whose depthwise layers come before the predictors: 672 channels and 7 columns."""
    state = {
        "head.class_out.0.0.0.weight": torch.ones(672, 1, 3, 3), "head.class_out.0.0.1.weight": torch.ones(672),
        "head.class_out.0.1.weight": torch.ones(42, 672, 1, 1), "head.class_out.0.1.bias": torch.ones(42),
        "head.class_out.1.0.0.weight": torch.ones(42, 1, 3, 3), "head.class_out.1.1.weight": torch.ones(42, 42, 1, 1),
    }  # fmt: skip
    assert last_layers(state, "class_out", 7, (6, 6)) == {
        "head.class_out.0.1.weight": 0, "head.class_out.0.1.bias": 0, "head.class_out.1.1.weight": 1,
    }  # fmt: skip
