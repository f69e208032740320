import torch

from detkit import boxes


def test_area_and_intersection_by_hand() -> None:
    a = torch.tensor([[0.0, 0, 4, 2], [10, 10, 12, 12]])
    b = torch.tensor([[2.0, 1, 6, 5], [11, 11, 11, 20]])
    assert boxes.area(a).tolist() == [8, 4]
    assert boxes.pairwise_intersection(a, b).tolist() == [[2, 0], [0, 0]]


def test_iou_by_hand_and_of_nothing_with_nothing() -> None:
    a = torch.tensor([[0.0, 0, 2, 2], [1, 1, 1, 1]])
    b = torch.tensor([[1.0, 0, 3, 2], [1, 1, 1, 1]])
    torch.testing.assert_close(boxes.pairwise_iou(a, b), torch.tensor([[1 / 3, 0], [0, 0]]))
    torch.testing.assert_close(boxes.paired_iou(a, b), torch.tensor([1 / 3, 0]))


def test_clip_and_rescale_by_hand() -> None:
    a = torch.tensor([[-5.0, 1, 20, 30]])
    assert boxes.clip(a, 8, 10).tolist() == [[0, 1, 10, 8]]
    # Twice as high, four times as wide.
    assert boxes.rescale(a, (10, 10), (20, 40)).tolist() == [[-20, 2, 80, 60]]
