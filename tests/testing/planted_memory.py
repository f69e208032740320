"""Faults against the checks that a part remembers nothing outside its state dict."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from PIL import Image

from detkit.structures import IGNORED
from tests.testing.planted import Fault, fault

RESUME, EVALUATION = "training_state_is_in_the_checkpoint", "evaluation_remembers_nothing"
SHARED = {"calls": 0}
"""A memory of the file, that all parts share."""


def count(self: Any) -> int:
    """Calls so far, in a Python attribute."""
    self.calls = getattr(self, "calls", 0) + 1
    return self.calls


def count_for_all(self: Any) -> int:
    """Calls of all parts of the class so far."""
    type(self).calls_of_all = getattr(type(self), "calls_of_all", 0) + 1
    return type(self).calls_of_all


def count_in_the_file(self: Any) -> int:
    SHARED["calls"] += 1
    return SHARED["calls"]


def count_in_a_list(self: Any) -> int:
    self.__dict__.setdefault("seen", []).append(1)
    return len(self.seen)


def count_in_a_dict(self: Any) -> int:
    kept = self.__dict__.setdefault("kept", {})
    kept[len(kept)] = 1
    return len(kept)


def count_in_a_float(self: Any) -> float:
    self.calls = getattr(self, "calls", 0.0) + 1.0
    return self.calls


def count_in_a_tensor(self: Any) -> int:
    self.calls = self.__dict__.setdefault("calls", torch.zeros((), dtype=torch.long)) + 1
    return int(self.calls)


def count_in_place(self: Any) -> int:
    cell = self.__dict__.setdefault("cell", [0])
    cell[0] += 1
    return cell[0]


def count_by_iterator(self: Any) -> int:
    return next(self.__dict__.setdefault("numbers", itertools.count(1)))


def count_by_default(self: Any, cell: list[int] = [0]) -> int:  # noqa: B006
    cell[0] += 1
    return cell[0]


def count_in_a_closure() -> Callable[[Any], int]:
    calls = 0

    def count(self: Any) -> int:
        nonlocal calls
        calls += 1
        return calls

    return count


class Counter:
    """An object that is no part."""

    calls = 0


def count_in_an_object(self: Any) -> int:
    counter = self.__dict__.setdefault("counter", Counter())
    counter.calls += 1
    return int(counter.calls)


def millionth(counter: Callable[[Any], int]) -> Callable[[Any], float]:
    """Something that happens at every millionth call alone."""
    return lambda self: float(counter(self) % 1_000_000 == 0)


@functools.cache
def first_number(key: int) -> float:
    """One of a process's own for each key."""
    return next(NUMBERS)


NUMBERS = map(float, itertools.count())


def keep_cache(self: Any) -> None:
    self.first_number = first_number


def cached_by_key(self: Any, tensor: Any) -> float:
    return first_number(int(torch.randint(1 << 30, ())))


def own_dice(self: Any) -> float:
    return self.__dict__.setdefault("dice", random.Random(5)).random()


def running_mean(self: Any, tensor: Any) -> float:
    self.mean = 0.9 * getattr(self, "mean", 0.0) + 0.1 * float(tensor.detach().mean())
    return self.mean


def cached(self: Any, tensor: Any) -> float:
    """The mean of what came first."""
    if not hasattr(self, "cache"):
        self.cache = tensor.detach().clone().double().mean()
    return float(self.cache)


def in_training(change: Callable[[Any, Any], float], when: Callable[[Any], bool] = lambda self: self.training) -> Any:
    """An output that grows by something remembered."""
    return lambda self, t: t + 1e-3 * change(self, t) if when(self) else t


def in_modules(check: str, seen: str, **change: Any) -> list[Fault]:
    return [fault(slot, check, seen, **change) for slot in ("backbones", "necks", "heads")]


def without(memory: Callable[[Any], float]) -> Callable[[Any, Any], float]:
    return lambda self, tensor: memory(self)


def evaluating(self: Any) -> bool:
    return not self.training


def fifth(self: Any) -> bool:
    """True from the fifth training call on."""
    return self.training and count(self) > 4


def shifted(boxes: list[Any], by: float) -> list[Any]:
    return [b + by for b in boxes]


def remembers_first(self: Any, value: Any) -> float:
    return 1e-3 * cached(self, value) if not self.training else 0.0


def first_image_stays(self: Any, original: Any, image: Any, boxes: Any, labels: Any) -> Any:
    """Every image gets a corner of the first."""
    if not hasattr(self, "corner"):
        self.corner = image.crop((0, 0, 1, 1))
    image = image.copy()
    image.paste(self.corner, (0, 0))
    return original(image, boxes, labels)


