"""Greedy suppression: boxes drawn by hand, torchvision's results, every dtype, the compiler's view."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detkit.native.library import Native
from detkit.ops import batched_nms, nms, nms_mask
from detkit.ops.suppression.hard import reference_mask
from tests.ops import fuzz_nms as fuzz
from tests.refusals import Refuses

ROOT = Path(__file__).resolve().parents[3]


def random_boxes(n: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return fuzz.boxes_of("cluster", n, g).to(dtype), torch.rand(n, generator=g)


# Boxes drawn by hand: 10 x 10 squares, the second shifted by 5 (IoU 1/3), the third apart.
SQUARES = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10], [40, 40, 50, 50]])


def test_hand_drawn_boxes() -> None:
    scores = torch.tensor([0.5, 0.9, 0.1])
    assert nms(SQUARES, scores, 0.3).tolist() == [1, 2]
    assert nms(SQUARES, scores, 0.4).tolist() == [1, 0, 2]


def test_a_suppressed_box_suppresses_nothing() -> None:
    chain = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])  # neighbours overlap, ends hardly
    assert nms(chain, torch.tensor([0.9, 0.8, 0.7]), 0.3).tolist() == [0, 2]


def test_equal_scores_go_by_index() -> None:
    assert nms(SQUARES, torch.ones(3), 0.3).tolist() == [0, 2]
    apart = torch.arange(100).view(-1, 1) * 20 + torch.tensor([0.0, 0, 10, 10])
    assert nms(apart, torch.zeros(100), 0.5).tolist() == list(range(100))
    assert batched_nms(apart, torch.zeros(100), torch.arange(100) % 7, 0.5).tolist() == list(range(100))


def test_groups_don_t_touch_each_other() -> None:
    boxes = SQUARES[[0, 0, 0]]
    scores = torch.tensor([0.1, 0.3, 0.2])
    assert batched_nms(boxes, scores, torch.tensor([4, 4, 9]), 0.5).tolist() == [1, 2]
    assert batched_nms(boxes, scores, torch.tensor([-(2**62), 2**62, 2**62]), 0.5).tolist() == [1, 0]
    assert batched_nms(boxes, scores, torch.tensor([0, 1, 2], dtype=torch.int32), 0.5).tolist() == [1, 2, 0]


def test_iou_at_the_threshold_stays_and_one_ulp_above_goes() -> None:
    boxes, scores = SQUARES[:2], torch.tensor([0.9, 0.5])
    iou = torch.tensor(50.0) / torch.tensor(150.0)  # as float32, like the kernel
    assert nms(boxes, scores, float(iou)).tolist() == [0, 1]
    below = math.nextafter(float(iou), 0.0)  # a double that no float32 equals
    assert nms(boxes, scores, below).tolist() == [0]
    exact = nms(boxes.double(), scores, 1 / 3)
    assert exact.tolist() == [0, 1]


@pytest.mark.parametrize("n", [0, 1])
def test_none_and_one(n: int) -> None:
    for keep in (
        nms(SQUARES[:n], torch.ones(n), 0.5),
        batched_nms(SQUARES[:n], torch.ones(n), torch.zeros(n).long(), 0.5),
    ):
        assert keep.dtype == torch.int64
        assert keep.tolist() == list(range(n))
    assert nms_mask(SQUARES[:n], None, 0.5).tolist() == [True] * n


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("column", range(4))
def test_boxes_without_a_size_are_kept_and_suppress_nothing(value: float, column: int) -> None:
    boxes = SQUARES[[0, 0, 0]].clone()
    boxes[0, column] = value
    assert nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 1]
    assert nms(SQUARES[[0, 0]][:, [2, 1, 0, 3]], torch.ones(2), 0.0).tolist() == [0, 1]  # inverted


def test_nan_scores_come_first() -> None:
    scores = torch.tensor([1.0, math.nan, math.inf])
    assert nms(SQUARES, scores, 0.3).tolist() == [1, 2]


def test_thresholds_outside_of_0_to_1() -> None:
    scores = torch.ones(3)
    for threshold in (1.0, 7.0, math.inf, math.nan):
        assert nms(SQUARES[[0, 0, 0]], scores, threshold).tolist() == [0, 1, 2]
    assert nms(SQUARES, scores, -0.1).tolist() == [0]


def test_the_reference_is_torchvision_s() -> None:
    pytest.importorskip("torchvision.ops", reason="torchvision does not load: the fuzz compares with the reference")
    for seed in range(600):
        boxes, scores, _, threshold = fuzz.case(seed, large=False)
        ranks = torch.empty(len(scores), dtype=boxes.dtype)
        ranks[scores.sort(stable=True, descending=True).indices] = -torch.arange(len(scores)).to(boxes)
        wanted = fuzz.torchvision_nms(boxes, ranks, threshold)
        assert torch.equal(fuzz.plain_nms(boxes, ranks, threshold), wanted), f"case {seed}"
    minus = (SQUARES, torch.arange(3.0), -0.1)
    assert nms(*minus).tolist() == fuzz.torchvision_nms(*minus).tolist()


coordinate = st.one_of(
    st.integers(0, 8).map(float),
    st.floats(width=32, allow_nan=True, allow_infinity=True),
    st.floats(-100, 100, width=32),
)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(
        st.tuples(*[coordinate] * 4, st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(-1, 2)), max_size=40
    ),
    threshold=st.one_of(st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.75, 1.0]), st.floats(-0.5, 1.5)),
    double=st.booleans(),
)
def test_any_boxes_give_torchvision_s_indices(rows: list[tuple], threshold: float, double: bool) -> None:
    table = torch.tensor(rows, dtype=torch.float64).view(-1, 6)
    boxes = table[:, :4].to(torch.float64 if double else torch.float32)
    scores, groups = table[:, 4].float(), table[:, 5].long()
    assert fuzz.same(boxes, scores, None, threshold)
    assert fuzz.same(boxes, scores, groups, threshold)


@pytest.mark.parametrize("kind", fuzz.KINDS)
@pytest.mark.parametrize("n", [63, 64, 65, 1000, 2500])
def test_each_kind_of_boxes_gives_torchvision_s_indices(kind: str, n: int) -> None:
    g = torch.Generator().manual_seed(n)
    boxes, scores = fuzz.boxes_of(kind, n, g), fuzz.scores_of(n, g)
    groups = torch.randint(3, (n,), generator=g)
    for threshold in (0.2, 0.25, 0.5, 0.7):
        assert fuzz.same(boxes.float(), scores, None, threshold)
    assert fuzz.same(boxes, scores, None, 0.5)
    assert fuzz.same(boxes.float(), scores, groups, 0.5)


@pytest.mark.parametrize("capability", ["default", "avx2", "best"])
def test_fuzz_in_each_build_of_the_kernel(capability: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/ops/fuzz_nms.py"), "--cases", "1500", "--seed", "100"],
        env={
            **os.environ,
            "DETKIT_CPU_CAPABILITY": capability,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no difference" in done.stdout
    best = torch.ops.detkit.cpu_lanes()
    wanted = {"default": 4, "avx2": min(best, 8), "best": best}[capability]
    assert f"({wanted} lanes)" in done.stdout


def test_the_fuzz_does_not_pass_where_there_is_nothing_to_try(
    refuses: Refuses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fuzz, "native", Native(False, False, "it is gone", "it is gone"))
    monkeypatch.setattr(sys, "argv", ["fuzz_nms.py"])
    with refuses(SystemExit):
        fuzz.main()


def test_threads_change_nothing() -> None:
    boxes, scores = random_boxes(30_000)
    groups = torch.randint(50, (30_000,), generator=torch.Generator().manual_seed(1))
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            found.append(batched_nms(boxes, scores, groups, 0.5))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[0], fuzz.expected(boxes, scores, groups, 0.5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    boxes, scores = random_boxes(500)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    assert torch.equal(nms(boxes, scores, 0.5), nms(boxes.float(), scores.float(), 0.5))
    assert torch.equal(nms(boxes.float(), scores, 0.5), nms(boxes.float(), scores.float(), 0.5))  # as under autocast


def test_float64_keeps_its_digits() -> None:
    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1]], dtype=torch.float64) + 1e9
    boxes[1, 2] += 1  # half of the second is the first; in float32 nothing is left of either
    assert nms(boxes, torch.tensor([0.9, 0.8]), 0.49).tolist() == [0]
    assert nms(boxes, torch.tensor([0.9, 0.8]), 0.5).tolist() == [0, 1]


def test_inputs_need_not_be_contiguous_and_stay_as_they_are() -> None:
    boxes, scores = random_boxes(300)
    groups = torch.arange(300) % 3
    wide = torch.stack([boxes, boxes], 1)[:, 0]
    columns = boxes.t().contiguous().t()
    spread = torch.stack([scores, scores], 1)[:, 0]
    before = wide.clone()
    for view in (wide, columns):
        assert not view.is_contiguous()
        assert torch.equal(nms(view, spread, 0.5), nms(boxes, scores, 0.5))
        assert torch.equal(
            batched_nms(view, spread, groups.repeat(2)[::2] * 0, 0.5),
            batched_nms(boxes, scores, groups * 0, 0.5),
        )
    assert torch.equal(wide, before)
    assert torch.equal(nms(boxes.requires_grad_(), scores, 0.5), nms(boxes.detach(), scores, 0.5))


@pytest.mark.parametrize("groups", [None, 5])
def test_the_mask_is_the_reference_s(groups: int | None) -> None:
    boxes, _ = random_boxes(400, seed=3)
    boxes[7] = math.nan
    boxes[9, 2] = boxes[9, 0]
    labels = None if groups is None else torch.arange(400) % groups
    for threshold in (-0.1, 0.0, 0.5):
        assert torch.equal(nms_mask(boxes, labels, threshold), reference_mask(boxes, labels, threshold))


@pytest.mark.parametrize(
    ("boxes", "scores", "groups"),
    [
        (torch.zeros(3, 5), torch.zeros(3), None),
        (torch.zeros(4), torch.zeros(1), None),
        (torch.zeros(3, 4, dtype=torch.long), torch.zeros(3), None),
        (torch.zeros(3, 4), torch.zeros(2), None),
        (torch.zeros(3, 4), torch.zeros(3, 1), None),
        (torch.zeros(3, 4), torch.zeros(3).int(), None),
        (torch.zeros(3, 4), torch.zeros(3, device="meta"), None),
        (torch.zeros(3, 4), torch.zeros(3), torch.zeros(2).long()),
        (torch.zeros(3, 4), torch.zeros(3), torch.zeros(3)),
        (torch.zeros(3, 4), torch.zeros(3), torch.zeros(3, device="meta").long()),
    ],
)
def test_wrong_inputs_are_named(refuses: Refuses, boxes: Tensor, scores: Tensor, groups: Tensor | None) -> None:
    with refuses(ValueError):
        nms(boxes, scores, 0.5) if groups is None else batched_nms(boxes, scores, groups, 0.5)


def test_the_raw_op_checks_what_protects_memory(refuses: Refuses) -> None:
    raw = torch.ops.detkit.nms
    for boxes, scores, groups in (
        (torch.zeros(3, 5), torch.zeros(3), None),
        (torch.zeros(3, 4).half(), torch.zeros(3), None),
        (torch.zeros(4, 3).t(), torch.zeros(3), None),
        (torch.zeros(3, 4), torch.zeros(2), None),
        (torch.zeros(3, 4), torch.zeros(3), torch.zeros(2).long()),
        (torch.zeros(3, 4), torch.zeros(3), torch.zeros(3).int()),
    ):
        with refuses(RuntimeError):
            raw(boxes, scores, groups, 0.5)


@pytest.mark.parametrize("groups", [False, True])
def test_opcheck(groups: bool) -> None:
    boxes, scores = random_boxes(50)
    labels = torch.arange(50) % 3 if groups else None
    torch.library.opcheck(torch.ops.detkit.nms.default, (boxes, scores, labels, 0.5))
    torch.library.opcheck(torch.ops.detkit.nms_mask.default, (boxes, labels, 0.5))


def test_compiles_into_one_graph() -> None:
    def suppress(boxes: Tensor, scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor]:
        keep = batched_nms(boxes * 2, scores, groups, 0.5)
        return boxes[keep], nms_mask(boxes, None, 0.5).float() * scores

    compiled = torch.compile(suppress, fullgraph=True, backend="aot_eager", dynamic=True)
    for n in (40, 70):
        boxes, scores = random_boxes(n)
        groups = torch.arange(n) % 3
        for got, wanted in zip(compiled(boxes, scores, groups), suppress(boxes, scores, groups), strict=True):
            assert torch.equal(got, wanted)


def test_exports() -> None:
    class Suppress(torch.nn.Module):
        def forward(self, boxes: Tensor, scores: Tensor) -> Tensor:
            return boxes[nms(boxes, scores, 0.5)]

    n = torch.export.Dim("n", min=2, max=1000)
    program = torch.export.export(Suppress(), random_boxes(30), dynamic_shapes=({0: n}, {0: n}))
    for count in (30, 90):
        boxes, scores = random_boxes(count, seed=5)
        assert torch.equal(program.module()(boxes, scores), boxes[nms(boxes, scores, 0.5)])


def test_autocast_changes_nothing() -> None:
    boxes, scores = random_boxes(200)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = nms(boxes, scores, 0.5)
    assert torch.equal(found, nms(boxes, scores, 0.5))


@pytest.mark.gpu
def test_cuda_gives_the_cpu_s_indices() -> None:
    for seed in range(300):
        boxes, scores, groups, threshold = fuzz.case(seed, large=seed % 10 == 0)
        there = [None if t is None else t.cuda() for t in (boxes, scores, groups)]
        if groups is None:
            found, wanted = nms(there[0], there[1], threshold), nms(boxes, scores, threshold)
        else:
            found, wanted = batched_nms(*there, threshold), batched_nms(boxes, scores, groups, threshold)  # type: ignore[arg-type, call-arg]
        assert torch.equal(found.cpu(), wanted), f"case {seed}"


@pytest.mark.gpu
def test_cuda_in_more_than_one_chunk_and_in_a_graph() -> None:
    boxes, scores = random_boxes(10_000)
    order = scores.argsort(descending=True, stable=True)
    here, there = boxes[order], boxes[order].cuda()
    wanted = nms_mask(here, None, 0.5)
    assert torch.equal(nms_mask(there, None, 0.5).cpu(), wanted)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        mask = nms_mask(there, None, 0.5)
    graph.replay()
    assert torch.equal(mask.cpu(), wanted)
