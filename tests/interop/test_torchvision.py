"""A converted torchvision RetinaNet computes what torchvision's own does."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from detkit.interop.classes import coco_classes
from detkit.interop.files import Converted
from detkit.interop.names import foreign_name, torchvision_rules
from detkit.interop.torchvision import convert_torchvision
from detkit.losses.normalizers import PositiveCount
from detkit.structures import Targets
from tests.refusals import Refuses
from tests.web import Web

NAMES = ("retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2")
COLUMNS = 6
SIZES = [[(160, 192)], [(97, 131)], [(128, 160), (150, 99), (64, 170)]]


@pytest.fixture(scope="module", params=NAMES)
def pair(request: Any, tmp_path_factory: Any, torchvision_models: Any) -> tuple[Any, Converted]:
    model = torchvision_models.random_model(request.param, COLUMNS)
    path = tmp_path_factory.mktemp("torchvision") / "model.pth"
    torch.save(model.state_dict(), path)
    return model, convert_torchvision(path)


def pixels(sizes: list[tuple[int, int]]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(0, 256, (3, h, w), dtype=torch.uint8, generator=generator) for h, w in sizes]


def padded(images: list[Tensor]) -> tuple[Tensor, Tensor]:
    """One uint8 batch with sides that are multiples of 32, and the sizes inside it."""
    sizes = torch.tensor([image.shape[1:] for image in images])
    height, width = ((sizes.amax(0) + 31) // 32 * 32).tolist()
    batch = torch.zeros(len(images), 3, height, width, dtype=torch.uint8)
    for slot, image in zip(batch, images, strict=True):
        slot[:, : image.shape[1], : image.shape[2]] = image
    return batch, sizes


def floats(images: list[Tensor]) -> list[Tensor]:
    return [image.float() / 255 for image in images]


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


@pytest.mark.parametrize("sizes", SIZES, ids=["one", "odd", "unequal"])
@torch.no_grad()
def test_raw_outputs_anchors_and_detections_are_equal(pair: Any, sizes: list[tuple[int, int]]) -> None:
    model, converted = pair
    images = pixels(sizes)
    prepared, _ = model.transform(floats(images))
    features = list(model.backbone(prepared.tensors).values())
    theirs = model.head(features)
    anchors = model.anchor_generator(prepared, features)
    batch, inside = padded(images)
    pred = converted.detector(batch, inside)
    assert tuple(prepared.tensors.shape) == tuple(batch.shape)
    assert theirs["cls_logits"].std() > 0.1
    torch.testing.assert_close(pred.logits, theirs["cls_logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(pred.deltas, theirs["bbox_regression"], atol=1e-4, rtol=0)
    torch.testing.assert_close(pred.anchors, anchors[0], atol=0, rtol=0)
    for found, expected in zip(converted.detector.detect(pred, inside), model(floats(images)), strict=True):
        assert len(found) > 20
        assert len(found.labels.unique()) > 1
        same_detections(found, expected, converted.classes.ids)


@torch.no_grad()
def test_another_depth_and_frozen_norms_are_read_off_the_tensors(torchvision_models: Any, tmp_path: Path) -> None:
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    torch.manual_seed(0)
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=None,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    model = RetinaNet(backbone, num_classes=COLUMNS)
    torchvision_models.randomise(model)
    torchvision_models.without_resize(model)
    torch.save(model.state_dict(), tmp_path / "r18.pth")
    converted = convert_torchvision(tmp_path / "r18.pth")
    assert converted.config.backbone.depth == 18
    assert converted.config.backbone.norm == "frozen_bn"
    images = pixels([(96, 128)])
    prepared, _ = model.transform(floats(images))
    theirs = model.head(list(model.backbone(prepared.tensors).values()))
    pred = converted.detector(*padded(images))
    torch.testing.assert_close(pred.logits, theirs["cls_logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(pred.deltas, theirs["bbox_regression"], atol=1e-4, rtol=0)


def targets_for(sizes: list[tuple[int, int]]) -> list[Targets]:
    """Boxes of several sizes, one of them too small for any anchor's threshold; the second image is empty."""
    boxes = torch.tensor([[8.0, 10.0, 60.0, 58.0], [30.0, 5.0, 62.0, 61.0], [4.0, 4.0, 13.0, 11.0]])
    one = Targets(boxes, torch.tensor([1, 4, 2]))
    return [
        one,
        Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)),
        Targets(boxes[:1], torch.tensor([3])),
    ][: len(sizes)]


