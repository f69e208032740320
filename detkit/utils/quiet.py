"""Keeps what libraries say of themselves away from what detkit says.

Warnings, graph dumps and progress of torch, timm or TensorFlow are not for the user of a verb: they go to the
run's log, or nowhere. `DETKIT_TRACEBACK=1`, or Python's own `-W` and `PYTHONWARNINGS`, show them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import sysconfig
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

LIBRARIES = tuple({str(Path(sysconfig.get_path(kind)).resolve()) for kind in ("purelib", "platlib", "stdlib")})
PACKAGE = str(Path(__file__).resolve().parents[1])


def shows_everything() -> bool:
    """Whether the user asked to see everything."""
    return bool(os.environ.get("DETKIT_TRACEBACK") or sys.warnoptions)


def silence_libraries() -> None:
    """Sends the warnings of installed packages to the logger `py.warnings`, which no console shows."""
    if shows_everything():
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logger = logging.getLogger("py.warnings")
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    if getattr(warnings.showwarning, "__name__", "") != "_show":
        warnings.showwarning = _show


def _show(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
    line: str | None = None,
) -> None:  # fmt: skip
    """In place of `warnings.showwarning`: a line on stderr for the user's own files, the log for libraries."""
    if file is None and from_library(filename):
        logging.getLogger("py.warnings").warning(
            "%s", warnings.formatwarning(message, category, filename, lineno, line)
        )
    else:
        print(f"{filename}:{lineno}: {category.__name__}: {message}", file=file or sys.stderr)


def from_library(filename: str) -> bool:
    """Whether a file is of an installed package or of Python, and neither detkit's nor the user's."""
    try:
        path = str(Path(filename).resolve())
    except OSError:
        return True
    return filename.startswith("<") or (path.startswith(LIBRARIES) and not path.startswith(PACKAGE + os.sep))


class CapturedOutput:
    """What was written to the console; `text` is there once the capture has ended."""

    text = ""


@contextlib.contextmanager
def capture_output() -> Iterator[CapturedOutput]:
    """Inside, nothing reaches the console, be it Python's or that of a C++ library."""
    output = CapturedOutput()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as file, contextlib.ExitStack() as kept:
        for number in (1, 2):
            kept.enter_context(_moved(number, file.fileno()))
        for redirect in (contextlib.redirect_stdout, contextlib.redirect_stderr):
            kept.enter_context(redirect(file))
        try:
            yield output
        finally:
            kept.close()
            file.flush()
            file.seek(0)
            output.text = file.read()


@contextlib.contextmanager
def _moved(number: int, target: int) -> Iterator[None]:
    """Inside, a file descriptor leads to another; one that is closed stays closed."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    try:
        old = os.dup(number)
    except OSError:
        yield
        return
    try:
        os.dup2(target, number)
        yield
    finally:
        os.dup2(old, number)
        os.close(old)
