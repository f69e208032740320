"""The opening for a loss of classes and boxes together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch

from detkit.coders.base import BoxCoder
from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.losses.base import JointLoss, Normalizer
from detkit.losses.normalizers import PositiveCount
from detkit.losses.sigmoid import SigmoidLoss
from detkit.registry import CLASS_LOSSES
from detkit.structures import Losses, Predictions, Targets
from detkit.train.summary import describe_loss
from tests.refusals import Refuses

QUICK = "configs/quickstart/shapes.yaml"


class Squares(JointLoss, SigmoidLoss):
    """Squares of all outputs, over the number of images."""

    def divisors(self) -> Mapping[str, Normalizer]:
        return {"images": PositiveCount()}

    def joint_losses(self, pred: Predictions, targets: list[Targets], coder: BoxCoder) -> Losses:
        terms = {"logits": pred.logits.square().sum(), "deltas": pred.deltas.square().sum()}
        return Losses(terms, {"images": torch.tensor(float(len(targets)))})


@pytest.fixture
def squares() -> Iterator[None]:
    with CLASS_LOSSES.temporary():
        CLASS_LOSSES.register()(Squares)
        yield


JOINT = ["losses.classification={type: Squares}", "losses.box=null"]


def built(*overrides: str) -> Any:
    torch.manual_seed(0)
    return build_detector(load_config(QUICK, [*JOINT, *overrides]), 3)


@pytest.mark.usefixtures("squares")
def test_terms_and_divisors_are_those_of_the_loss_and_split_like_the_batch() -> None:
    detector = built()
    assert detector.divisors == ("images",)
    images, sizes = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8), torch.full((2, 2), 64)
    nothing = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    detector.eval()
    whole = detector.loss(detector(images, sizes), [nothing] * 2)
    halves = [detector.loss(detector(images[i : i + 1], sizes[i : i + 1]), [nothing]) for i in range(2)]
    assert list(whole.terms) == ["logits", "deltas"]
    for name, term in whole.terms.items():
        torch.testing.assert_close(term, halves[0].terms[name] + halves[1].terms[name])
    assert float(detector.divide(whole.normalizers)["images"]) == 2
    assert [len(sums) for sums in detector.take_accumulated()] == [0]


@pytest.mark.usefixtures("squares")
@pytest.mark.parametrize(
    "override",
    ["losses.box={type: L1Loss}", "losses.quality={type: CenternessLoss}",
     "losses.box_normalizer={type: PositiveCount}", "losses.auxiliary=[{type: LateL1Loss}]"],
)  # fmt: skip
def test_a_part_that_would_not_act_is_refused(override: str, refuses: Refuses) -> None:
    with refuses(ValueError):
        built(override)


def test_a_list_of_terms_may_be_null() -> None:
    assert "losses.auxiliary" not in load_config("configs/gfl/gfl.yaml", ["losses.auxiliary=null"])


def test_without_a_joint_loss_there_must_be_a_box_loss(refuses: Refuses) -> None:
    with refuses(ValueError):
        build_detector(load_config(QUICK, ["losses.box=null"]), 3)


@pytest.mark.usefixtures("squares")
def test_the_header_of_a_run_names_it_and_its_divisors() -> None:
    assert describe_loss(built()) == "Squares, its terms divided by images"
    detector = build_detector(load_config(QUICK), 3)
    wanted = "SigmoidFocalLoss + GIoULoss, normalised by PositiveCount (positives in the global batch)"
    assert describe_loss(detector) == wanted


@pytest.mark.usefixtures("squares")
def test_it_has_no_loss_of_labels(refuses: Refuses) -> None:
    with refuses(ValueError):
        built().class_loss(torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.int64))
