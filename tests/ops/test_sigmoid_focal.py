"""The fused focal loss against plain PyTorch in float64: values, gradients, odd shapes, every dtype and build."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detkit.native.library import native
from detkit.ops import sigmoid_focal_sum
from detkit.ops.sigmoid_focal import reference
from tests.refusals import Refuses

ROOT = Path(__file__).resolve().parents[2]
GAMMAS = (0.0, 0.5, 1.0, 2.0, 3.7)
# Around the lanes (16), the buffer (1024) and the block (32768) of the CPU kernel.
SHAPES = ((0, 3), (1, 1), (5, 3), (7, 80), (13, 1023), (3, 1025), (2, 40000), (500, 91), (2, 30, 20))


def example(shape: tuple[int, ...], seed: int = 0, spread: float = 4.0) -> tuple[Tensor, Tensor]:
    """Logits around the prior, with some far out; labels of every kind."""
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=g) * spread - 2
    logits[torch.rand(shape, generator=g) < 0.01] *= 15
    return logits, torch.randint(-2, shape[-1], shape[:-1], generator=g)


def of_native(logits: Tensor, labels: Tensor, alpha: float | None, gamma: float) -> tuple[Tensor, Tensor]:
    x = logits.detach().clone().requires_grad_()
    total = sigmoid_focal_sum(x, labels, alpha, gamma)
    return total.detach(), torch.autograd.grad(total, x)[0]


def of_reference(logits: Tensor, labels: Tensor, alpha: float | None, gamma: float) -> tuple[Tensor, Tensor]:
    x = logits.detach().double().requires_grad_()
    total = reference(x, labels, *((1.0, 1.0) if alpha is None else (alpha, 1 - alpha)), gamma)
    return total.detach(), torch.autograd.grad(total, x)[0]


def close(found: Tensor, wanted: Tensor, relative: float = 1e-5) -> None:
    """Relative to each entry, down to where float32 has no more digits."""
    torch.testing.assert_close(found.double(), wanted, rtol=relative, atol=1e-30)


@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("shape", SHAPES)
def test_float32_is_right_to_a_hundred_thousandth_in_every_entry(
    shape: tuple[int, ...], gamma: float, alpha: float | None
) -> None:
    logits, labels = example(shape)
    value, gradient = of_native(logits, labels, alpha, gamma)
    wanted, slope = of_reference(logits, labels, alpha, gamma)
    close(value, wanted)
    close(gradient, slope)


def test_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3)], [5.0, 5.0], [0.0, 0.0]])  # p = 1/2 and 3/4
    total = sigmoid_focal_sum(logits, torch.tensor([0, -2, -1]), alpha=0.25, gamma=2.0)
    own, other = -0.25 * 0.25 * math.log(0.5), -0.75 * 0.5625 * math.log(0.25)
    background = 2 * -0.75 * 0.25 * math.log(0.5)
    assert total.item() == pytest.approx(own + other + background, rel=1e-6)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradcheck_in_float64(gamma: float) -> None:
    logits, labels = example((6, 5))
    x = logits.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal_sum(x, labels, 0.25, gamma), (x,))
    for found, wanted in zip(of_native(x, labels, 0.25, gamma), of_reference(x, labels, 0.25, gamma), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits, labels = example((40, 80), spread=2.0)
    half = logits.clamp(-20, 20).to(dtype)
    value, gradient = of_native(half, labels, 0.25, 2.0)
    wide, slope = of_native(half.float(), labels, 0.25, 2.0)
    assert (value.dtype, gradient.dtype) == (torch.float32, dtype)
    assert torch.equal(value, wide)
    assert torch.equal(gradient, slope.to(dtype))


def test_a_loss_scale_saves_small_half_gradients() -> None:
    x = torch.full((1, 1), -8.0, dtype=torch.float16, requires_grad=True)
    total = sigmoid_focal_sum(x, torch.tensor([-1]), 0.25, 2.0)
    assert torch.autograd.grad(total, x, retain_graph=True)[0] == 0  # 1e-10 is less than half can hold
    scaled = torch.autograd.grad(total * 2.0**16, x)[0]
    torch.testing.assert_close(
        scaled.double(), of_reference(x, torch.tensor([-1]), 0.25, 2.0)[1] * 2**16, rtol=0.05, atol=0
    )


def test_extremes() -> None:
    logits = torch.tensor([[1e4, -1e4, float("inf"), float("-inf"), 3e38, -3e38]])
    for gamma in (0.0, 2.0):
        value, gradient = of_native(logits[:, [0, 1, 3, 5]], torch.tensor([1]), 0.25, gamma)
        assert value == pytest.approx(0.75e4 + 0.25e4)
        assert gradient.tolist() == [[0.75, -0.25, 0, 0]]
        assert of_native(logits, torch.tensor([-1]), 0.25, gamma)[0] == float("inf")
        value, gradient = of_native(torch.tensor([[math.nan, 0.0]]), torch.tensor([-1]), 0.25, gamma)
        assert value.isnan()
        assert gradient.isnan().tolist() == [[True, False]]
        value, gradient = of_native(torch.tensor([[math.nan, 0.0]]), torch.tensor([-2]), 0.25, gamma)
        assert value == 0
        assert not gradient.any()


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_the_plain_way_overflows_nowhere(gamma: float) -> None:
    """exp(z) is infinite in float32 from 89 on."""
    logits = torch.tensor([-100.0, -95, -89, -60, 60, 89, 95, 100])[:, None].requires_grad_()
    for label in (-1, 0):
        labels = torch.full((8,), label)
        total = reference(logits, labels, 0.25, 0.75, gamma)
        (slope,) = torch.autograd.grad(total, logits)
        exact = logits.detach().double().requires_grad_()
        (exact_slope,) = torch.autograd.grad(reference(exact, labels, 0.25, 0.75, gamma), exact)
        torch.testing.assert_close(total.double(), reference(exact, labels, 0.25, 0.75, gamma), rtol=1e-6, atol=0)
        torch.testing.assert_close(slope.double(), exact_slope, rtol=1e-5, atol=1e-12)


def test_threads_and_repetition_change_no_bit() -> None:
    logits, labels = example((3000, 80))
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(of_native(logits, labels, 0.25, 2.0))
    finally:
        torch.set_num_threads(before)
    for value, gradient in found[1:]:
        assert torch.equal(value, found[0][0])
        assert torch.equal(gradient, found[0][1])


def test_backward_twice_through_a_kept_graph_and_once_only_otherwise(refuses: Refuses) -> None:
    logits, labels = example((4, 3))
    x = logits.requires_grad_()
    total = sigmoid_focal_sum(x, labels)
    first = torch.autograd.grad(total, x, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(2 * total, x)[0], 2 * first)
    gradient = torch.autograd.grad(sigmoid_focal_sum(x, labels), x, create_graph=True)[0]
    with refuses(RuntimeError):
        gradient.sum().backward()


def test_strides_don_t_matter() -> None:
    logits, labels = example((5, 6, 7))
    turned = logits.transpose(0, 1).contiguous().transpose(0, 1)
    assert not turned.is_contiguous()
    torch.testing.assert_close(of_native(turned, labels, 0.25, 2.0), of_native(logits, labels, 0.25, 2.0))


@pytest.mark.parametrize(
    "change",
    [
        {"labels": torch.tensor([3, 0])},
        {"labels": torch.tensor([0, -3])},
        {"labels": torch.tensor([0])},
        {"labels": torch.tensor([0, 1], dtype=torch.int32)},
        {"logits": torch.zeros(2, 3, dtype=torch.int64)},
        {"logits": torch.zeros(2, 3).to(torch.float8_e4m3fn)},
        {"labels": torch.zeros(2, dtype=torch.int64, device="meta")},
        {"gamma": -1.0},
        {"gamma": math.nan},
        {"gamma": math.inf},
        {"alpha": 2.0},
    ],
)
def test_wrong_input_is_named(refuses: Refuses, change: dict[str, object]) -> None:
    good = {"logits": torch.zeros(2, 3), "labels": torch.tensor([0, -1])}
    with refuses(ValueError):
        sigmoid_focal_sum(**{**good, **change})  # type: ignore[arg-type]


def test_opcheck() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        logits, labels = example((20, 5))
        logits = logits.to(dtype).requires_grad_()
        torch.library.opcheck(torch.ops.detkit.sigmoid_focal.default, (logits, labels, 0.25, 0.75, 2.0))
        backward = (torch.tensor(2.0), logits.detach(), labels, 0.25, 0.75, 2.0)
        torch.library.opcheck(torch.ops.detkit.sigmoid_focal_backward.default, backward)


def test_compiles_into_one_graph_and_exports() -> None:
    def loss(x: Tensor, labels: Tensor) -> Tensor:
        return sigmoid_focal_sum(x * 2, labels, 0.25, 2.0) / 3

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=True)
    for rows in (10, 25):
        logits, labels = example((rows, 4))
        found, wanted = logits.clone().requires_grad_(), logits.clone().requires_grad_()
        compiled(found, labels).backward()
        loss(wanted, labels).backward()
        torch.testing.assert_close(found.grad, wanted.grad)

    class Module(torch.nn.Module):
        def forward(self, x: Tensor, labels: Tensor) -> Tensor:
            return loss(x, labels)

    program = torch.export.export(Module(), example((10, 4)))
    torch.testing.assert_close(program.module()(*example((10, 4), seed=1)), loss(*example((10, 4), seed=1)))


def test_autocast_computes_in_float32() -> None:
    logits, labels = example((50, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = sigmoid_focal_sum(logits, labels)
        narrow = sigmoid_focal_sum(logits.bfloat16(), labels)
    assert torch.equal(found, sigmoid_focal_sum(logits, labels))
    assert narrow.dtype == torch.float32


def test_shapes_alone_go_through_the_meta_device() -> None:
    logits = torch.zeros(2, 5, 3, device="meta", dtype=torch.bfloat16, requires_grad=True)
    total = sigmoid_focal_sum(logits, torch.zeros(2, 5, device="meta", dtype=torch.int64))
    assert (total.device.type, total.shape, total.dtype) == ("meta", (), torch.float32)
    (gradient,) = torch.autograd.grad(total, logits)
    assert (gradient.device.type, gradient.shape, gradient.dtype) == ("meta", logits.shape, logits.dtype)


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_every_build_of_the_kernel(capability: str) -> None:
    """The same tests, in a process that is told to take a lesser build."""
    if native.cpu and torch.ops.detkit.cpu_lanes() == 4:
        pytest.skip("this CPU has the portable build only, which the other tests ran")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            __file__,
            "-k",
            "hundred_thousandth or extremes or half",
            "-p",
            "no:cacheprovider",
        ],
        env={**os.environ, "DETKIT_CPU_CAPABILITY": capability, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("shape", SHAPES)
def test_cuda_gives_what_the_cpu_gives(shape: tuple[int, ...], gamma: float, dtype: torch.dtype) -> None:
    logits, labels = example(shape)
    logits = logits.clamp(-60, 60).to(dtype)
    here = of_native(logits, labels, 0.25, gamma)
    there = of_native(logits.cuda(), labels.cuda(), 0.25, gamma)
    again = of_native(logits.cuda(), labels.cuda(), 0.25, gamma)
    close(there[0].cpu(), here[0].double())
    tolerance = {torch.float16: 2e-3, torch.bfloat16: 1e-2}.get(dtype, 1e-5)
    torch.testing.assert_close(there[1].cpu().double(), here[1].double(), rtol=tolerance, atol=1e-7)
    assert torch.equal(there[0], again[0])
    assert torch.equal(there[1], again[1])


@pytest.mark.gpu
def test_cuda_says_nan_for_a_label_that_is_no_class() -> None:
    logits, labels = example((4, 3))
    labels[1] = 3
    assert sigmoid_focal_sum(logits.cuda(), labels.cuda()).isnan()
