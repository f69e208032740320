from pathlib import Path

import pytest

from detkit.data.datasets.voc import VocDataset
from detkit.train.auto.facts import read_facts
from tests.train.auto.conftest import add_image


def test_the_small_objects_are_the_lower_quartile_of_the_smallest_class(tmp_path: Path) -> None:
    for i in range(10):
        add_image(tmp_path, f"a{i}", [("large", 0, 0, 60, 60), ("small", 0, 0, 12, 12)], size=(120, 120))
    facts = read_facts(VocDataset(root=str(tmp_path), one_based=False))
    assert (facts.small_class, facts.small) == ("small", pytest.approx(0.1, abs=0.01))
    assert facts.boxes == {"large": 10, "small": 10}
    assert (facts.height, facts.width, facts.images) == (120, 120, 10)


def test_a_rare_class_does_not_decide(tmp_path: Path) -> None:
    for i in range(10):
        add_image(tmp_path, f"a{i}", [("common", 0, 0, 60, 60)], size=(120, 120))
    add_image(tmp_path, "b", [("rare", 0, 0, 6, 6)], size=(120, 120))
    assert read_facts(VocDataset(root=str(tmp_path), one_based=False)).small_class == "common"


@pytest.mark.parametrize(
    ("sizes", "aspect"),
    [([(120, 80)] * 4, 1.5), ([(80, 120)] * 4, 2 / 3), ([(120, 80)] * 3 + [(80, 120)], 1.0)],
    ids=["lying", "upright", "mixed"],
)
def test_the_shape_is_that_of_the_images_unless_they_differ(
    tmp_path: Path, sizes: list[tuple[int, int]], aspect: float
) -> None:
    for i, size in enumerate(sizes):
        add_image(tmp_path, f"a{i}", [("x", 0, 0, 40, 40)], size=size)
    assert read_facts(VocDataset(root=str(tmp_path), one_based=False)).aspect == pytest.approx(aspect)


def test_classes_that_a_mirror_exchanges_are_known_by_their_names(tmp_path: Path) -> None:
    add_image(tmp_path, "a", [("redleft", 0, 0, 40, 40), ("red", 0, 0, 30, 30), ("Turn_RIGHT", 2, 2, 30, 30)])
    assert set(read_facts(VocDataset(root=str(tmp_path), one_based=False)).sided) == {"redleft", "Turn_RIGHT"}


def test_the_overlap_is_that_of_objects_of_one_class(tmp_path: Path) -> None:
    pair = [("x", 0, 0, 40, 40), ("x", 0, 0, 40, 30), ("other", 0, 0, 40, 40)]
    for i in range(4):
        add_image(tmp_path, f"a{i}", pair)
    assert read_facts(VocDataset(root=str(tmp_path), one_based=False)).overlap == pytest.approx(0.75)


def test_no_overlap_without_neighbours(tmp_path: Path) -> None:
    add_image(tmp_path, "a", [("x", 0, 0, 40, 40), ("other", 0, 0, 40, 40)])
    assert read_facts(VocDataset(root=str(tmp_path), one_based=False)).overlap == 0
