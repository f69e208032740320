"""Every check has been seen to fail: a planted fault is caught by the check that is meant for it, and by it alone."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from detkit.anchors.grid import OctaveAnchors
from detkit.testing import CONTRACTS, Contract, ContractError
from detkit.testing.contract import describe
from tests.refusals import Refuses
from tests.testing import (
    planted_data,
    planted_features,
    planted_hooks,
    planted_joint,
    planted_losses,
    planted_matching,
    planted_memory,
    planted_modules,
    planted_terms,
)
from tests.testing.planted import SOUND, Fault

FAULTS: list[Fault] = [
    f
    for table in (
        planted_modules,
        planted_features,
        planted_losses,
        planted_joint,
        planted_terms,
        planted_matching,
        planted_memory,
        planted_data,
        planted_hooks,
    )
    for f in table.FAULTS
]
PAIRS = {(slot, c.name) for slot, contract in CONTRACTS.items() for c in contract.checks}
UNPLANTED: dict[tuple[str, str], str] = {}
"""(slot, check) -> why no fault is planted. Keep it short."""
SLOW = {
    "compiles_to_one_graph",
    "evaluation_remembers_nothing",
    "exports",
    "makes_no_anchors_by_boxes_matrix",
    "training_state_is_in_the_checkpoint",
}
"""Checks that are run for their own faults and for sound parts, not for every fault."""


def cases() -> list[Any]:
    """Every fault; those after the first of a check in a slot are for the slow tests."""
    first = {(f.slot, f.check): f for f in reversed(FAULTS)}
    return [
        pytest.param(f, id=f.part.__name__, marks=() if first[f.slot, f.check] is f else pytest.mark.slow)
        for f in FAULTS
    ]


@pytest.mark.parametrize("fault", cases())
def test_the_check_that_is_meant_complains_and_no_other(fault: Fault) -> None:
    contract = CONTRACTS[fault.slot]
    subject = contract.subject(fault.part)
    checks = [c for c in contract.checks if c.name in fault.fails or c.name not in SLOW]
    results = {}
    for c in checks:
        results[c.name] = contract.run_one(subject, c)
        if c.vital and not results[c.name].ok:
            break
    failed = {name: r.seen for name, r in results.items() if not r.ok}
    assert set(failed) == fault.fails, failed
    result = results[fault.check]
    assert not result.stray, f"the check did not ask about what went wrong: {result.seen}"
    assert re.search(fault.seen, result.seen), result.seen
    assert f"{fault.check} is broken. Seen: {result.seen}. Why it matters: " in describe(contract.slot, result)


@pytest.mark.parametrize("slot", SOUND)
def test_sound_part_passes_all(slot: str) -> None:
    report = CONTRACTS[slot](SOUND[slot], check_all=True)
    assert not report.failed, str(report)


def test_every_check_has_a_fault_or_a_reason() -> None:
    have = {(f.slot, f.check) for f in FAULTS}
    assert have <= PAIRS, "faults of checks that are no more"
    assert PAIRS - have == set(UNPLANTED), "plant a fault in tests/testing/planted_*.py, or say in UNPLANTED why not"


def test_every_check_says_why_it_matters() -> None:
    for contract in CONTRACTS.values():
        for check in contract.checks:
            assert re.fullmatch(r"\S+( \S+){3,}\.", check.why), check


def test_first_fault_raises_with_what_was_seen_and_why(refuses: Refuses) -> None:
    unused = next(f for f in FAULTS if "spare" in f.seen)
    with refuses(ContractError):
        CONTRACTS[unused.slot](unused.part)


def test_a_part_that_can_not_run_is_told_once() -> None:
    broken = next(f for f in FAULTS if f.check == "forward_runs")
    report = CONTRACTS[broken.slot](broken.part, check_all=True)
    assert len(report.failed) == len(report.results) == 1
    assert f"the other {len(CONTRACTS[broken.slot].checks) - 1} checks were not run" in str(report)
    assert "images have 3 channels, or as many as the part's attribute `in_channels` says" in str(report)


def test_an_exception_that_a_check_did_not_ask_about_is_marked() -> None:
    contract = Contract("slots", "slot")
    del CONTRACTS["slots"]  # of this test alone

    @contract.check("a reason.")
    def stumbles(subject: object) -> None:
        raise KeyError("key")

    (result,) = contract(object, check_all=True).results
    assert result.stray
    assert result.seen == "KeyError: 'key'"


class Remembers(OctaveAnchors):
    """Keeps what may be kept: a table by input shape, a counter in a buffer, a picture that nothing is made of."""

    steps: torch.Tensor

    def __init__(self, *, strides: tuple[int, ...]) -> None:
        super().__init__(strides=strides)
        self.table: dict[Any, Any] = {}
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, level_shapes: Any, image_shape: Any, device: Any) -> list[torch.Tensor]:
        if self.training:
            self.steps += 1
        key = (*level_shapes, image_shape)
        if key not in self.table:
            self.table[key] = super().forward(level_shapes, image_shape, device)
        self.picture = self.table[key][0].clone()
        return [b + float(self.steps) / 8 for b in self.table[key]]


@pytest.mark.parametrize("check", ["training_state_is_in_the_checkpoint", "evaluation_remembers_nothing"])
def test_what_a_checkpoint_holds_or_what_changes_nothing_may_be_remembered(check: str) -> None:
    contract = CONTRACTS["anchors"]
    (chosen,) = (c for c in contract.checks if c.name == check)
    result = contract.run_one(contract.subject(Remembers), chosen)
    assert result.ok, result.seen
