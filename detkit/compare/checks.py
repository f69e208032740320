"""Rows of the fairness table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypedDict

from detkit.utils.console import shorten_list

MOST_NAMED = 6


class _Required(TypedDict):
    name: str
    ok: bool | None
    detail: str


class Check(_Required, total=False):
    """One row: ok is None where the answer is not known; withholds: a failure withholds the verdicts (default)."""

    withholds: bool


def check(name: str, wrong: Sequence[str], fine: str) -> Check:
    """A check that passes where nothing is wrong; `fine` says then what was found."""
    return {"name": name, "ok": not wrong, "detail": "; ".join(wrong) or fine}


def listed(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    return shorten_list(list(names), MOST_NAMED)
