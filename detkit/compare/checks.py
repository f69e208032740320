"""Rows of the fairness table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypedDict, TypeVar

from detkit.utils.console import shorten_list

if TYPE_CHECKING:
    from typing_extensions import NotRequired

K = TypeVar("K")
V = TypeVar("V")

MOST_NAMED = 6


class Check(TypedDict):
    """One row: ok is None where the answer is not known; withholds: a failure withholds the verdicts (default)."""

    name: str
    ok: bool | None
    detail: str
    withholds: NotRequired[bool]


def check(name: str, wrong: Sequence[str], fine: str) -> Check:
    """A check that passes where nothing is wrong; `fine` says then what was found."""
    return {"name": name, "ok": not wrong, "detail": "; ".join(wrong) or fine}


def listed(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    return shorten_list(list(names), MOST_NAMED)


def grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    """Key -> its values, each once, in their order."""
    groups: dict[K, dict[V, None]] = {}
    for key, value in pairs:
        groups.setdefault(key, {})[value] = None
    return {key: list(values) for key, values in groups.items()}
