"""Errors in words: what the system says with path, reason and way out; full disks, lack of memory, exit codes."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from detkit.utils.console import printable
from detkit.utils.exit_codes import ExitCode

FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
WAYS_OUT = {
    errno.EACCES: "choose another place, or change who may write there",
    errno.EPERM: "choose another place, or change who may write there",
    errno.EROFS: "choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "a part of this path is a file: choose another place",
    errno.EISDIR: "it is a folder: name a file",
    errno.ELOOP: "links lead round in a circle",
    errno.ENOSPC: "make room there, or choose another place",
    errno.EDQUOT: "the quota is used up: make room, or choose another place",
    errno.EFBIG: "files there can't be that large: see `ulimit -f`, or choose another place",
    errno.EMFILE: "too many files are open: raise `ulimit -n`, or take fewer data.loader.num_workers",
    errno.ENOENT: "check the spelling and the folder that it is relative to",
}
ALLOCATION = re.compile(
    r"can't allocate memory|out of memory|bad_alloc|Cannot allocate memory|array is too big|Unable to allocate|"
    r"MemoryError|Maximum allowed dimension exceeded|Storage size calculation overflowed|"
    r"Overflow when unpacking|numel: integer multiplication overflow",
    re.IGNORECASE,
)
"""How Python, numpy, torch and CUDA word a failed allocation."""


@contextlib.contextmanager
def explain_os_errors(option: str, path: str | Path) -> Iterator[None]:
    """Replaces an OSError inside by one of the same type that names option and path, and the way out."""
    try:
        yield
    except OSError as error:
        explained = explain_os_error(error, option, path)
        if explained is error:
            raise
        raise explained from error


def explain_os_error(error: OSError, option: str = "", path: str | Path | None = None) -> OSError:
    """An error of the same type and number that names option, path, reason and way out; itself if it does already."""
    if error.errno is None or getattr(error, "explained", False):
        return error
    name = error.filename if error.filename is not None else path
    shown = printable(os.fsdecode(name)) if isinstance(name, (str, bytes, Path)) else ""
    text = ": ".join(part for part in (option, shown, os.strerror(error.errno)) if part)
    return _reworded(error, f"{text}; {WAYS_OUT[error.errno]}" if error.errno in WAYS_OUT else text)


def prefix_error(error: OSError, prefix: str) -> OSError:
    """The explained error with a prefix such as `file:line`; type and number stay."""
    return _reworded(error, f"{prefix}: {explain_os_error(error)}")


def _reworded(error: OSError, text: str) -> OSError:
    reworded = type(error)(text)
    reworded.errno, reworded.explained = error.errno, True  # type: ignore[attr-defined]
    return reworded


def find_disk_full(error: BaseException | None) -> OSError | None:
    """The first error in a chain of causes that reports a full disk, quota or file."""
    seen: set[int] = set()  # an error may be its own cause: `raise error from error` is Python that somebody writes
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in FULL_DISK:
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, in Python, numpy, torch or CUDA."""
    by_text = isinstance(error, (RuntimeError, ValueError, TypeError)) and ALLOCATION.search(str(error)) is not None
    return isinstance(error, MemoryError) or by_text


def error_lines(error: BaseException) -> list[str]:
    """The lines that a user reads of an error; errors of the system are explained."""
    if errors := getattr(error, "errors", None):
        return [str(line) for line in errors]
    if is_out_of_memory(error) and not isinstance(error, ValueError):
        first = str(error).strip().partition("\n")[0]
        return [f"not enough memory: take fewer or smaller images at a time ({first or type(error).__name__})"]
    return [str(explain_os_error(error) if isinstance(error, OSError) else error)]


def exit_code(error: BaseException) -> int:
    """The exit code of a user's error: its own `exit_code`, 5 for a full disk, else 2."""
    code = getattr(error, "exit_code", None)
    if code is not None:
        return int(code)
    full = isinstance(error, OSError) and find_disk_full(error) is not None
    return ExitCode.DISK_FULL if full else ExitCode.WRONG_INPUT
