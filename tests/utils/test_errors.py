"""What a user reads of an error, and the exit code that goes with it."""

from __future__ import annotations

import errno
import os

import pytest

from detkit.utils.errors import (
    error_lines,
    exit_code,
    explain_os_error,
    explain_os_errors,
    find_disk_full,
    is_out_of_memory,
    prefix_error,
)
from tests.refusals import Refuses


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(errno.ENOSPC, 5, "make room"), (errno.EDQUOT, 5, "quota"), (errno.EFBIG, 5, "ulimit -f"),
     (errno.EACCES, 2, "change who may write there"), (errno.EROFS, 2, "choose another place"),
     (errno.EMFILE, 2, "ulimit -n"), (errno.ENAMETOOLONG, 2, "shorter name")],
)  # fmt: skip
def test_an_error_of_the_system_has_path_reason_and_way_out(number: int, code: int, words: str) -> None:
    error = OSError(number, os.strerror(number), "some/file\x1b[2J")
    (line,) = error_lines(error)
    assert line.startswith(rf"some/file\x1b[2J: {os.strerror(number)}; ")
    assert words in line
    assert exit_code(error) == code
    again = explain_os_error(error, "--output")
    assert (type(again), again.errno, str(again)) == (type(error), number, f"--output: {line}")


def test_allocations_that_failed_are_known() -> None:
    for text in ("[enforce fail] DefaultCPUAllocator: can't allocate memory", "CUDA out of memory. Tried to"):
        assert is_out_of_memory(RuntimeError(text))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert error_lines(MemoryError()) == ["not enough memory: take fewer or smaller images at a time (MemoryError)"]


def test_an_error_is_explained_once_and_keeps_its_type_and_number() -> None:
    inner = PermissionError(errno.EACCES, "no", "a.txt")
    with pytest.raises(PermissionError) as caught, explain_os_errors("--output", "b"), explain_os_errors("--json", "c"):
        raise inner
    assert str(caught.value).startswith("--json: a.txt: ")
    prefixed = prefix_error(caught.value, "a.yaml:3")
    assert (str(prefixed), prefixed.errno) == (f"a.yaml:3: {caught.value}", errno.EACCES)


def test_an_error_in_no_words_of_the_system_passes_as_it_is(refuses: Refuses) -> None:
    with refuses(OSError) as caught, explain_os_errors("--output", "b"):
        raise OSError("broken")
    assert caught.value.__cause__ is None


def test_a_full_disk_is_found_behind_other_errors_and_in_a_circle_of_causes() -> None:
    full, outer = OSError(errno.ENOSPC, "full"), RuntimeError("write failed")
    outer.__cause__ = full
    assert find_disk_full(outer) is full
    circle = ValueError("its own cause")
    circle.__cause__ = circle
    assert find_disk_full(circle) is None
