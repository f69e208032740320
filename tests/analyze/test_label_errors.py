"""Suspected label errors: each kind from detections made by hand."""

from __future__ import annotations

import pytest
import torch

from detkit.analyze.label_errors import Suspect, find_label_errors
from detkit.data.datasets.base import DetectionDataset, named_classes
from detkit.data.datasets.records import RecordsBuilder
from detkit.structures import Detections

CAT, DOG = 0, 1
BOX, OTHER, FAR = [10, 10, 50, 50], [60, 10, 100, 50], [10, 60, 50, 100]


class Labels(DetectionDataset):
    """Images of 120 pixels, each with its (box, label, is_ignore) objects."""

    def __init__(self, images: list[list[tuple[list[int], int, bool]]]) -> None:
        builder = RecordsBuilder("labels", "drop")
        for i, objects in enumerate(images):
            boxes, labels, ignored = [o[0] for o in objects], [o[1] for o in objects], [o[2] for o in objects]
            builder.add(i + 1, f"{i}.jpg", (120, 120), boxes, labels, ignored)
        self.finish("labels", named_classes(enumerate(("cat", "dog"))), builder, keep_empty=True)


def detected(*found: tuple[list[int], int, float]) -> Detections:
    boxes = torch.tensor([box for box, _, _ in found], dtype=torch.float32).reshape(-1, 4)
    return Detections(boxes, torch.tensor([s for _, _, s in found]), torch.tensor([k for _, k, _ in found]).long())


def judge(objects: list[tuple[list[int], int, bool]], found: Detections) -> list[Suspect]:
    """The suspects of one image beside twenty in which labels and detections agree."""
    well = [(BOX, CAT, False), (OTHER, DOG, False)]
    agreed = detected((BOX, CAT, 0.9), (OTHER, DOG, 0.9))
    return find_label_errors(Labels([objects, *[well] * 20]), dict(enumerate([found, *[agreed] * 20])))


def test_labels_and_detections_that_agree_give_no_suspect() -> None:
    assert judge([(BOX, CAT, False)], detected((BOX, CAT, 0.9))) == []


def test_a_missing_box() -> None:
    (suspect,) = judge([(BOX, CAT, False)], detected((BOX, CAT, 0.9), (FAR, DOG, 0.8)))
    assert (suspect.kind, suspect.row, suspect.label, suspect.found) == ("missing", None, None, DOG)
    assert suspect.box == tuple(FAR)
    # 20 dogs with a higher score are confirmed: (20 + 1) / (21 + 2).
    assert suspect.weight == pytest.approx(21 / 23)


def test_a_swapped_class() -> None:
    (suspect,) = judge([(FAR, CAT, False)], detected((FAR, DOG, 0.8), (FAR, CAT, 0.0)))
    assert (suspect.kind, suspect.row, suspect.label, suspect.found) == ("swapped", 0, CAT, DOG)
    # No cat of the 21 has less support than this one: 1/21 are no surer. The dog is trusted as above.
    assert suspect.weight == pytest.approx(1 - (1 - 21 / 23) * (1 / 21))


def test_a_box_that_is_not_found() -> None:
    (suspect,) = judge([(FAR, CAT, False)], detected())
    assert (suspect.kind, suspect.row, suspect.found) == ("not found", 0, None)


def test_swaps_come_before_missing_boxes_and_those_before_boxes_not_found() -> None:
    suspects = judge([(BOX, CAT, False), (OTHER, CAT, False)], detected((BOX, DOG, 0.8), (FAR, DOG, 0.8)))
    assert [s.kind for s in suspects] == ["swapped", "missing", "not found"]


def test_a_detection_in_an_ignore_region_is_not_judged() -> None:
    assert judge([(FAR, CAT, True)], detected((FAR, DOG, 0.8))) == []


def test_a_badly_placed_detection_of_an_object_is_neither_a_missing_box_nor_another_object() -> None:
    shifted = [10, 75, 50, 115]  # IoU 0.45 with FAR
    assert [s.kind for s in judge([(FAR, CAT, False)], detected((shifted, CAT, 0.8)))] == ["not found"]


def test_two_detections_near_one_box_are_two_objects() -> None:
    shifted = [10, 75, 50, 115]
    suspects = judge([(FAR, CAT, False)], detected((FAR, CAT, 0.9), (shifted, CAT, 0.8)))
    assert [(s.kind, s.box) for s in suspects] == [("missing", tuple(map(float, shifted)))]


def test_no_image_gives_no_suspect() -> None:
    assert find_label_errors(Labels([[(BOX, CAT, False), (OTHER, DOG, False)]]), {}) == []
