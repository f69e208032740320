"""Every bad input of `hostile.py` gets an error in detkit's own words, or a repair that is counted."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion

from detkit.data.datasets.auto import find_data
from detkit.data.datasets.base import DetectionDataset
from detkit.registry import DATASETS
from tests.data.hostile import CASES, Case, check_words
from tests.refusals import HOLDS_WORDS, steady

LONGEST = 20
"""Seconds of computing after which a case counts as one that hangs; fifteen times that for one that only waits."""


@contextmanager
def no_hang() -> Iterator[None]:
    """Raises TimeoutError in a block that does not end."""

    def stop(*_: object) -> None:
        raise TimeoutError("the reader hangs")

    before = [signal.signal(kind, stop) for kind in (signal.SIGALRM, signal.SIGPROF)]
    signal.alarm(15 * LONGEST)
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        for kind, handler in zip((signal.SIGALRM, signal.SIGPROF), before, strict=True):
            signal.signal(kind, handler)


def outcome(case: Case, folder: Path) -> str:
    """What a user sees: an error, or counts, problems and boxes; then what each image that can't be used says."""
    try:
        node = case.write(folder)
        nodes = [node] if node is not None else list(find_data(folder).splits.values())
        return "\n".join(describe(DATASETS.build(node)) for node in nodes)
    except Exception as error:
        check_words(error)
        return f"refused: {error}"


def describe(data: DetectionDataset) -> str:
    lines = [f"read: {data.counts()}", *data.problems.lines()]
    for i in range(len(data)):
        annotation = data.records.annotation(i)
        lines.append(
            f"  {data.records.file_name(i)}: {annotation.labels.tolist()} {annotation.boxes.round(3).tolist()}"
        )
        try:
            data.checked_image(i)
        except Exception as error:
            check_words(error)
            lines.append(f"  image refused: {error}")
    return "\n".join(lines)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_bad_input_is_refused_or_repaired_in_words(case: Case, tmp_path: Path, snapshot: SnapshotAssertion) -> None:
    with no_hang():
        text = steady(outcome(case, tmp_path / "set"))
    assert not list(tmp_path.rglob("hacked"))
    assert not Path("hacked").exists()
    if HOLDS_WORDS:
        assert text == snapshot


def test_the_corpus_is_large_and_its_names_differ() -> None:
    assert len(CASES) >= 150
    assert len({case.name for case in CASES}) == len(CASES)