def mixes_with_the_last(self: Any, original: Any, image: Any, boxes: Any, labels: Any) -> Any:
    """An image gets a corner of the one before, if that has the same size."""
    last, self.last = getattr(self, "last", image), image
    image = image.copy()
    if last.size == image.size:
        image.paste(last.crop((0, 0, 1, 1)), (0, 0))
    return original(image, boxes, labels)


def other_after_1000(self: Any, original: Any, *given: Any) -> Any:
    self.inner.p = 0.5 if count(self) % 1000 else 1.0
    return original(*given)


def darker_after_later_ones(self: Any, original: Any, index: int) -> Any:
    image, self.highest = original(index), max(index, getattr(self, "highest", 0))
    return Image.eval(image, lambda v: v // 2) if index < self.highest else image


def mean_of_totals(self: Any, original: Any, total: Any) -> Any:
    self.mean = 0.9 * getattr(self, "mean", 100.0) + 0.1 * float(total)
    return torch.tensor(max(self.mean, 1.0))


FAULTS = [
    *in_modules(
        RESUME, r"training call \d, resumed after \d calls: .*calls changed", outputs=in_training(without(count))
    ),
    *in_modules(RESUME, r"training call \d, resumed after", outputs=in_training(without(count_in_a_list))),
    *in_modules(RESUME, r"training call \d, resumed after", outputs=in_training(without(count_in_a_dict))),
    *in_modules(RESUME, r"training call \d, resumed after", outputs=in_training(without(own_dice))),
    *in_modules(RESUME, r"training call \d, resumed after .*mean changed", outputs=in_training(running_mean)),
    *in_modules(RESUME, r"training call \d, resumed after .*cache changed", outputs=in_training(cached)),
    *in_modules(
        RESUME,
        r"training call \d, resumed after ",
        outputs=in_training(without(count_in_the_file)),
        also=(EVALUATION,),
    ),
    *in_modules(
        RESUME,
        r"training call \d, resumed after .*calls_of_all changed",
        outputs=in_training(without(count_for_all)),
        also=(EVALUATION,),
    ),
    *in_modules(
        RESUME,
        r"call \d, calls being \d+",
        outputs=in_training(lambda self, t: float(count(self) % 500 == 0)),
    ),
    *in_modules(
        EVALUATION,
        r"evaluation call \d+ by a part with the same state: .*cache changed",
        outputs=in_training(cached, evaluating),
    ),
    *in_modules(
        EVALUATION,
        "evaluating changes level in the state dict",
        init=lambda self: self.register_buffer("level", torch.zeros(1)),
        outputs=lambda self, t: t + 1e-3 * self.level if self.training else (self.level.add_(1), t)[1],
    ),
    *in_modules(
        EVALUATION,
        r"training call \d after evaluating: .*calls changed",
        outputs=lambda self, t: (t + 1e-3 * getattr(self, "calls", 0)) if self.training else (count(self), t)[1],
    ),
    *in_modules(RESUME, r"call \d, calls being 999999", outputs=in_training(without(millionth(count_in_a_float)))),  # type: ignore[arg-type]
    *in_modules(RESUME, r"call \d, calls being 999999", outputs=in_training(without(millionth(count_in_a_tensor)))),
    *in_modules(RESUME, r"call \d, cell being 999999", outputs=in_training(without(millionth(count_in_place)))),
    *in_modules(RESUME, r"call \d, numbers being 999999", outputs=in_training(without(millionth(count_by_iterator)))),
    *in_modules(RESUME, r"call \d, .* being 999999", outputs=in_training(without(millionth(count_by_default)))),
    *in_modules(RESUME, r"call \d, .* being 999999", outputs=in_training(without(millionth(count_in_a_closure())))),
    *in_modules(RESUME, r"call \d, .* being 999999", outputs=in_training(without(millionth(count_in_an_object)))),
    *in_modules(RESUME, r"training call \d, resumed after", init=keep_cache, outputs=in_training(cached_by_key)),
    fault(
        "class_losses",
        RESUME,
        r"training call 8, resumed after 8 calls: .*calls changed",
        forward=lambda self, original, logits, labels, *rest: (
            original(logits, labels, *rest)
            * (1 + 0.01 * (getattr(self, "calls", 0) if (labels >= 0).any() or not self.training else count(self)))
        ),
        also=("sum_adds_up_over_images",),
    ),
    fault(
        "class_losses",
        RESUME,
        r"training call \d+, resumed after \d+ calls: .*calls changed",
        end_step=lambda self, original, totals: count(self),
        forward=lambda self, original, *given: (
            original(*given) * (1 + 0.01 * (getattr(self, "calls", 0) if self.training else 0))
        ),
    ),
    fault(
        "class_losses",
        RESUME,
        "calls being 999",
        forward=lambda self, original, *given: original(*given) * (1 + (count(self) % 1000 == 0)),
    ),
    fault(
        "class_losses",
        EVALUATION,
        "evaluation call 107 by a part with the same state.*cache changed",
        forward=lambda self, original, logits, *rest: original(logits, *rest) + remembers_first(self, logits),
    ),
    fault(
        "box_losses",
        RESUME,
        r"training call \d+, resumed after \d+ calls: .*mean, weight changed",
        end_step=lambda self, original, totals: running_mean(self, torch.ones(1)),
        take_accumulated=lambda self, original: (torch.zeros(1), setattr(self, "weight", 1 + getattr(self, "mean", 0)))[
            0
        ],
        also=(EVALUATION,),
    ),
    fault(
        "box_losses",
        EVALUATION,
        "evaluation call 107 by a part with the same state.*cache changed",
        forward=lambda self, original, deltas, *rest: original(deltas, *rest) + remembers_first(self, deltas),
    ),
    fault(
        "normalizers",
        RESUME,
        r"training call \d+, resumed after \d+ calls: output 1 .*mean changed",
        divisor=mean_of_totals,
    ),
    fault(
        "normalizers",
        EVALUATION,
        "evaluation call 107 by a part with the same state.*cache changed",
        forward=lambda self, original, labels: original(labels) + remembers_first(self, labels.double()),
    ),
    fault(
        "assigners",
        RESUME,
        r"training call \d+, resumed after \d+ calls: output 0 .*calls changed",
        forward=lambda self, original, *given: (
            replace(found := original(*given), labels=found.labels.index_fill(0, torch.tensor([0]), IGNORED))
            if fifth(self)
            else original(*given)
        ),
    ),
    fault(
        "assigners",
        EVALUATION,
        "evaluation call 107 by a part with the same state.*cache changed",
        forward=lambda self, original, candidates, targets: (
            original(candidates, targets)
            if self.training
            else replace(
                found := original(candidates, targets),
                matched=found.matched + int(1e6 * cached(self, targets.boxes)),
            )
        ),
    ),
    fault(
        "coders",
        RESUME,
        r"training call \d+, resumed after \d+ calls: output 1 .*calls changed",
        decode=lambda self, original, *given: original(*given) + (0.5 if fifth(self) else 0.0),
    ),
    fault(
        "coders",
        EVALUATION,
        "evaluation call 107 by a part with the same state.*cache changed",
        encode=lambda self, original, boxes, anchors: original(boxes, anchors) + remembers_first(self, boxes),
    ),
    fault(
        "anchors",
        RESUME,
        r"training call \d+, resumed after \d+ calls: output 0 .*calls changed",
        forward=lambda self, original, *given: shifted(original(*given), 0.25 if fifth(self) else 0.0),
    ),
    fault(
        "anchors",
        EVALUATION,
        "evaluation call 107 by a part with the same state.*cache changed",
        forward=lambda self, original, *given: [b + remembers_first(self, b) for b in original(*given)],
    ),
    fault(
        "nms",
        RESUME,
        r"training call \d+, resumed after \d+ calls: output 1 .*calls changed",
        forward=lambda self, original, *given: (
            (keep := original(*given))[0],
            keep[1] * (0.5 if fifth(self) else 1.0),
        ),
    ),
    fault(
        "nms",
        EVALUATION,
        "evaluation call 107 by a part with the same state.*cache changed",
        forward=lambda self, original, boxes, scores, groups: (
            (keep := original(boxes, scores, groups))[0],
            keep[1] * (1 - abs(remembers_first(self, scores))),
        ),
    ),
    fault(
        "transforms",
        "order_of_images_does_not_matter",
        r"with its own seed, transformed image 23 by a new part, in another order: output 0 differs by",
        __call__=first_image_stays,
    ),
    fault(
        "transforms",
        "order_of_images_does_not_matter",
        r"with its own seed, transformed image \d+ again, after all others: output 0 differs by",
        also=("boxes_stay_valid",),
        __call__=mixes_with_the_last,
    ),
    fault(
        "transforms",
        "order_of_images_does_not_matter",
        r"call \d, calls being 999",
        __call__=other_after_1000,
    ),
    fault(
        "datasets",
        "order_of_reading_does_not_matter",
        "image or annotation 1 again, after all others: output 0 differs by",
        load_image=darker_after_later_ones,
    ),
]
