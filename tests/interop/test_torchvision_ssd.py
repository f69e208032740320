"""A converted torchvision SSD computes what torchvision's own does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from detkit.interop.classes import coco_classes
from detkit.interop.files import Converted
from detkit.interop.names import TORCHVISION_SSD, TORCHVISION_SSDLITE, foreign_name
from detkit.interop.torchvision import convert_torchvision
from detkit.structures import Targets
from tests.refusals import Refuses

SIDES = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}
ANCHORS = {"ssd300_vgg16": 8732, "ssdlite320_mobilenet_v3_large": 3234}
COLUMNS = 6


def random_model(name: str, num_classes: int) -> Any:
    """In eval mode, with weights for which every norm matters and some hundred scores pass the threshold."""
    from torchvision.models import get_model

    torch.manual_seed(0)
    model = get_model(name, weights=None, weights_backbone=None, num_classes=num_classes)
    torch.manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.7, 1.3)
                module.bias.normal_(0, 0.1)
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
            elif isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, (1.5 / fan_in) ** 0.5)
                if module.bias is not None:
                    module.bias.normal_(0, 0.1)
        if name == "ssd300_vgg16":
            model.backbone.features[0].weight.mul_(0.02)  # its pixels are not divided by a deviation
            model.backbone.scale_weight.uniform_(10, 30)
    return model.eval()


@pytest.fixture(scope="module", params=SIDES)
def pair(request: Any, tmp_path_factory: Any) -> tuple[str, Any, Converted]:
    model = random_model(request.param, COLUMNS)
    path = tmp_path_factory.mktemp("torchvision") / "model.pth"
    torch.save(model.state_dict(), path)
    return request.param, model, convert_torchvision(path)


def pixels(side: int, count: int = 2) -> Tensor:
    """Blocks of colour, which a network tells apart better than noise."""
    generator = torch.Generator().manual_seed(2)
    coarse = torch.randint(0, 256, (count, 3, side // 20, side // 20), dtype=torch.uint8, generator=generator)
    return coarse.repeat_interleave(20, dim=2).repeat_interleave(20, dim=3).contiguous()


def floats(images: Tensor) -> list[Tensor]:
    return list(images.float() / 255)


def same_detections(found: Any, theirs: dict[str, Tensor], ids: tuple[int, ...]) -> None:
    """Each of theirs is one of ours and the other way round; two with nearly one score may change places."""
    assert len(found) == len(theirs["scores"])
    torch.testing.assert_close(found.scores, theirs["scores"], atol=1e-5, rtol=0)
    labels = torch.tensor(ids)[found.labels]
    same = (
        ((found.boxes[:, None] - theirs["boxes"]).abs().amax(-1) < 0.01)
        & ((found.scores[:, None] - theirs["scores"]).abs() < 1e-5)
        & (labels[:, None] == theirs["labels"])
    )
    assert torch.equal(same.sum(0), torch.ones(len(found), dtype=torch.int64))
    assert torch.equal(same.sum(1), torch.ones(len(found), dtype=torch.int64))


@torch.no_grad()
def test_raw_outputs_anchors_and_detections_are_equal(pair: Any) -> None:
    name, model, converted = pair
    images = pixels(SIDES[name])
    prepared, _ = model.transform(floats(images))
    features = list(model.backbone(prepared.tensors).values())
    theirs = model.head(features)
    anchors = model.anchor_generator(prepared, features)
    pred = converted.detector(images)
    assert tuple(prepared.tensors.shape) == tuple(images.shape)
    assert theirs["cls_logits"].std() > 0.1
    assert theirs["bbox_regression"].std() > 0.1
    # torchvision's background is column 0, detkit's the last.
    torch.testing.assert_close(pred.logits, theirs["cls_logits"].roll(-1, dims=2), atol=1e-4, rtol=0)
    torch.testing.assert_close(pred.deltas, theirs["bbox_regression"], atol=1e-4, rtol=0)
    torch.testing.assert_close(pred.anchors, anchors[0], atol=1e-4, rtol=0)
    assert len(pred.anchors) == ANCHORS[name]
    sizes = torch.full((len(images), 2), SIDES[name])
    for found, expected in zip(converted.detector.detect(pred, sizes), model(floats(images)), strict=True):
        assert len(found) > 20
        assert len(found.labels.unique()) > 1
        same_detections(found, expected, converted.classes.ids)


def targets(side: int) -> list[Targets]:
    """Boxes of several sizes, one of them too thin for any anchor to reach 0.5; the second image is empty.

    No box has two anchors that are its best, between which rounding would decide.
    """
    boxes = torch.tensor([[8.0, 10.0, 64.0, 90.0], [30.0, 5.0, 250.0, 261.0], [204.0, 89.0, 295.0, 102.0]])
    return [
        Targets(boxes * side / 300, torch.tensor([1, 4, 2])),
        Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
        Targets(boxes[:1] + 31, torch.tensor([3])),
    ]


def test_training_losses_are_equal(pair: Any) -> None:
    """In training mode, statistics of the batch included; detkit's floor of negatives is 0 there."""
    name, model, converted = pair
    images, wanted = pixels(SIDES[name], 3), targets(SIDES[name])
    assert converted.config.losses.classification.floor == 0
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    converted.detector.train()
    try:
        with torch.no_grad():
            theirs = model(floats(images), [{"boxes": t.boxes, "labels": t.labels + 1} for t in wanted])
            ours = converted.detector.loss(converted.detector(images), wanted)
    finally:
        model.load_state_dict(before)
        model.eval()
        converted.detector.eval()
    assert ours.normalizer > 5
    torch.testing.assert_close(ours.classification / ours.normalizer, theirs["classification"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ours.box / ours.normalizer, theirs["bbox_regression"], rtol=1e-4, atol=1e-6)


SLOW_300 = [pytest.param("ssd300_vgg16", marks=pytest.mark.slow), "ssdlite320_mobilenet_v3_large"]


@pytest.mark.parametrize("pair", SLOW_300, indirect=True)
def test_a_training_step_of_the_converted_model_is_torchvisions(pair: Any) -> None:
    """The whole loss with its normalisation and mining, as converted, and the gradient of all weights."""
    name, model, converted = pair
    images, wanted = pixels(SIDES[name], 3), targets(SIDES[name])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    rules = TORCHVISION_SSDLITE if "lite" in name else TORCHVISION_SSD
    model.train()
    converted.detector.train()
    try:
        model.zero_grad()
        theirs = sum(model(floats(images), [{"boxes": t.boxes, "labels": t.labels + 1} for t in wanted]).values())
        theirs.backward()
        converted.detector.zero_grad()
        ours = converted.detector.loss(converted.detector(images), wanted)
        divisors = converted.detector.end_step(ours.normalizers, converted.detector.take_accumulated())
        loss = ours.over(divisors)
        loss.backward()
    finally:
        model.load_state_dict(before)
        model.eval()
        converted.detector.eval()
    torch.testing.assert_close(loss.float(), theirs.detach(), rtol=1e-4, atol=1e-6)
    expected = {n: p.grad for n, p in model.named_parameters()}
    learnt = {n: p for n, p in converted.detector.named_parameters() if p.requires_grad}
    assert len(learnt) > 50
    scale = max(float(g.norm()) for g in expected.values() if g is not None)
    for key, parameter in learnt.items():  # a sum near 0 may fall on either side of a ReLU
        want, found = expected[foreign_name(key, rules)], parameter.grad
        if re.search(r"head\.class_out\.\d+\.(1\.)?(weight|bias)$", key):
            want = want.unflatten(0, (-1, COLUMNS)).roll(-1, dims=1).flatten(0, 1)  # background is the last there
        assert float((found - want).norm()) <= 1e-2 * float(want.norm()) + 1e-5 * scale, key
    frozen = {foreign_name(n, rules) for n, p in converted.detector.named_parameters() if not p.requires_grad}
    assert frozen == (
        set() if "lite" in name else {f"backbone.features.{i}.{k}" for i in (0, 2) for k in ("weight", "bias")}
    )


@torch.no_grad()
def test_coco_keeps_the_columns_with_a_class_and_background_last(tmp_path: Path) -> None:
    name = "ssdlite320_mobilenet_v3_large"
    model = random_model(name, 91)
    path = tmp_path / "coco.pth"
    torch.save({"model": model.state_dict()}, path)
    cut, whole = convert_torchvision(path), convert_torchvision(path, keep_all_columns=True)
    assert (len(cut.classes), len(whole.classes)) == (80, 90)
    assert cut.classes.ids == tuple(coco_classes())
    assert (cut.classes.names[0], whole.classes.names[0], whole.classes.names[11]) == ("person", "person", "unused-12")
    assert any("80 of 90 classes kept" in note for note in cut.notes)
    images = pixels(320, 1)
    prepared, _ = model.transform(floats(images))
    theirs = model.head(list(model.backbone(prepared.tensors).values()))["cls_logits"]
    kept = theirs[..., [*coco_classes(), 0]]
    torch.testing.assert_close(cut.detector(images).logits, kept, atol=1e-4, rtol=0)
    (found,) = whole.detector.detect(whole.detector(images), torch.tensor([[320, 320]]))
    same_detections(found, model(floats(images))[0], whole.classes.ids)


def test_names_are_given_with_or_without_background(pair: Any, tmp_path: Path) -> None:
    _, model, unnamed = pair
    path = tmp_path / "model.pth"
    torch.save(model.state_dict(), path)
    for names in (["a", "b", "c", "d", "e"], ["none", "a", "b", "c", "d", "e"]):
        converted = convert_torchvision(path, classes=names)
        assert converted.classes.names == ("a", "b", "c", "d", "e")
        assert converted.classes.ids == (1, 2, 3, 4, 5)
    assert unnamed.classes.names[0] == "class-1"
    assert any("set them with --classes" in note for note in unnamed.notes)


def test_what_does_not_fit_is_said(refuses: Refuses, pair: Any, tmp_path: Path) -> None:
    _, model, _ = pair
    path = tmp_path / "model.pth"
    state = dict(model.state_dict())
    torch.save(state, path)
    with refuses(ValueError):
        convert_torchvision(path, norm_eps=0.0)
    gone = next(key for key in state if key.startswith("backbone.extra.2"))
    del state[gone]
    torch.save(state, path)
    with refuses(ValueError):
        convert_torchvision(path)


def test_by_name_and_through_the_command_line(tmp_path: Path, capsys: Any) -> None:
    import numpy as np

    from detkit.cli import main
    from detkit.predict.predictor import Predictor

    name, output = "ssdlite320_mobilenet_v3_large", tmp_path / "lite.pt"
    model = random_model(name, 91)
    torch.save(model.state_dict(), tmp_path / "published.pth")
    with mock.patch("detkit.interop.torchvision.torchvision_file", return_value=tmp_path / "published.pth"):
        assert main(["convert", "torchvision", name, "--keep-columns", "--output", str(output)]) == 0
    assert "90 classes, from ssdlite320_mobilenet_v3_large" in capsys.readouterr().out
    image = pixels(320, 1)
    (found,) = Predictor.from_checkpoint(output, device="cpu")(np.asarray(image[0].permute(1, 2, 0)))
    with torch.no_grad():
        same_detections(found, model(floats(image))[0], tuple(range(1, 91)))
