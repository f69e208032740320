import hashlib
import io
import logging
from pathlib import Path

import pytest
import torch
from torchvision import models

from detkit.backbones.resnet import ResNet
from detkit.backbones.torchvision import TorchvisionBackbone
from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.hub import names
from detkit.layers.norms import FrozenBatchNorm2d
from detkit.structures import Targets
from tests.refusals import Refuses
from tests.web import Web

RETINANET = Path(__file__).parents[2] / "configs/base/retinanet.yaml"
SMALL = ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "regnet_y_400mf", "efficientnet_b0", "densenet121"]
LARGE = ["convnext_tiny", "swin_t", "vgg11"]


@pytest.mark.parametrize("name", SMALL + LARGE)
def test_declared_shapes_are_real_and_every_parameter_learns(name: str) -> None:
    net = TorchvisionBackbone(name=name)
    assert [s.stride for s in net.out_shapes.values()] == [8, 16, 32]
    for size in ((64, 64), (75, 101)):
        features = net(torch.randn(2, 3, *size))
        assert list(features) == ["c3", "c4", "c5"]
        for level, shape in net.out_shapes.items():
            assert features[level].shape == (2, shape.channels, *(-(-side // shape.stride) for side in size))
    sum(f.square().sum() for f in features.values()).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("name", "blocks"), [("mobilenet_v3_small", "features"), ("swin_t", "permute")])
def test_computes_what_the_network_computes(name: str, blocks: str) -> None:
    torch.manual_seed(0)
    theirs = models.get_model(name, weights=None).eval()
    torch.manual_seed(0)
    ours = TorchvisionBackbone(name=name).eval()
    x, seen = torch.randn(1, 3, 64, 96), []
    theirs.get_submodule(blocks).register_forward_hook(lambda _, __, out: seen.append(out.clone()))
    with torch.no_grad():
        theirs(x)
        torch.testing.assert_close(ours(x)["c5"], seen[0], rtol=0, atol=0)


def test_blocks_behind_the_last_level_are_left_out(refuses: Refuses) -> None:
    short = TorchvisionBackbone(name="resnet18", out_features=["c2", "c3"])
    assert {n: s.stride for n, s in short.out_shapes.items()} == {"c2": 4, "c3": 8}
    assert not any("layer3" in n for n, _ in short.named_parameters())
    with refuses(ValueError):
        TorchvisionBackbone(name="resnet18", out_features=["c6"])


def test_norms_are_replaced_with_their_epsilon(refuses: Refuses) -> None:
    frozen = TorchvisionBackbone(name="mobilenet_v3_small", norm="frozen_bn")
    norms = [m for m in frozen.modules() if isinstance(m, FrozenBatchNorm2d)]
    assert {m.eps for m in norms} == {0.001}
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in frozen.modules())
    assert any(isinstance(m, torch.nn.GroupNorm) for m in TorchvisionBackbone(name="resnet18", norm="gn").modules())
    with refuses(ValueError):
        TorchvisionBackbone(name="convnext_tiny", norm="bn")


def test_frozen_blocks_have_no_gradient_and_keep_their_statistics(refuses: Refuses) -> None:
    net = TorchvisionBackbone(name="resnet18", freeze_at=2).train()
    norm = net.stages["c2"].layer1_0.bn1
    before = norm.running_mean.clone()
    sum(f.sum() for f in net(torch.randn(2, 3, 64, 64)).values()).backward()
    assert torch.equal(before, norm.running_mean)
    frozen = {n for n, p in net.named_parameters() if p.grad is None}
    assert frozen == {n for n, _ in net.named_parameters() if n.startswith(("stages.c1.", "stages.c2."))}
    assert {n.split(".")[2] for n in frozen} == {"conv1", "bn1", "layer1_0", "layer1_1"}
    with refuses(ValueError):
        TorchvisionBackbone(name="swin_t", freeze_at=1)


def test_weights_of_a_file_give_the_same_features(
    refuses: Refuses, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = models.mobilenet_v3_small(weights=None)
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
    torch.save(theirs.state_dict(), tmp_path / "m.pth")
    plain, frozen = (
        TorchvisionBackbone(name="mobilenet_v3_small", norm=n, weights=str(tmp_path / "m.pth")).eval()
        for n in (None, "frozen_bn")
    )
    plain.load_pretrained(), frozen.load_pretrained()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        want = theirs.eval().features(x)
        torch.testing.assert_close(plain(x)["c5"], want)
        torch.testing.assert_close(frozen(x)["c5"], want, rtol=1e-3, atol=1e-3)
    again = TorchvisionBackbone(name="mobilenet_v3_small").eval()
    again.load_state_dict(plain.state_dict())
    assert torch.equal(again(x)["c5"], plain(x)["c5"])
    for bad in (str(tmp_path / "m.pth"),
                      "IMAGENET"):  # fmt: skip
        with refuses(ValueError):
            TorchvisionBackbone(name="resnet18", weights=bad).load_pretrained()
    with caplog.at_level(logging.WARNING, logger="detkit"):
        TorchvisionBackbone(name="resnet18", norm="frozen_bn").load_pretrained()
    assert "random weights" in caplog.text


def publish(web: Web, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes) -> None:
    """Serves a file in the place of torchvision's weights."""
    digits = hashlib.sha256(content).hexdigest()[:8]
    web.files[f"/{name}"] = content
    source = names.Published(f"{web.url}/{name}", digits)
    monkeypatch.setattr(names, "torchvision_source", lambda _: source)


def test_weights_that_can_not_be_fetched_name_their_address(
    web: Web, refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(web, monkeypatch, "resnet18-f37072fd.pth", b"")
    web.files.clear()
    with refuses(OSError):
        TorchvisionBackbone(name="resnet18", weights="default").load_pretrained()


def test_published_weights_come_from_the_cache(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's own loading reads the file that detkit has fetched; the random stream stays as it was."""
    state = models.resnet18(weights=None).state_dict()
    saved = io.BytesIO()
    torch.save(state, saved)
    publish(web, monkeypatch, "resnet18-f37072fd.pth", saved.getvalue())
    before = torch.hub.get_dir()
    for weights in ("default", "IMAGENET1K_V1"):
        net = TorchvisionBackbone(name="resnet18", weights=weights)
        net.load_pretrained()
        assert torch.equal(net.state_dict()["stages.c1.conv1.weight"], state["conv1.weight"])
    own = ResNet(depth=18, weights="IMAGENET1K_V1")
    own.load_pretrained()
    assert torch.equal(own.state_dict()["stem.conv1.weight"], state["conv1.weight"])
    assert len(web.requests) == 1
    assert torch.hub.get_dir() == before


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_weights_by_address(web: Web, ending: str) -> None:
    from safetensors.torch import save

    state = models.resnet18(weights=None).state_dict()
    saved = io.BytesIO()
    torch.save(state, saved)
    web.files[f"/r18.{ending}"] = saved.getvalue() if ending == "pth" else save(state)
    net = ResNet(depth=18, weights=f"{web.url}/r18.{ending}")
    net.load_pretrained()
    assert torch.equal(net.state_dict()["stem.conv1.weight"], state["conv1.weight"])


def test_other_numbers_of_channels_keep_the_response(tmp_path: Path) -> None:
    torch.save(models.resnet18(weights=None).state_dict(), tmp_path / "r18.pth")
    nets = [TorchvisionBackbone(name="resnet18", in_channels=c, weights=str(tmp_path / "r18.pth")) for c in (3, 4)]
    for net in nets:
        net.eval().load_pretrained()
    grey = torch.randn(1, 1, 64, 64)
    rgb, four = (net(grey.expand(1, c, 64, 64))["c5"] for net, c in zip(nets, (3, 4), strict=True))
    torch.testing.assert_close(rgb, four, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name",
    ["mobilenet_v3_larg", "fasterrcnn_resnet50_fpn",
     "squeezenet1_1", "vit_b_32"],
)  # fmt: skip
def test_what_can_not_serve_says_why(refuses: Refuses, name: str) -> None:
    with refuses(ValueError):
        TorchvisionBackbone(name=name)


def test_one_training_step_of_a_retinanet() -> None:
    overrides = ["backbone.type=TorchvisionBackbone", "backbone.name=mobilenet_v3_large", "neck.channels=32"]
    detector = build_detector(load_config(RETINANET, [*overrides, "head.num_convs=1"]), 2)
    pred = detector(torch.randint(0, 256, (2, 3, 64, 75), dtype=torch.uint8), torch.tensor([[64, 75], [60, 70]]))
    targets = [Targets(torch.tensor([[3.0, 4, 40, 50]]), torch.tensor([1])) for _ in range(2)]
    loss = detector.loss(pred, targets).mean()
    loss.backward()
    assert torch.isfinite(loss)
    assert [n for n, p in detector.named_parameters() if p.grad is None] == []
