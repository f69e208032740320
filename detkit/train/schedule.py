"""Learning rate schedules: pure functions of the step, so resuming needs nothing but the step."""

from __future__ import annotations

import math

from detkit.registry import SCHEDULES


class Schedule:
    """Says by what the optimizer's learning rates are multiplied.

    warmup: steps of the warm-up and the factor that it begins with, where there is one.
    """

    warmup: tuple[int, float] = (0, 1.0)

    def check_length(self, total: int) -> None:
        """Raises ValueError if the schedule makes no sense for a training of so many steps."""
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
    """The full learning rate throughout, after a linear warm-up from `warmup_factor`."""

    def __init__(self, *, warmup_iterations: int = 0, warmup_factor: float = 0.001) -> None:
        self.warmup = check_warmup(warmup_iterations, warmup_factor)

    def factor(self, step: int, total: int) -> float:
        """See `Schedule.factor`."""
        return warmup(step, *self.warmup)


@SCHEDULES.register()
class MultiStep(Schedule):
    """Multiplies by `gamma` at every milestone: 2/3 and 8/9 of the training unless told otherwise.

    milestones: whole numbers are steps; fractions between 0 and 1 are parts of the training.
    """

    def __init__(
        self,
        *,
        milestones: list[float] | None = None,
        gamma: float = 0.1,
        warmup_iterations: int = 500,
        warmup_factor: float = 0.001,
    ) -> None:
        self.milestones = [2 / 3, 8 / 9] if milestones is None else list(milestones)
        for m in self.milestones:
            if not 0 < m < math.inf or (m > 1 and m != int(m)):
                raise ValueError(f"milestones: {m} is neither a fraction between 0 and 1 nor a whole step")
        if self.milestones != sorted(self.milestones):
            raise ValueError(f"milestones: {self.milestones} are not in rising order")
        if not 0 < gamma <= 1:
            raise ValueError(f"gamma: {gamma} is not between 0 and 1")
        self.gamma, self.warmup = gamma, check_warmup(warmup_iterations, warmup_factor)

    def factor(self, step: int, total: int) -> float:
        """See `Schedule.factor`."""
        passed = sum(step >= (round(m * total) if m < 1 else m) for m in self.milestones)
        return warmup(step, *self.warmup) * self.gamma**passed


@SCHEDULES.register()
class Cosine(Schedule):
    """Half a cosine from 1 to `final_factor` (1608.03983, equation 5) after the warm-up."""

    def __init__(
        self, *, final_factor: float = 0.0, warmup_iterations: int = 500, warmup_factor: float = 0.001
    ) -> None:
        if not 0 <= final_factor <= 1:
            raise ValueError(f"final_factor: {final_factor} is not between 0 and 1")
        self.final, self.warmup = final_factor, check_warmup(warmup_iterations, warmup_factor)

    def factor(self, step: int, total: int) -> float:
        """See `Schedule.factor`."""
        start = self.warmup[0]
        if step < start:
            return warmup(step, *self.warmup)
        progress = min((step - start) / max(total - start, 1), 1.0)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


def warmup(step: int, iterations: int, start: float) -> float:
    """Rises linearly from `start` at step 0 to 1 at step `iterations` (1706.02677, section 2.2)."""
    return 1.0 if step >= iterations else start + (1 - start) * step / iterations


def check_warmup(iterations: int, factor: float) -> tuple[int, float]:
    """Both, if they make sense."""
    if iterations < 0:
        raise ValueError(f"warmup_iterations: {iterations} is negative")
    if not 0 <= factor <= 1:
        raise ValueError(f"warmup_factor: {factor} is not between 0 and 1")
    return iterations, factor
