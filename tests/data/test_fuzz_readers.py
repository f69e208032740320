"""A few broken files of each reader; `fuzz_readers.py` feeds them for minutes."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.fuzz_readers import NUMBERS, READERS, Reader, attempt, prepare


def changes(reader: Reader) -> st.SearchStrategy[list[tuple[float, int, bytes]]]:
    """Places in the file (0 to 1), how many bytes go there, and what comes instead."""
    words = st.sampled_from([word.encode() for word in (*NUMBERS, *reader.words)])
    change = st.tuples(st.floats(0, 1), st.integers(0, 30), words | st.binary(max_size=4))
    return st.lists(change, min_size=1, max_size=4)


def change(content: bytes, steps: list[tuple[float, int, bytes]]) -> bytes:
    for place, length, new in steps:
        start = round(place * len(content))
        content = content[:start] + new + content[start + length :]
    return content


@pytest.mark.parametrize("name", READERS)
def test_a_broken_file_is_read_or_refused_in_words(name: str) -> None:
    reader = READERS[name]
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        node = prepare(reader, folder)
        good = (folder / reader.file).read_bytes()
        assert attempt(reader, folder, node, good)

        @settings(
            max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        @given(changes(reader))
        def run(steps: list[tuple[float, int, bytes]]) -> None:
            attempt(reader, folder, node, change(good, steps))

        run()
