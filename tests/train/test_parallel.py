"""What several processes need, looked at in one; tests/distributed does it with real ones."""

from typing import Any

import pytest
import torch
from torch import nn

from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.layers.norms import SyncBatchNorm2d
from detkit.structures import Batch, Targets
from detkit.train.options import TrainOptions
from detkit.train.parallel import check_gradients, has_own_statistics, largest_image, pad_to, warn_of_the_split
from tests.refusals import Refuses

CPU = torch.device("cpu")


def detector(*overrides: Any) -> Any:
    torch.manual_seed(0)
    small = ["neck.channels=16", "head.num_convs=1"]
    return build_detector(load_config("configs/quickstart/shapes.yaml", [*small, *overrides]), 3)


def batch(height: Any, width: Any, images: int = 2) -> Any:
    return Batch(
        images=torch.zeros(images, 3, height, width, dtype=torch.uint8),
        sizes=torch.tensor([[height, width]] * images),
        targets=[Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))] * images,
        original_sizes=torch.tensor([[height, width]] * images),
        image_ids=list(range(images)),
        paths=[""] * images,
    )


def test_the_largest_side_of_all_micro_batches_counts() -> None:
    assert largest_image([batch(32, 96), batch(64, 32)], CPU, 1) == (64, 96)


def test_padding_is_zero_and_right_and_below() -> None:
    images = torch.full((1, 3, 2, 3), 7, dtype=torch.uint8)
    padded = pad_to(images, (4, 5))
    assert padded.shape == (1, 3, 4, 5)
    assert (padded[..., :2, :3] == 7).all()
    assert padded.sum() == 7 * 18
    assert pad_to(images, (2, 3)) is images


def test_a_detector_whose_parameters_all_learn_passes_and_is_left_alone() -> None:
    model = detector()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert not check_gradients(model, CPU)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


def test_a_parameter_without_gradient_is_named_with_the_way_out(refuses: Refuses) -> None:
    model = detector()
    model.neck.forgotten = nn.Parameter(torch.zeros(3))
    with refuses(ValueError):
        check_gradients(model, CPU)
    model.neck.forgotten.requires_grad_(False)
    check_gradients(model, CPU)


def test_dropout_is_noticed() -> None:
    model = detector()
    model.neck.register_forward_hook(lambda _, __, out: {k: nn.functional.dropout(v, 0.1) for k, v in out.items()})
    state = torch.get_rng_state()
    assert check_gradients(model, CPU)
    assert torch.equal(state, torch.get_rng_state())


def test_a_loss_that_forgets_the_empty_image_is_found(refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    model = detector()
    inner = model.box_loss.forward

    def forgetful(deltas: Any, *rest: Any) -> Any:
        return inner(deltas, *rest) if len(deltas) else torch.zeros(())

    monkeypatch.setattr(model.box_loss, "forward", forgetful)
    with refuses(ValueError):
        check_gradients(model, CPU)


def said(caplog: Any, model: Any, *arguments: Any) -> Any:
    caplog.clear()
    warn_of_the_split(model, *arguments)
    return [record.getMessage() for record in caplog.records]


def test_what_depends_on_the_split_is_said(caplog: pytest.LogCaptureFixture) -> None:
    plain = detector("backbone.norm=gn", "neck.norm=gn")
    with_bn = detector("backbone.norm=bn", "neck.norm=gn")
    mining = detector("backbone.norm=gn", "neck.norm=gn", "losses.classification={type: GHMCLoss}")
    (bn,) = said(caplog, with_bn, 4, 2)
    assert "over only 2 images (one micro-batch of one process); the result depends" in bn
    (few,) = said(caplog, with_bn, 1, 2)
    assert "process); sync_bn" in few
    assert said(caplog, with_bn, 1, 8) == []
    (mined,) = said(caplog, mining, 2, 4)
    assert "GHMCLoss looks at the images of a micro-batch together" in mined
    assert said(caplog, mining, 1, 8) == []
    (drawn,) = said(caplog, plain, 2, 4, True)
    assert "another number of processes draws others" in drawn
    assert said(caplog, plain, 8, 1) == []


@pytest.mark.parametrize(("norm", "own"), [("bn", True), ("sync_bn", False), ("gn", False), ("frozen_bn", False)])
def test_only_plain_batch_norm_has_statistics_of_its_own(norm: str, own: bool) -> None:
    assert has_own_statistics(detector(f"backbone.norm={norm}", f"neck.norm={norm}", "head.norm=gn")) is own


def test_sync_bn_alone_is_batch_norm() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 6, 5, 7)
    one, other = SyncBatchNorm2d(6), nn.BatchNorm2d(6)
    torch.testing.assert_close(one(x), other(x))
    torch.testing.assert_close(one.running_var, other.running_var)
    torch.testing.assert_close(one.eval()(x), other.eval()(x))


@pytest.mark.parametrize(
    ("rule", "batch_size", "factor"), [("none", 64, 1.0), ("linear", 64, 4.0), ("sqrt", 64, 2.0), ("linear", 8, 0.5)]
)
def test_learning_rate_rules(rule: Any, batch_size: int, factor: float) -> None:
    options = TrainOptions(iterations=1, lr_scaling=rule, lr_batch_size=None if rule == "none" else 16)
    assert options.lr_factor(batch_size) == factor


@pytest.mark.parametrize("settings", [{"lr_scaling": "linear"}, {"lr_batch_size": 16}])
def test_a_rule_needs_its_batch_size_and_the_other_way_round(refuses: Refuses, settings: dict[str, Any]) -> None:
    with refuses(ValueError):
        TrainOptions(iterations=1, **settings)