@torch.no_grad()
def torchvision_losses(model: Any, images: list[Tensor], targets: list[Targets]) -> dict[str, Tensor]:
    model.train()
    model.backbone.eval()
    losses = model(floats(images), [{"boxes": t.boxes, "labels": t.labels} for t in targets])
    model.eval()
    return {"classification": losses["classification"], "box": losses["bbox_regression"]}


@torch.no_grad()
def test_losses_are_equal_for_an_image_and_related_as_documented_for_a_batch(
    pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, converted = pair
    sizes = [(128, 160), (150, 99), (64, 170)]
    images, targets = pixels(sizes), targets_for(sizes)
    height, width = padded(images)[0].shape[-2:]
    # Alone, an image is given the padding that it has in the batch, so that its sums are the batch's.
    alone, counts, as_converted = [], [], converted.detector.normalizer
    monkeypatch.setitem(converted.detector._modules, "normalizer", PositiveCount())
    for image, target in zip(images, targets, strict=True):
        whole = torch.zeros(3, height, width, dtype=torch.uint8)
        whole[:, : image.shape[1], : image.shape[2]] = image
        theirs = torchvision_losses(model, [whole], [target])
        pred = converted.detector(whole[None], torch.tensor([[height, width]]))
        ours = converted.detector.loss(pred, [target])
        divisor = ours.normalizer.clamp(min=1)
        torch.testing.assert_close(ours.classification / divisor, theirs["classification"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(ours.box / divisor, theirs["box"], rtol=1e-4, atol=1e-6)
        alone.append(ours)
        counts.append(int(ours.normalizer))
    assert counts[0] > 3
    assert counts[1] == 0
    wholes = [torch.zeros(3, height, width, dtype=torch.uint8) for _ in images]
    for whole, image in zip(wholes, images, strict=True):
        whole[:, : image.shape[1], : image.shape[2]] = image
    theirs = torchvision_losses(model, wholes, targets)
    pred = converted.detector(torch.stack(wholes), torch.tensor([[height, width]] * 3))
    ours = converted.detector.loss(pred, targets)
    monkeypatch.setitem(converted.detector._modules, "normalizer", as_converted)
    per_image = converted.detector.loss(pred, targets)
    assert per_image.normalizer == 3
    for term in ("classification", "box"):
        sums = [getattr(one, term) for one in alone]
        mean_of_ratios = sum(s / max(1, n) for s, n in zip(sums, counts, strict=True)) / len(sums)
        torch.testing.assert_close(theirs[term], mean_of_ratios, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(getattr(per_image, term) / 3, theirs[term], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(getattr(ours, term), sum(sums), rtol=1e-4, atol=1e-6)
    assert int(ours.normalizer) == sum(counts)


def grads(model: Any) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_a_training_step_of_the_converted_model_is_torchvisions(pair: tuple[Any, Converted]) -> None:
    """The whole loss with its normalisation, as converted, and the gradient of every weight that is learnt."""
    model, converted = pair
    images, targets = pixels([(96, 128)] * 3), targets_for([(96, 128)] * 3)
    model.train().backbone.eval()
    converted.detector.train().backbone.eval()
    try:
        model.zero_grad()
        theirs = sum(model(floats(images), [{"boxes": t.boxes, "labels": t.labels} for t in targets]).values())
        theirs.backward()
        converted.detector.zero_grad()
        ours = converted.detector.loss(converted.detector(*padded(images)), targets)
        divisors = converted.detector.end_step(ours.normalizers, converted.detector.take_accumulated())
        loss = ours.over(divisors)
        loss.backward()
    finally:
        model.eval()
        converted.detector.eval()
    torch.testing.assert_close(loss.float(), theirs.detach(), rtol=1e-4, atol=1e-6)
    expected, found = grads(model), grads(converted.detector)
    assert len(found) > 60
    step = 3 if converted.config.head.norm == "gn" else 2
    for name, gradient in found.items():  # a sum near 0 may fall on either side of a ReLU
        want = expected[foreign_name(name, torchvision_rules(step))]
        assert float((gradient - want).norm()) <= 1e-2 * float(want.norm()) + 1e-5, name
    parameters = dict(converted.detector.named_parameters())
    frozen = {foreign_name(n, torchvision_rules(step)) for n, p in parameters.items() if not p.requires_grad}
    assert all(name.startswith(("backbone.body.conv1", "backbone.body.bn1", "backbone.body.layer1")) for name in frozen)
    assert frozen


@pytest.fixture(scope="module")
def coco_model(torchvision_models: Any) -> Any:
    return torchvision_models.random_model(NAMES[0], 91)


@pytest.mark.parametrize("old_names", [False, True], ids=["names of today", "names before 0.13"])
@torch.no_grad()
def test_published_v1_weights_by_name_keep_80_columns_and_their_epsilon(
    coco_model: Any, torchvision_models: Any, old_names: bool, tmp_path: Path
) -> None:
    """torchvision runs its published v1 weights with frozen norms of epsilon 0."""
    from torchvision.models import get_model
    from torchvision.models._api import WeightsEnum

    state = torchvision_models.published_layout(coco_model, old_names=old_names)
    for name in state:
        if name.endswith("running_var"):  # Small variances, so that an epsilon is seen.
            state[name] = state[name] * 1e-4
        elif name.startswith("backbone.body") and ("bn" in name or "downsample.1" in name) and name.endswith("weight"):
            state[name] = state[name] * 1e-2
    torch.save(state, tmp_path / "published.pth")
    with (
        mock.patch.object(WeightsEnum, "get_state_dict", return_value=state),
        mock.patch("detkit.interop.torchvision.torchvision_file", return_value=tmp_path / "published.pth"),
    ):
        model = torchvision_models.without_resize(get_model(NAMES[0], weights="COCO_V1"))
        converted = convert_torchvision(f"{NAMES[0]}:COCO_V1")
    assert model.backbone.body.bn1.eps == 0
    images = pixels([(96, 128)])
    prepared, _ = model.transform(floats(images))
    theirs = model.head(list(model.backbone(prepared.tensors).values()))
    pred = converted.detector(*padded(images))
    assert len(converted.classes) == 80
    assert (converted.classes.names[0], converted.classes.ids[0]) == ("person", 1)
    assert (converted.classes.names[-1], converted.classes.ids[-1]) == ("toothbrush", 90)
    kept = theirs["cls_logits"][..., list(converted.classes.ids)]
    torch.testing.assert_close(pred.logits, kept, atol=1e-4, rtol=0)
    torch.testing.assert_close(pred.deltas, theirs["bbox_regression"], atol=1e-4, rtol=0)


@torch.no_grad()
def test_sliced_model_finds_what_torchvision_finds_among_the_kept_classes(coco_model: Any, tmp_path: Path) -> None:
    """With the dropped columns made silent, as training makes them, even the final lists are equal."""
    bias = coco_model.head.classification_head.cls_logits.bias
    before = bias.clone()
    silent = [i for i in range(91) if i not in coco_classes()]
    bias.sub_(0.5)
    bias.view(9, 91)[:, silent] = -50
    try:
        torch.save(coco_model.state_dict(), tmp_path / "coco.pth")
        images = pixels([(96, 128), (80, 90)])
        expected = coco_model(floats(images))
    finally:
        bias.copy_(before)
    cut = convert_torchvision(tmp_path / "coco.pth")
    whole = convert_torchvision(tmp_path / "coco.pth", keep_all_columns=True)
    assert (len(cut.classes), len(whole.classes)) == (80, 91)
    assert whole.classes.names[:2] == ("unused-0", "person")
    batch, inside = padded(images)
    for converted in (cut, whole):
        found = converted.detector.detect(converted.detector(batch, inside), inside)
        for one, theirs in zip(found, expected, strict=True):
            assert len(one) > 20
            same_detections(one, theirs, converted.classes.ids)


def test_a_file_torchvision_published_is_known_by_its_hash(
    coco_model: Any, torchvision_models: Any, tmp_path: Path
) -> None:
    path = tmp_path / "renamed.pth"
    torch.save(torchvision_models.published_layout(coco_model, old_names=False), path)
    ordinary = convert_torchvision(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    published_as = mock.Mock(url=f"https://host/model-{digest[:8]}.pth")
    with mock.patch("detkit.interop.torchvision._published_weights", return_value=[published_as]):
        published = convert_torchvision(path)
    by_hand = convert_torchvision(path, norm_eps=0.0)
    scale = "backbone.stem.bn1.weight"
    assert not torch.equal(ordinary.detector.state_dict()[scale], published.detector.state_dict()[scale])
    assert torch.equal(by_hand.detector.state_dict()[scale], published.detector.state_dict()[scale])
    assert any("an epsilon of 0 in" in note for note in published.notes)


def test_class_names_given_by_hand_drop_the_background_column(pair: Any, tmp_path: Path) -> None:
    model, _ = pair
    path = tmp_path / "model.pth"
    torch.save({"model": {f"module.{k}": v for k, v in model.state_dict().items()}, "epoch": 3}, path)
    converted = convert_torchvision(path, classes=["a", "b", "c", "d", "e"])
    assert converted.classes.ids == (1, 2, 3, 4, 5)
    bias = model.state_dict()["head.classification_head.cls_logits.bias"].view(9, COLUMNS)
    assert torch.equal(converted.detector.state_dict()["head.class_out.bias"], bias[:, 1:].flatten())


def broken(state: dict[str, Tensor]) -> dict[str, Tensor]:
    state = dict(state)
    for i in range(6):
        del state[f"backbone.body.layer1.0.{'conv' if i < 3 else 'bn'}{i % 3 + 1}.weight"]
    state["extra.weight"] = torch.zeros(3)
    state["backbone.body.conv1.weight"] = torch.zeros(64, 4, 7, 7)
    return state


def test_a_file_that_does_not_fit_names_its_tensors(pair: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken.pth"
    torch.save(broken(pair[0].state_dict()), path)
    with pytest.raises(ValueError) as error:
        convert_torchvision(path)
    text = str(error.value)
    assert str(path) in text
    assert "6 missing: backbone.body.layer1.0.conv1.weight" in text
    assert text.count(", ...") == 1
    assert "1 unexpected: extra.weight" in text
    assert "backbone.body.conv1.weight (64, 4, 7, 7) instead of (64, 3, 7, 7)" in text


def test_files_that_are_something_else_are_refused(refuses: Refuses, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"fc.weight": torch.zeros(2)}, path)
    with refuses(ValueError):
        convert_torchvision(path)
    torch.save({"epoch": 3, "a": torch.zeros(1)}, path)
    with refuses(ValueError):
        convert_torchvision(path)
    torch.save(torch.nn.ReLU(), path)
    with refuses(ValueError):
        convert_torchvision(path)
    path.write_text(json.dumps({}))
    with refuses(ValueError):
        convert_torchvision(path)
    with refuses(ValueError):
        convert_torchvision("retinanet_resnet18_fpn")
    with refuses(ValueError):
        convert_torchvision("retinanet_resnet50_fpn:COCO_V7")


def test_no_network_says_where_the_weights_are(web: Web, refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    from detkit.hub import names

    source = names.Published(f"{web.url}/retinanet-eeacb38b.pth", "eeacb38b")
    monkeypatch.setattr(names, "torchvision_source", lambda _: source)
    with refuses(OSError):
        convert_torchvision("retinanet_resnet50_fpn")
