import torch

from detkit.necks.ssd_extra_levels import NoNeck
from detkit.structures import FeatureShape


def test_is_the_identity() -> None:
    shapes = {"c3": FeatureShape(8, 8), "c4": FeatureShape(12, 16)}
    neck = NoNeck(in_shapes=shapes)
    features = {n: torch.randn(1, s.channels, 4, 4) for n, s in shapes.items()}
    assert neck.out_shapes == shapes
    assert neck(features) is features
    assert not list(neck.parameters())
