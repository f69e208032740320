import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.models import resnet18, resnet50

from detkit.backbones.resnet import ResNet
from detkit.registry import BACKBONES
from tests.refusals import Refuses


@pytest.mark.parametrize("size", [64, 97])
def test_declared_shapes_are_real_at_odd_sizes(size: int) -> None:
    net = ResNet(depth=18, norm="gn", out_features=["c2", "c3", "c4", "c5"])
    features = net(torch.zeros(1, 3, size, size))
    assert list(features) == list(net.out_shapes) == ["c2", "c3", "c4", "c5"]
    for name, shape in net.out_shapes.items():
        side = -(-size // shape.stride)
        assert features[name].shape == (1, shape.channels, side, side)


def test_loads_torchvision_weights_and_computes_the_same(tmp_path: Path) -> None:
    theirs = resnet18(weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
    torch.save(theirs.state_dict(), tmp_path / "r18.pth")
    ours = ResNet(depth=18, norm="frozen_bn", weights=str(tmp_path / "r18.pth"))
    ours.load_pretrained()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        y = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(y))))
        torch.testing.assert_close(ours(x)["c5"], y, rtol=1e-4, atol=1e-4)


def test_weights_of_another_depth_or_name_are_refused(refuses: Refuses, tmp_path: Path) -> None:
    torch.save(resnet50(weights=None).state_dict(), tmp_path / "r50.pth")
    net = ResNet(depth=18, weights=str(tmp_path / "r50.pth"))
    with refuses((ValueError, RuntimeError)):
        net.load_pretrained()
    with refuses(ValueError):
        ResNet(depth=18, weights="nothing.pth").load_pretrained()


def test_frozen_stages_have_no_gradient_and_keep_their_statistics() -> None:
    net = ResNet(depth=18, norm="bn", freeze_at=2).train()
    before = net.layer1[0].bn1.running_mean.clone()
    sum(f.sum() for f in net(torch.randn(2, 3, 64, 64)).values()).backward()
    assert net.stem.conv1.weight.grad is None
    assert net.layer1[0].conv1.weight.grad is None
    assert net.layer2[0].conv1.weight.grad is not None
    assert torch.equal(before, net.layer1[0].bn1.running_mean)
    assert net.layer2[0].bn1.num_batches_tracked == 1


def test_stride_in_1x1_moves_the_stride(refuses: Refuses) -> None:
    net = ResNet(depth=50, stride_in_1x1=True)
    assert net.layer2[0].conv1.stride == (2, 2)
    assert net.layer2[0].conv2.stride == (1, 1)
    assert net(torch.zeros(1, 3, 64, 64))["c5"].shape == (1, 2048, 2, 2)
    with refuses(ValueError):
        ResNet(depth=18, stride_in_1x1=True)


def test_other_numbers_of_channels_keep_the_response(tmp_path: Path) -> None:
    torch.save(resnet18(weights=None).state_dict(), tmp_path / "r18.pth")
    rgb, four = (ResNet(depth=18, in_channels=c, weights=str(tmp_path / "r18.pth")).eval() for c in (3, 4))
    rgb.load_pretrained(), four.load_pretrained()
    grey = torch.randn(1, 1, 64, 64)
    torch.testing.assert_close(
        rgb(grey.repeat(1, 3, 1, 1))["c5"], four(grey.repeat(1, 4, 1, 1))["c5"], rtol=1e-3, atol=1e-4
    )


def test_frozen_norm_over_random_weights_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="detkit"):
        ResNet(depth=18, norm="gn").load_pretrained()
        assert not caplog.records
        ResNet(depth=18, norm="frozen_bn").load_pretrained()
    assert "random weights" in caplog.text


@pytest.mark.parametrize(("argument", "value"), [("freeze_at", 6), ("out_features", ["c6"]), ("out_features", [])])
def test_senseless_arguments_are_named(refuses: Refuses, argument: Any, value: Any) -> None:
    with refuses(ValueError):
        ResNet(depth=18, **{argument: value})


def test_stages_above_the_last_wanted_level_are_left_out(tmp_path: Path) -> None:
    torch.save(resnet18(weights=None).state_dict(), tmp_path / "r18.pth")
    net = ResNet(depth=18, out_features=["c3", "c4"], weights=str(tmp_path / "r18.pth"))
    net.load_pretrained()
    assert list(net(torch.zeros(1, 3, 64, 64))) == ["c3", "c4"]
    assert not any(name.startswith("layer4") for name, _ in net.named_parameters())


@pytest.mark.parametrize("kind", ["ResNet", "MobileNetV3", "TorchvisionBackbone"])
@pytest.mark.parametrize(
    "content",
    [
        b"junk",
        {"model": {"stem": torch.zeros(1)}},
        {"stem": torch.zeros(1)},
    ],
)
def test_a_file_that_holds_no_such_weights_is_named(
    refuses: Refuses, content: bytes | dict[str, Any], kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    more: Any = {"TorchvisionBackbone": {"name": "resnet18"}, "MobileNetV3": {"reduced_tail": False}}.get(kind, {})
    net = BACKBONES.build({"type": kind, "weights": str(path), **more})
    with refuses(ValueError):
        net.load_pretrained()


def test_weights_of_another_depth_are_refused_by_shape(refuses: Refuses, tmp_path: Path) -> None:
    torch.save(resnet50().state_dict(), tmp_path / "r50.pt")
    net = BACKBONES.build({"type": "ResNet", "depth": 18, "weights": str(tmp_path / "r50.pt")})
    with refuses(ValueError):
        net.load_pretrained()
