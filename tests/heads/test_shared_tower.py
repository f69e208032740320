from typing import Any

import pytest
import torch

from detkit.heads.base import per_anchor
from detkit.heads.per_level import PerLevelHead
from detkit.heads.shared_tower import SharedTowerHead
from tests.refusals import Refuses


def head(**options: Any) -> Any:
    return SharedTowerHead(
        in_channels=(32, 32), anchors_per_cell=(3, 3), num_columns=5, class_bias=torch.arange(5.0), **options
    )


@pytest.mark.parametrize("norm", [None, "gn", "bn"])
def test_shapes_and_the_class_bias(norm: str | None) -> None:
    model = head(norm=norm, num_convs=2, channels=64)
    logits, deltas, quality, _ = model([torch.zeros(2, 32, 4, 6), torch.zeros(2, 32, 2, 3)])
    assert [x.shape for x in logits] == [(2, 72, 5), (2, 18, 5)]
    assert [x.shape for x in deltas] == [(2, 72, 4), (2, 18, 4)]
    assert quality is None
    if norm is None:  # nothing comes in, so every anchor shows its bias
        torch.testing.assert_close(logits[0], torch.arange(5.0).expand(2, 72, 5))


def test_no_towers_at_all() -> None:
    assert head(num_convs=0)([torch.zeros(1, 32, 1, 1)])[0][0].shape == (1, 3, 5)


def test_order_is_cell_by_cell_then_anchor_by_anchor() -> None:
    # Channel a * columns + c of cell (y, x) belongs to anchor a, column c of that cell.
    x = torch.arange(2 * 3 * 2 * 2).reshape(1, 6, 2, 2)
    rows = per_anchor(x, 3)
    assert rows.shape == (1, 8, 3)
    assert rows[0, 0].tolist() == [x[0, c, 0, 0].item() for c in (0, 1, 2)]
    assert rows[0, 1].tolist() == [x[0, c, 0, 0].item() for c in (3, 4, 5)]
    assert rows[0, 2].tolist() == [x[0, c, 0, 1].item() for c in (0, 1, 2)]
    assert rows[0, 4].tolist() == [x[0, c, 1, 0].item() for c in (0, 1, 2)]


def test_levels_that_differ_are_refused(refuses: Refuses) -> None:
    with refuses(ValueError):
        SharedTowerHead(in_channels=(8, 8), anchors_per_cell=(3, 4), num_columns=2, class_bias=torch.zeros(2))


@pytest.mark.parametrize("bad", [{"channels": 0}, {"num_convs": -1}])
def test_senseless_arguments_are_named(refuses: Refuses, bad: dict[str, Any]) -> None:
    with refuses(ValueError):
        head(**bad)


@pytest.mark.parametrize("part", [SharedTowerHead, PerLevelHead])
def test_only_the_class_outputs_depend_on_the_number_of_columns(part: Any) -> None:
    def start(columns: Any) -> Any:
        torch.manual_seed(0)
        handed_in = {"in_channels": (8, 8), "anchors_per_cell": (3, 3), "num_columns": columns}
        return dict(part(class_bias=torch.zeros(columns), **handed_in).named_parameters())

    seven, eight = start(7), start(8)
    others = [name for name in seven if "class_out" not in name]
    assert len(others) >= 4
    assert all(torch.equal(seven[name], eight[name]) for name in others)
