"""Contracts: small named checks of a part, the part that they share, and the report of their results."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from detkit.registry.arguments import arguments_of
from detkit.registry.bounds import boundary_values
from detkit.utils.quiet import from_library
from detkit.utils.types import Tree

SEED = 7
"""Seed of every check, so that a failure repeats."""
TestedPart: TypeAlias = Any
"""A part under test, which may be anything."""
Nest: TypeAlias = Any
"""Tensors, and nested dicts, lists and tuples of tensors."""


class ContractError(AssertionError):
    """A part that breaks the contract of its slot; the text says which rule, what was seen and why it matters."""


class Broken(Exception):
    """Raised inside a check: its text says what was seen."""


def expect(holds: object, seen: str) -> None:
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


@contextmanager
def must_not_write(**given: Tensor) -> Iterator[None]:
    """Raises `Broken` if what runs inside changes one of the named tensors."""
    before = {name: tensor.clone() for name, tensor in given.items()}
    yield
    changed = [name for name, tensor in given.items() if not torch.equal(tensor, before[name])]
    expect(not changed, f"forward wrote into {', '.join(changed)}")


@contextmanager
def must_not_draw() -> Iterator[None]:
    """Raises `Broken` if what runs inside takes numbers from torch's global generator."""
    before = torch.get_rng_state()
    yield
    expect(torch.equal(before, torch.get_rng_state()), "the state of torch's global generator moved")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's, numpy's and Python's generators begin at `seed`; after it they are as before."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            torch.manual_seed(seed)
            np.random.seed(seed)
            random.seed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


class Subject:
    """The part under test, built once and brought back to its first state before every check."""

    def __init__(self, contract: Contract, factory: Callable[..., TestedPart]) -> None:
        self.contract, self.factory = contract, factory
        self.derived: Tree = {}
        self._part: TestedPart = None
        self._first: nn.Module | None = None

    def build(self) -> TestedPart:
        if self._part is not None:
            return self.factory(**self.derived)
        first: ValueError | None = None
        for derived in self.contract.candidates:
            try:
                part = self.factory(**derived)
            except ValueError as error:
                first = first or error
                continue
            self.derived = derived
            return part
        assert first is not None, "a contract needs a candidate"
        raise first

    def at_bounds(self) -> Iterator[tuple[str, TestedPart]]:
        """Parts with one numeric argument at a bound of its type, each with the argument in words.

        A part may refuse such a value with ValueError, as where it does not go with another argument.
        """
        for name, argument in arguments_of(type(self.part)).items():
            for value in boundary_values(argument.annotation):
                torch.manual_seed(SEED)
                try:
                    part = self.factory(**{**self.derived, name: value})
                except ValueError:
                    continue
                yield f"{name}={value:g}", part

    @property
    def part(self) -> TestedPart:
        """The part that the checks share; in training mode when a check begins."""
        if self._part is None:
            torch.manual_seed(SEED)
            self._part = self.build()
            if isinstance(self._part, nn.Module):
                self._first = _copied(self._part)
        return self._part

    def inputs(self, size: tuple[int, int] = (64, 64)) -> Nest:
        """The argument of the part's forward, for an image of a height and width."""
        assert self.contract.inputs is not None
        return self.contract.inputs(self, size)

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


class Checks:
    """A list of checks, for one slot or shared by several."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def include(self, shared: Checks) -> None:
        self.checks += shared.checks

    def check(self, why: str, *, vital: bool = False) -> Callable[[Run], Run]:
        """Decorator that adds a check, named like the function."""

        def add(run: Run) -> Run:
            self.checks.append(Check(run.__name__, why, run, vital))
            return run

        return add


CONTRACTS: dict[str, Contract] = {}
"""Name of a registry -> the contract of its parts."""


class Contract(Checks):
    """The checks of one slot.

    candidates: sets of derived arguments; the first that a part does not refuse with ValueError is used. inputs: makes
    the argument of the forward of a module with weights.
    """

    def __init__(
        self,
        registry: str,
        slot: str,
        candidates: Sequence[Tree] = ({},),
        inputs: Callable[[Subject, tuple[int, int]], Nest] | None = None,
    ) -> None:
        super().__init__()
        self.slot, self.candidates, self.inputs = slot, candidates, inputs
        CONTRACTS[registry] = self

    def subject(self, factory: Callable[..., TestedPart]) -> Subject:
        """A part for `run_one`; nothing is built yet."""
        return Subject(self, factory)

    def run_one(self, subject: Subject, check: Check) -> Result:
        """Runs one check; whatever it raises is what was seen. The global generators are left as they were."""
        with seeded(SEED):
            try:
                subject.reset()
                check.run(subject)
            except Broken as error:
                return Result(check, str(error))
            except Exception as error:
                return Result(check, f"{type(error).__name__}: {_first_line(error)}", stray=True)
        return Result(check, "")

    def __call__(self, factory: Callable[..., TestedPart], *, check_all: bool = False) -> Report:
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
    return f"{slot}: {result.check.name} is broken. Seen: {result.seen}. Why it matters: {result.check.why}"


def _copied(part: nn.Module) -> nn.Module | None:
    """A copy; None if the part can't be copied, which only `copies_and_pickles` reports."""
    try:
        return copy.deepcopy(part)
    except Exception:
        return None


USER_LINE = re.compile(r'^ *File "(.+)", line (\d+), in .+\n *(.+)$', re.MULTILINE)
"""A line of the part's file in the messages of torch's compiler and exporter."""


def _first_line(error: Exception) -> str:
    """The cause in one line, with the line of the user's file that a compiler's message names further down."""
    text = str(error)
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):  # a headline only, as that of load_state_dict
        return f"{lines[0]} {lines[1].strip()}"
    named = [m for m in USER_LINE.findall(text) if not from_library(m[0])]
    where = f" ({Path(named[-1][0]).name}:{named[-1][1]}: {named[-1][2]})" if named and len(lines) > 1 else ""
    return f"{lines[0]}{where}" if lines else "no message"
