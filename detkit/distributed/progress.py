"""How far a process has come in a run: written by the loop, read by its watchdog."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Progress:
    """The step and phase of a process.

    step: the one in work or, between steps, the last that is done. phase: of the step, in a word. phases: number of
    phases entered so far; ranks at the same point of a run have the same. ticks: signs of life; a phase that goes
    on too long without one is a hang.
    """

    step: int = 0
    phase: str = "start"
    phases: int = 0
    ticks: int = 0

    def enter(self, phase: str, step: int) -> None:
        """Begins a phase. All ranks must enter the same phases in the same order."""
        self.step, self.phase = step, phase
        self.phases += 1
        self.tick()

    def tick(self) -> None:
        """Shows that the phase moves on."""
        self.ticks += 1

    def track(self, items: Iterable[T]) -> Iterator[T]:
        """Yields the items, with a tick before and after each."""
        for item in items:
            self.tick()
            yield item
            self.tick()
