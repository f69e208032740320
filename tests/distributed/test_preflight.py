"""What ranks say when they are not alike."""

from __future__ import annotations

from typing import Any, cast

from detkit.distributed.coordinator import Coordinator
from detkit.distributed.preflight import compare
from tests.refusals import Refuses


class Heard:
    """A coordinator in which rank 1 has already spoken."""

    hosts = ("here", "there")

    def __init__(self, **said: Any) -> None:
        self.said = said

    def all_gather(self, name: str, value: Any, *wait: Any) -> list[Any]:
        return [value, self.said[name]]


def test_a_rank_with_other_code_is_named_with_its_files(refuses: Refuses) -> None:
    mine, other = {"detkit/a.py": "1", "part.py": "2"}, {"detkit/a.py": "1", "part.py": "3", "new.py": "4"}
    facts = {"code": "aaa", "torch": "2"}
    coordinator = cast(Coordinator, Heard(facts={"code": "bbb", "torch": "2"}, files=other))
    with refuses(ValueError) as caught:
        compare(coordinator, "facts", facts, mine)
    lines = str(caught.value).splitlines()[1:]
    assert lines == [
        "  against rank 0, new.py takes part now and did not before",
        "  against rank 0, part.py has changed",
    ]
    assert compare(cast(Coordinator, Heard(facts=facts)), "facts", facts, mine) == facts
