"""Where a process of a run is: written by the loop, read by its watchdog."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Progress:
    """step: in work or, between steps, done last. phase: of it, in a word. entered: phases so far, the same
    number on every rank at the same place of a run. ticks: signs of life; a phase that goes on too long
    without one is a hang."""

    step: int = 0
    phase: str = "start"
    entered: int = 0
    ticks: int = 0

    def enter(self, phase: str, step: int) -> None:
        """A new phase begins. All ranks must enter the same phases in the same order."""
        self.step, self.phase = step, phase
        self.entered += 1
        self.ticks += 1

    def tick(self) -> None:
        """The phase goes on well."""
        self.ticks += 1

    def track(self, items: Iterable[T]) -> Iterator[T]:
        """The items, with a tick at each."""
        for item in items:
            self.tick()
            yield item
            self.tick()
