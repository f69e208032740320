"""The CUDA kernels, compiled as C++: what the CPU's kernels give, in any order of threads, inside their memory."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detkit.ops import nms_mask
from detkit.ops.sigmoid_focal import reference
from detkit.ops.suppression.hard import reference_mask
from tests.ops import fuzz_nms as fuzz
from tests.ops.cuda_on_host.build import Kernels

SIZES = (1, 2, 63, 64, 65, 127, 129, 700, 2047, 2048, 2049, 4097)
"""Around the tile of 64 and the chunk of 2048 boxes."""


@pytest.fixture(scope="module", params=["plain", "sanitized"])
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    folder = tmp_path_factory.getbasetemp()
    if folder.name.startswith("popen-"):  # a worker of xdist: all of them share what is built
        folder = folder.parent
    return Kernels(folder / "cuda_on_host", sanitized=request.param == "sanitized")


def boxes_in_groups(kind: str, n: int, groups: int, seed: int = 0) -> tuple[Tensor, Tensor | None]:
    """Boxes of a kind, their groups contiguous as batched_nms has them; no groups if there are none."""
    g = torch.Generator().manual_seed(seed)
    boxes = fuzz.boxes_of(kind, n, g).float()
    return boxes, torch.randint(-2, groups, (n,), generator=g).sort().values if groups else None


@pytest.mark.parametrize("n", SIZES)
def test_chunks_tiles_and_their_borders(kernels: Kernels, n: int) -> None:
    for groups in (0, 9) if n < 2100 else (9,):
        boxes, labels = boxes_in_groups("cluster", n, groups, seed=n)
        assert torch.equal(kernels.nms(boxes, labels, 0.5), nms_mask(boxes, labels, 0.5))


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_every_kind_of_boxes(kernels: Kernels, kind: str) -> None:
    for n, groups, threshold in ((200, 0, 0.5), (150, 4, 0.25), (90, 60, 1 / 3), (70, 0, 0.0), (130, 2, -0.1)):
        boxes, labels = boxes_in_groups(kind, n, groups, seed=n)
        assert torch.equal(kernels.nms(boxes, labels, threshold), reference_mask(boxes, labels, threshold))
        if n == 150:
            wide = boxes.double()
            assert torch.equal(kernels.nms(wide, labels, threshold), reference_mask(wide, labels, threshold))


def test_chains_over_chunks_groups_that_mix_and_thresholds_without_sense(kernels: Kernels) -> None:
    # Every box overlaps its neighbours alone: every second one stays, across all borders.
    row = torch.arange(4200).view(-1, 1) * torch.tensor([6.0, 0, 6, 0]) + torch.tensor([0.0, 0, 10, 10])
    assert kernels.nms(row, None, 0.2).tolist() == [True, False] * 2100
    # One box kept at the top removes all others, in later chunks too.
    same = row[:1].repeat(4200, 1)
    assert kernels.nms(same, None, 0.5).sum() == 1
    # All stay: the list of kept rows is full.
    apart = torch.arange(2100).view(-1, 1) * 20 + torch.tensor([0.0, 0, 10, 10])
    assert kernels.nms(apart, None, 0.5).all()
    # Groups in any order are allowed, only slower.
    mixed = torch.arange(4200) % 3
    assert torch.equal(kernels.nms(same, mixed, 0.5), nms_mask(same, mixed, 0.5))
    far = torch.tensor([-(2**62), 2**62, 2**62])
    assert kernels.nms(same[:3], far, 0.5).tolist() == [True, True, False]
    for threshold in (1.0, 1.5, math.inf, math.nan):
        assert kernels.nms(same[:70], None, threshold).all()
    assert kernels.nms(same[:70], None, -math.inf).sum() == 1


def test_an_iou_at_the_threshold_stays(kernels: Kernels) -> None:
    squares = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10]])
    iou = float(torch.tensor(50.0) / 150)
    assert kernels.nms(squares, None, iou).tolist() == [True, True]
    assert kernels.nms(squares, None, math.nextafter(iou, 0.0)).tolist() == [True, False]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 3), (85, 3), (86, 3), (7, 80), (3, 1025)])
def test_the_focal_loss(kernels: Kernels, rows: int, columns: int, dtype: torch.dtype) -> None:
    g = torch.Generator().manual_seed(rows)
    logits = (torch.randn(rows, columns, generator=g) * 4 - 2).to(dtype)
    logits[torch.rand(rows, columns, generator=g) < 0.02] *= 10
    labels = torch.randint(-2, columns, (rows,), generator=g)
    for gamma in (0.0, 0.5, 1.0, 2.0, 3.7):
        total, slopes = kernels.focal(logits, labels, 0.25, 0.75, gamma, 3.0)
        exact = logits.double().requires_grad_()
        wanted = reference(exact, labels, 0.25, 0.75, gamma)
        expected = 3 * torch.autograd.grad(wanted, exact)[0]
        digits = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}[dtype]
        torch.testing.assert_close(total.double(), wanted.detach(), rtol=min(digits, 1e-5), atol=1e-12)
        torch.testing.assert_close(slopes.double(), expected, rtol=digits, atol=1e-7 if digits > 1e-4 else 1e-30)


def test_a_label_that_is_no_class_is_nan_and_an_ignored_one_nothing(kernels: Kernels) -> None:
    for wrong in (-3, 4, 2**40):
        total, slopes = kernels.focal(torch.zeros(3, 4), torch.tensor([1, wrong, -1]), 1.0, 1.0, 2.0, 1.0)
        assert total.isnan()
        assert slopes[1].isnan().all()
        assert slopes[[0, 2]].isfinite().all()
    total, slopes = kernels.focal(torch.full((2, 4), math.nan), torch.tensor([-2, -2]), 1.0, 1.0, 2.0, 1.0)
    assert total == 0
    assert (slopes == 0).all()


@pytest.mark.slow
def test_more_entries_than_the_grid_has_threads(kernels: Kernels) -> None:
    logits = torch.linspace(-8, 8, 2048 * 256 + 300).view(-1, 4)
    labels = torch.arange(len(logits)) % 6 - 2
    total, slopes = kernels.focal(logits, labels, 0.25, 0.75, 2.0, 1.0)
    exact = logits.double().requires_grad_()
    wanted = reference(exact, labels, 0.25, 0.75, 2.0)
    torch.testing.assert_close(total.double(), wanted.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(slopes.double(), torch.autograd.grad(wanted, exact)[0], rtol=1e-5, atol=1e-30)


def test_the_kernels_know_nothing_of_torch() -> None:
    for source in (Path(__file__).parents[3] / "detkit" / "csrc" / "cuda").glob("*.cuh"):
        assert "torch" not in "".join(line for line in source.read_text().splitlines() if "include" in line)
