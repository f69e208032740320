"""Checks that a part remembers nothing that its state dict does not hold.

A run that resumes has the weights and buffers of the checkpoint and nothing else: a counter, a cached tensor, a list
that grows or a generator of a part's own begins again. So a part is called many times, its state is saved on the way
and loaded into new parts, and these must go the way of the first to the last bit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from detkit.testing.contract import Broken, Contract, Nest, Subject, TestedPart, expect, must_not_raise, seeded
from detkit.testing.hidden import changed_names, forget_cached, held_values, set_to, snapshot
from detkit.testing.modules import COPY_CHECK, expect_same, same_entry, saved_state, tensors
from detkit.utils.types import Tree

Call = Callable[[Subject, TestedPart, int], Nest]
"""(subject, part, k) -> nest of tensors: what the k-th call gives, a function of k, of the part's mode and its
state. In training mode it is a complete step, with gradients and what comes at the end of a step."""
OTHER_SEED = 99
COUNTERS = 16
"""Number of held values that are tried as counters."""
ROUND = (10, 100, 1_000, 10_000, 100_000, 1_000_000, 2**20 * 5**9, 5_342_931_457_063_200)
"""Counts at which something may happen. The last but one is a multiple of the powers of 2 and of 10, the last of
every number up to 40."""


def add_memory_checks(
    contract: Contract, call: Call, *, calls: int = 24, assemble: Callable[[TestedPart], object] = lambda part: None
) -> None:
    """Adds that a part can be copied, and that training and evaluating leave nothing outside the state dict.

    calls: in a row; a part that does something every n-th call shows it within them. assemble: what the assembly asks
    of a new part before a state is loaded.
    """
    contract.include(COPY_CHECK)
    stops = (calls // 3, calls // 2 + 1)

    @contract.check("a checkpoint holds buffers and weights only: a resumed run would be another run.")
    def training_state_is_in_the_checkpoint(s: Subject) -> None:
        assemble(s.part)
        saved, given, before = {}, [], snapshot(s.part)
        for k in range(calls):
            if k in stops:
                saved[k] = saved_state(s.part)
            given.append(_called(s, s.part, call, k))
        changed = _attributes(changed_names(before, snapshot(s.part)))
        for stop, state in saved.items():
            other = _loaded(s, state, assemble)
            for k in range(stop, calls):
                _same(_called(s, other, call, k), given[k], f"training call {k}, resumed after {stop} calls", changed)
        rest = {k: given[k] for k in range(stops[0], calls)}
        expect_no_counter(lambda: _loaded(s, saved[stops[0]], assemble), lambda p, k: _called(s, p, call, k), rest)

    @contract.check("a detection would depend on the images before it, and a run on how often it is evaluated.")
    def evaluation_remembers_nothing(s: Subject) -> None:
        assemble(s.part)
        twin = _loaded(s, saved_state(s.part), assemble)
        for k in range(2):
            _called(s, s.part, call, k)
        state, before = saved_state(s.part), snapshot(s.part)
        order = range(100, 100 + max(calls // 3, 3))
        first = {k: _called(s, _in_mode(s.part, False), call, k) for k in order}
        changed = _attributes(changed_names(before, snapshot(s.part)))
        for part, what in (
            (s.part, "again, after others"),
            (_loaded(s, state, assemble), "by a part with the same state"),
        ):
            for k in reversed(order):
                _same(_called(s, _in_mode(part, False), call, k), first[k], f"evaluation call {k} {what}", changed)
        entries = _changed(state, saved_state(s.part))
        expect(not entries, f"evaluating changes {', '.join(entries[:4])} in the state dict")
        for k in range(4):
            given = _called(s, twin, call, k)
            if k >= 2:
                _same(
                    _called(s, _in_mode(s.part, True), call, k), given, f"training call {k} after evaluating", changed
                )


def _called(s: Subject, part: TestedPart, call: Call, k: int) -> list[Tensor]:
    """What a call gives; a NaN, which differs from itself and is another check's affair, becomes 0."""
    with seeded(k):
        return [torch.nan_to_num(t) for t in tensors(call(s, part, k))]


def _same(a: Nest, b: Nest, what: str, changed: Iterable[str]) -> None:
    """`expect_same` to the bit; names the attributes that changed between."""
    try:
        expect_same(a, b, what)
    except Broken as error:
        names = ", ".join(list(changed)[:4])
        raise Broken(f"{error}" + (f"; outside the state dict {names} changed" if names else "")) from None


def _attributes(names: Iterable[str]) -> list[str]:
    """The attributes that contain held values, each once."""
    return list(dict.fromkeys(name.partition("[")[0] for name in names))


def _in_mode(part: TestedPart, training: bool) -> TestedPart:
    return part.train(training) if isinstance(part, nn.Module) else part


def _loaded(s: Subject, state: Tree, assemble: Callable[[TestedPart], object]) -> TestedPart:
    """A new part in training mode with a saved state."""
    with seeded(OTHER_SEED):
        other = s.build()
    forget_cached(other)
    assemble(other)
    if isinstance(other, nn.Module):
        with must_not_raise("loading the saved state into a new part"):
            other.load_state_dict(copy.deepcopy(state))
    return _in_mode(other, True)


def _changed(before: Tree, after: Tree) -> list[str]:
    """Entries of a state dict that differ, those of a part's own `get_extra_state` included."""
    return [name for name, value in after.items() if not same_entry(value, before[name])]


def expect_no_memory(
    new: Callable[[], TestedPart], call: Callable[[TestedPart, int], Nest], order: range, what: str
) -> None:
    """Raises `Broken` unless call k gives the same whichever calls come before it."""
    part = new()
    first = {k: call(part, k) for k in order}
    for other, when in ((part, "again, after all others"), (new(), "by a new part, in another order")):
        for k in reversed(order):
            _same(call(other, k), first[k], f"{what} {k} {when}", ())
    expect_no_counter(new, call, first)


def expect_no_counter(
    new: Callable[[], TestedPart], call: Callable[[TestedPart, int], Nest], given: Mapping[int, Nest]
) -> None:
    """Sets every whole number that moves with the calls near round ones: something may happen at the 1000th only.

    new: makes a part that gives `given` (call -> tensors). A number that the part saves by `get_extra_state` is kept.
    """
    part, (first, *calls) = new(), list(given)[:3]
    call(part, first)
    before = snapshot(part)
    for k in calls:
        call(part, k)
    counters = set(changed_names(before, snapshot(part))[:COUNTERS]) & before.keys()
    for name in counters:
        for count in ROUND:
            other = new()
            call(other, first)
            held = next((p for p in held_values(other) if p.name == name), None)
            if held is None or held.number is None or not held.can_be_set:
                break
            state = saved_state(other)
            with set_to(held, count - 1):
                if _changed(state, saved_state(other)):
                    break
                for k in calls:
                    _same(call(other, k), given[k], f"call {k}, {held.top} being {count - 1}", ())
