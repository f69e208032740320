from dataclasses import replace

import pytest

from detkit.train.auto import rules
from detkit.train.auto.choices import Choices
from detkit.train.auto.facts import Facts

FACTS = Facts(images=200, boxes={"a": 400}, height=480, width=640, aspect=4 / 3, small=0.2, small_class="a", sided=())


@pytest.mark.parametrize(
    ("small", "native", "side"),
    [(0.2, (480, 640), rules.LEAST_SIDE), (0.05, (960, 1280), 480), (0.001, (3000, 4000), rules.MOST_SIDE),
     (0.001, (400, 500), 447)],
    ids=["large objects", "small objects", "tiny objects", "small images"],
)  # fmt: skip
def test_the_side_lets_small_objects_be_large_enough(small: float, native: tuple[int, int], side: float) -> None:
    facts = replace(FACTS, small=small, height=native[0], width=native[1])
    assert rules.choose_side(facts, on_gpu=False)[0] == pytest.approx(side, abs=1)


def test_the_size_has_the_shape_of_the_images_and_fits_the_strides() -> None:
    size = rules.size_of(384, FACTS, "")
    assert (size.height, size.width) == (320, 448)
    assert rules.size_of(384, replace(FACTS, aspect=1.0), "").height == 384


@pytest.mark.parametrize(("overlap", "threshold"), [(0.0, 0.5), (0.52, 0.55), (0.55, 0.55), (0.95, 0.7)])
def test_crowded_objects_are_not_suppressed(overlap: float, threshold: float) -> None:
    choices = Choices(rules.BASE, [])
    rules.choose_detections(choices, replace(FACTS, overlap=overlap))
    assert choices.values["nms.iou_threshold"] == threshold


@pytest.mark.parametrize(("small", "finest"), [(0.05, "c3"), (0.2, "c4")])
def test_fine_levels_are_only_for_small_objects(small: float, finest: str) -> None:
    choices = Choices(rules.BASE, [])
    rules.choose_levels(choices, replace(FACTS, small=small), rules.size_of(384, FACTS, ""))
    assert choices.values["backbone.out_features"][0] == finest


def test_mirrors_are_for_long_trainings_of_classes_that_they_do_not_exchange() -> None:
    def flips(facts: Facts, strong: bool) -> bool:
        choices = Choices(rules.BASE, [])
        rules.choose_transforms(choices, facts, rules.size_of(384, facts, ""), strong=strong)
        return "RandomHorizontalFlip" in str(choices.values["data.train.transforms"])

    assert flips(FACTS, strong=True)
    assert not flips(FACTS, strong=False)
    assert not flips(replace(FACTS, sided=("left",)), strong=True)


def test_the_length_fits_into_the_minutes_and_has_a_limit() -> None:
    def steps(minutes: float, images: int = 200) -> int:
        choices = Choices(rules.BASE, [])
        facts = replace(FACTS, images=images)
        rules.choose_length(choices, facts, batch=8, step=0.5, minutes=minutes, val_images=20)
        assert choices.values["schedule.warmup_iterations"] <= choices.values["train.iterations"]
        assert 0 < choices.values["train.eval_every"] <= choices.values["train.iterations"]
        return int(choices.values["train.iterations"])

    assert steps(10) == int(600 * rules.TRAINING_PART / 0.5)
    assert steps(1000) == rules.MOST_PASSES * 200 // 8
    assert steps(1000, images=8) == rules.FEWEST_STEPS
    assert steps(0.001) == rules.LEAST_STEPS


def test_too_few_passes_make_the_images_smaller_but_not_tiny() -> None:
    assert rules.shrink(640, possible=2 * rules.FEWEST_PASSES) == 640
    assert rules.shrink(640, possible=rules.FEWEST_PASSES / 4) == 320
    assert rules.shrink(640, possible=0.01) == rules.SHRUNK_SIDE


def test_time_that_is_over_leaves_fewer_steps() -> None:
    def steps(spent: float) -> int:
        choices = Choices(rules.BASE, [])
        rules.choose_length(choices, FACTS, batch=8, step=0.5, minutes=1, val_images=20, spent=spent)
        return int(choices.values["train.iterations"])

    assert steps(0) > steps(30) == int(30 * (1 - rules.EVALUATION_PART) / 0.5) > steps(90) == rules.LEAST_STEPS
