"""Learning rate schedules: pure functions of the step, so resuming needs nothing but the step."""

from __future__ import annotations

import math

from detkit.registry import SCHEDULES, Fraction, FractionAboveZero, FractionBelowOne, NonNegativeInt, Positive
from detkit.registry.values import value_text


class Schedule:
    """Returns the factor on the optimizer's learning rates at each step.

    warmup: steps of the warm-up and the factor that it begins with.
    """

    warmup: tuple[int, float] = (0, 1.0)

    def check_length(self, total: int) -> None:
        """Raises ValueError if the schedule makes no sense for a training of `total` steps."""
        if self.warmup[0] > total:
            raise ValueError(
                f"schedule.warmup_iterations: {self.warmup[0]} is more than train.iterations: {total}, so the learning "
                f"rate would never reach optimizer.lr: take schedule.warmup_iterations={total // 10}, or train longer"
            )

    def factor(self, step: int, total: int) -> float:
        """The factor for step `step`, counted from 0, of `total`."""
        raise NotImplementedError


@SCHEDULES.register()
class Constant(Schedule):
    """The full learning rate throughout, after a linear warm-up.

    Args:
        warmup_iterations: steps of the warm-up.
        warmup_factor: factor that the warm-up begins with.
    """

    def __init__(self, *, warmup_iterations: NonNegativeInt = 0, warmup_factor: Fraction = 0.001) -> None:
        self.warmup = (warmup_iterations, warmup_factor)

    def factor(self, step: int, total: int) -> float:
        return warmup(step, *self.warmup)


@SCHEDULES.register()
class MultiStep(Schedule):
    """Multiplies by `gamma` at every milestone.

    Args:
        milestones: whole numbers are steps, fractions between 0 and 1 parts of the training; null for 2/3 and 8/9.
        gamma: factor of each milestone.
        warmup_iterations: steps of the warm-up.
        warmup_factor: factor that the warm-up begins with.
    """

    def __init__(
        self,
        *,
        milestones: list[Positive] | None = None,
        gamma: FractionAboveZero = 0.1,
        warmup_iterations: NonNegativeInt = 500,
        warmup_factor: Fraction = 0.001,
    ) -> None:
        self.milestones = [2 / 3, 8 / 9] if milestones is None else list(milestones)
        for m in self.milestones:
            if m > 1 and m != int(m):
                raise ValueError(f"milestones: {value_text(m)} is neither a fraction between 0 and 1 nor a whole step")
        if self.milestones != sorted(self.milestones):
            raise ValueError(f"milestones: [{', '.join(map(value_text, self.milestones))}] are not in rising order")
        self.gamma, self.warmup = gamma, (warmup_iterations, warmup_factor)

    def factor(self, step: int, total: int) -> float:
        passed = sum(step >= (round(m * total) if m < 1 else m) for m in self.milestones)
        return warmup(step, *self.warmup) * self.gamma**passed


@SCHEDULES.register()
class Cosine(Schedule):
    """Half a cosine from 1 to `final_factor` after the warm-up (1608.03983, equation 5).

    Args:
        final_factor: factor of the last step.
        warmup_iterations: steps of the warm-up.
        warmup_factor: factor that the warm-up begins with.
    """

    def __init__(
        self,
        *,
        final_factor: Fraction = 0.0,
        warmup_iterations: NonNegativeInt = 500,
        warmup_factor: Fraction = 0.001,
    ) -> None:
        self.final, self.warmup = final_factor, (warmup_iterations, warmup_factor)

    def factor(self, step: int, total: int) -> float:
        start = self.warmup[0]
        if step < start:
            return warmup(step, *self.warmup)
        progress = min((step - start) / max(total - start, 1), 1.0)
        return half_cosine(progress, self.final)


@SCHEDULES.register()
class FlatCosine(Schedule):
    """The full learning rate after the warm-up, and from `flat` on half a cosine to `final_factor`.

    The defaults are RTMDet's. Source: 2212.07784, section 4.1.

    Args:
        flat: fraction of the training after which the cosine begins.
        final_factor: factor of the last step.
        warmup_iterations: steps of the warm-up.
        warmup_factor: factor that the warm-up begins with.
    """

    def __init__(
        self,
        *,
        flat: FractionBelowOne = 0.5,
        final_factor: Fraction = 0.05,
        warmup_iterations: NonNegativeInt = 1000,
        warmup_factor: Fraction = 1e-5,
    ) -> None:
        self.flat, self.final, self.warmup = flat, final_factor, (warmup_iterations, warmup_factor)

    def check_length(self, total: int) -> None:
        super().check_length(total)
        if self.warmup[0] > (start := round(self.flat * total)):
            raise ValueError(
                f"schedule.warmup_iterations: {self.warmup[0]} is more than schedule.flat: {value_text(self.flat)} of "
                f"train.iterations: {total}, so the cosine would begin inside the warm-up: take "
                f"schedule.warmup_iterations={start // 5}, or train longer"
            )

    def factor(self, step: int, total: int) -> float:
        start = round(self.flat * total)
        progress = min(max(step - start, 0) / max(total - start, 1), 1.0)
        return warmup(step, *self.warmup) * half_cosine(progress, self.final)


def half_cosine(progress: float, final: float) -> float:
    """Falls from 1 at progress 0 to `final` at 1 (1608.03983, equation 5)."""
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup(step: int, iterations: int, start: float) -> float:
    """Rises linearly from `start` at step 0 to 1 at step `iterations` (1706.02677, section 2.2)."""
    return 1.0 if step >= iterations else start + (1 - start) * step / iterations
