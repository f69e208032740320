"""Distances from a point to the edges, by hand and there and back."""

from __future__ import annotations

import pytest
import torch

from detkit.coders.distance import DistanceCoder, DistributionCoder

ANCHOR, BOX = torch.tensor([[8.0, 8, 16, 16]]), torch.tensor([[4.0, 0, 20, 36]])  # the point (12, 12), 8 px wide


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [({}, [1, 1.5, 1, 3]), ({"unit": "pixels"}, [8, 12, 8, 24]), ({"scale": 0.125}, [8, 12, 8, 24])],
)
def test_distances_there_and_back(settings: dict[str, object], wanted: list[float]) -> None:
    coder = DistanceCoder(**settings)  # type: ignore[arg-type]
    deltas = coder.encode(BOX, ANCHOR)
    assert deltas.tolist() == [wanted]
    torch.testing.assert_close(coder.decode(deltas, ANCHOR), BOX)


def test_links() -> None:
    exp, relu = DistanceCoder(link="exp"), DistanceCoder(link="relu")
    torch.testing.assert_close(exp.encode(BOX, ANCHOR).exp(), torch.tensor([[1, 1.5, 1, 3]]))
    torch.testing.assert_close(exp.decode(exp.encode(BOX, ANCHOR), ANCHOR), BOX)
    assert relu.decode(torch.full((1, 4), -1.0), ANCHOR).tolist() == [[12, 12, 12, 12]]


def test_a_distribution_expects_the_distance() -> None:
    coder = DistributionCoder(bins=2, scale=1.0)
    logits = torch.full((1, 4, 3), -50.0)
    logits[..., 0] = logits[..., 2] = 0  # half 0 and half 2: 1 side
    torch.testing.assert_close(coder.decode(logits.view(1, 12), ANCHOR), torch.tensor([[4.0, 4, 20, 20]]))
