from __future__ import annotations

import torch

from detkit.heads.task_aligned import TaskAlignedHead, geometric_mean_logit, moved_edges


def test_the_logit_is_that_of_the_geometric_mean() -> None:
    a, b = torch.randn(2, 50, dtype=torch.float64) * 4
    wanted = (a.sigmoid() * b.sigmoid()).sqrt().logit()
    torch.testing.assert_close(geometric_mean_logit(a, b), wanted)


def test_it_is_finite_with_its_gradient_in_half_precision() -> None:
    values = torch.tensor([-6e4, -30.0, 0.0, 30.0, 6e4], dtype=torch.float16)
    a, b = (v.flatten().clone().requires_grad_() for v in torch.meshgrid(values, values, indexing="ij"))
    logit = geometric_mean_logit(a, b)
    logit.sum().backward()
    assert logit.isfinite().all()
    assert a.grad is not None
    assert a.grad.isfinite().all()
    # A probability of 1 leaves the other one's square root.
    torch.testing.assert_close(logit[22].sigmoid(), torch.tensor(0.5).sqrt())


def test_edges_that_are_read_at_their_own_place_stay() -> None:
    distances = torch.rand(2, 4, 5, 6) * 3
    torch.testing.assert_close(moved_edges(distances, torch.zeros(2, 8, 5, 6)), distances, rtol=1e-5, atol=1e-5)


def test_an_edge_is_read_beside_its_place() -> None:
    distances = torch.full((1, 4, 3, 4), 1.0)
    offsets = torch.zeros(1, 8, 3, 4)
    offsets[:, 5] = 1  # x of the right edge: one cell further
    moved = moved_edges(distances, offsets)
    assert moved[0, :, 1, 1].tolist() == [1, 1, 2, 1]
    # In the last column the right edge is read outside the map, as 0, and so crosses the left one: nothing moves.
    assert moved[0, :, 1, 3].tolist() == [1, 1, 1, 1]


def test_scores_start_at_the_bias_of_the_loss() -> None:
    bias = torch.tensor([-1.0, -2.0, -5.0])
    head = TaskAlignedHead(in_channels=(8,), anchors_per_cell=(1,), num_columns=3, class_bias=bias)
    torch.testing.assert_close(head([torch.zeros(1, 8, 2, 2)]).logits[0][0, 0], bias, rtol=0.02, atol=0.02)
