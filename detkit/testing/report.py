"""What a contract is made of: small named checks, a part that they share, and a report of what they saw."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detkit.utils.quiet import from_library

SEED = 7
"""Of every check, so that what was seen once is seen again."""


class ContractError(AssertionError):
    """A part that is not what its slot promises; the text says what is broken, what was seen and why it matters."""


class Broken(Exception):
    """Raised inside a check: its text says what was seen."""


def expect(holds: Any, seen: str) -> None:
    """Raises `Broken(seen)` unless `holds`."""
    if not bool(holds):
        raise Broken(seen)


@contextmanager
def must_not_raise(doing: str) -> Iterator[None]:
    """Turns what is raised inside into `Broken`, for checks that ask whether something works at all."""
    try:
        yield
    except Broken:
        raise
    except Exception as error:
        raise Broken(f"{doing} raises {type(error).__name__}: {_first_line(error)}") from error


class Subject:
    """The part under test, built once and brought back to its first state before every check.

    candidates: sets of derived arguments, the first that the factory does not refuse with ValueError is used.
    """

    def __init__(self, factory: Callable[..., Any], candidates: Sequence[Mapping[str, Any]] = ({},)) -> None:
        self.factory, self.candidates = factory, candidates
        self.derived: Mapping[str, Any] = {}
        self._part: Any = None
        self._first: Any = None

    def build(self) -> Any:
        """A new part."""
        if self._part is not None:
            return self.factory(**self.derived)
        first: ValueError | None = None
        for derived in self.candidates:
            try:
                part = self.factory(**derived)
            except ValueError as error:
                first = first or error
                continue
            self.derived = derived
            return part
        assert first is not None, "a subject needs a candidate"
        raise first

    @property
    def part(self) -> Any:
        """The part that the checks share; in training mode when a check begins."""
        if self._part is None:
            torch.manual_seed(SEED)
            self._part = self.build()
            if isinstance(self._part, nn.Module):
                self._first = _copied(self._part)
        return self._part

    def reset(self) -> None:
        """Undoes what a check did to the part."""
        if isinstance(self.part, nn.Module):
            torch.manual_seed(SEED)
            self._part = (self.build() if self._first is None else copy.deepcopy(self._first)).train()
        torch.manual_seed(SEED)


Run = Callable[[Subject], None]
"""What a check does: raises if its rule is broken."""


@dataclass(frozen=True)
class Check:
    """One rule: its name, why it matters to a user, and the function that raises when it is broken.

    vital: where it is broken nothing else can be seen, so that no other check is run.
    """

    name: str
    why: str
    run: Run
    vital: bool = False


@dataclass(frozen=True)
class Result:
    """How one check ended. seen: empty if it passed. stray: it ended in an exception that it did not ask about."""

    check: Check
    seen: str
    stray: bool = False

    @property
    def ok(self) -> bool:
        return not self.seen


@dataclass
class Report:
    """Results of a part, in the order of its contract. left_out: checks that a vital one kept from being run."""

    part: str
    results: list[Result] = field(default_factory=list)
    left_out: int = 0

    @property
    def failed(self) -> list[Result]:
        return [r for r in self.results if not r.ok]

    def __str__(self) -> str:
        """A table: a line for each check, two more for one that failed."""
        width = max((len(r.check.name) for r in self.results), default=0)
        lines = []
        for r in self.results:
            lines.append(f"  {r.check.name:{width}}  {'ok' if r.ok else 'FAILED'}")
            if not r.ok:
                lines += [f"      seen: {r.seen}", f"      why it matters: {r.check.why}"]
        if self.left_out:
            lines.append(f"  the other {self.left_out} checks were not run")
        return "\n".join([f"{self.part}: {len(self.failed)} of {len(self.results)} checks failed", *lines])


class Contract:
    """The checks of one slot."""

    def __init__(self, slot: str, candidates: Sequence[Mapping[str, Any]] = ({},)) -> None:
        self.slot, self.candidates = slot, candidates
        self.checks: list[Check] = []

    def check(self, why: str, *, vital: bool = False) -> Callable[[Run], Run]:
        """Decorator that adds a check, named like the function."""

        def add(run: Run) -> Run:
            self.checks.append(Check(run.__name__, why, run, vital))
            return run

        return add

    def subject(self, factory: Callable[..., Any]) -> Subject:
        """A part for `run_one`; nothing is built yet."""
        return Subject(factory, self.candidates)

    def run_one(self, subject: Subject, check: Check) -> Result:
        """Runs one check; whatever it raises is what was seen. The global generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            try:
                subject.reset()
                check.run(subject)
            except Broken as error:
                return Result(check, str(error))
            except Exception as error:
                return Result(check, f"{type(error).__name__}: {_first_line(error)}", stray=True)
        return Result(check, "")

    def __call__(self, factory: Callable[..., Any], *, check_all: bool = False) -> Report:
        """Runs the checks: raises ContractError at the first that fails, or reports on all with `check_all`."""
        subject = self.subject(factory)
        report = Report(f"{self.slot} {getattr(factory, '__name__', 'part')}")
        for check in self.checks:
            result = self.run_one(subject, check)
            report.results.append(result)
            if not result.ok and not check_all:
                raise ContractError(describe(self.slot, result))
            if not result.ok and check.vital:
                report.left_out = len(self.checks) - len(report.results)
                break
        return report


def describe(slot: str, result: Result) -> str:
    """A failure in words."""
    return f"{slot}: {result.check.name} is broken. Seen: {result.seen}. Why it matters: {result.check.why}"


def _copied(part: nn.Module) -> nn.Module | None:
    """A copy; None if the part can't be copied, which `copies_and_pickles` says and no other check should."""
    try:
        return copy.deepcopy(part)
    except Exception:
        return None


USER_LINE = re.compile(r'^ *File "(.+)", line (\d+), in .+\n *(.+)$', re.MULTILINE)
"""How torch's compiler and exporter name a line of the part's file in their messages."""


def _first_line(error: Exception) -> str:
    """The cause in one line, with the line of the user's file that a compiler's message names further down."""
    text = str(error)
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):  # a headline only, as that of load_state_dict
        return f"{lines[0]} {lines[1].strip()}"
    named = [m for m in USER_LINE.findall(text) if not from_library(m[0])]
    where = f" ({Path(named[-1][0]).name}:{named[-1][1]}: {named[-1][2]})" if named and len(lines) > 1 else ""
    return f"{lines[0]}{where}" if lines else "no message"
