from __future__ import annotations

from typing import Any

import pytest
import torch

from detkit.backbones.efficientnet import EfficientNet
from detkit.layers.padding import SamePadConv2d


@pytest.mark.parametrize("padding", ["same", "equal"])
@pytest.mark.parametrize("size", [(64, 96), (75, 101)])
def test_levels_are_as_declared(padding: Any, size: tuple[int, int]) -> None:
    backbone = EfficientNet(padding=padding).eval()
    levels = backbone(torch.zeros(1, 3, *size))
    assert [levels[n].shape[1] for n in backbone.out_shapes] == [40, 112, 320]
    for name, shape in backbone.out_shapes.items():
        assert levels[name].shape == (1, shape.channels, *(-(-side // shape.stride) for side in size))


def test_equal_padding_and_epsilon_are_torchvisions_and_its_weights_load(tmp_path: Any) -> None:
    from torchvision.models import efficientnet_b0

    torch.manual_seed(0)
    theirs = efficientnet_b0(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    backbone = EfficientNet(padding="equal", epsilon=1e-5, weights=str(tmp_path / "weights.pth")).eval()
    backbone.load_pretrained()
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(backbone(images)["c5"], theirs.features[:8](images))


def test_all_convolutions_with_a_stride_pad_as_tensorflow() -> None:
    assert sum(isinstance(m, SamePadConv2d) for m in EfficientNet().modules()) == 5
    assert not any(isinstance(m, SamePadConv2d) for m in EfficientNet(padding="equal").modules())


@pytest.mark.parametrize(("freeze_at", "stages"), [(0, 0), (1, 2), (2, 3), (3, 4), (5, 8)])
def test_frozen_stages(freeze_at: int, stages: int) -> None:
    backbone = EfficientNet(freeze_at=freeze_at)
    frozen = [not any(p.requires_grad for p in stage.parameters()) for stage in backbone.features]
    assert frozen == [i < stages for i in range(8)]
