import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.backbones.timm import TimmBackbone
from tests.refusals import Refuses

MODELS = [
    ("resnet18", {}), ("mobilenetv3_small_050", {}), ("convnext_atto", {}), ("regnetx_002", {}), ("vgg11_bn", {}),
    ("swin_tiny_patch4_window7_224", {"strict_img_size": False}),
]  # fmt: skip


def test_without_timm_the_error_is_the_way_out(refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with refuses(ImportError):
        TimmBackbone(name="resnet18")


@pytest.fixture
def timm() -> Any:
    return pytest.importorskip("timm", reason="timm is not installed: pip install 'detkit[timm]'")


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_declared_shapes_are_real_and_every_parameter_learns(timm: Any, name: str, options: dict[Any, Any]) -> None:
    net = TimmBackbone(name=name, options=options)
    assert [s.stride for s in net.out_shapes.values()] == [8, 16, 32]
    for size in ((64, 64), (75, 101)):
        features = net(torch.randn(2, 3, *size))
        for level, shape in net.out_shapes.items():
            assert features[level].shape == (2, shape.channels, *(-(-side // shape.stride) for side in size))
    sum(f.square().sum() for f in features.values()).backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []


def test_computes_what_timm_computes_from_a_file(refuses: Refuses, timm: Any, tmp_path: Path) -> None:
    theirs = timm.create_model("resnet18").eval()
    torch.save(theirs.state_dict(), tmp_path / "r.pth")
    x = torch.randn(1, 3, 64, 64)
    for norm in (None, "frozen_bn"):
        net = TimmBackbone(name="resnet18", norm=norm, weights=str(tmp_path / "r.pth")).eval()
        net.load_pretrained()
        with torch.no_grad():
            torch.testing.assert_close(net(x)["c5"], theirs.forward_features(x), rtol=1e-4, atol=1e-4)
    with refuses(ValueError):
        TimmBackbone(name="resnet18", weights="nothing.pth").load_pretrained()


@pytest.mark.parametrize("norm", [None, "frozen_bn", "gn"])
def test_frozen_stages_have_no_gradient_and_keep_their_statistics(timm: Any, norm: Any) -> None:
    net = TimmBackbone(name="resnet18", freeze_at=2, norm=norm).train()
    state = {n: b.clone() for n, b in net.body.named_buffers() if n.startswith(("bn1", "layer1"))}
    sum(f.sum() for f in net(torch.randn(2, 3, 64, 64)).values()).backward()
    frozen = {n for n, p in net.body.named_parameters() if p.grad is None}
    assert frozen == {n for n, _ in net.body.named_parameters() if n.startswith(("conv1", "bn1", "layer1"))}
    assert all(torch.equal(b, state[n]) for n, b in net.body.named_buffers() if n in state)


def test_norms_with_an_activation_inside_keep_it(timm: Any) -> None:
    torch.manual_seed(0)
    plain = TimmBackbone(name="mobilenetv3_small_050").eval()
    torch.manual_seed(0)
    frozen = TimmBackbone(name="mobilenetv3_small_050", norm="frozen_bn").eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(plain(x)["c5"], frozen(x)["c5"], rtol=1e-3, atol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in frozen.modules())


@pytest.mark.parametrize(
    "arguments",
    [{"name": "resnet19"},
     {"name": "mixer_s16_224"},
     {"name": "resnet18", "out_features": ["c9"]},
     {"name": "resnet18", "freeze_at": 6},
     {"name": "convnext_atto", "norm": "gn"}],
)  # fmt: skip
def test_what_can_not_serve_says_why(refuses: Refuses, timm: Any, arguments: Any) -> None:
    with refuses(ValueError):
        TimmBackbone(**arguments)


@pytest.mark.parametrize(
    ("name", "options", "count", "first"),
    [
        ("resnet18", {}, 9, ["body.conv1", "body.bn1"]),
        ("vit_tiny_patch16_224", {"dynamic_img_size": True}, 13,
         ["body.model.cls_token", "body.model.pos_embed", "body.model.patch_embed"]),
    ],
)  # fmt: skip
def test_layers_run_from_the_image_to_the_last_block(
    name: str, options: dict[str, Any], count: int, first: list[str]
) -> None:
    layers = TimmBackbone(name=name, options=options).layer_names()
    assert (len(layers), layers[0]) == (count, first)
