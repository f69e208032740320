"""Text for people: no console, locale or name may end a run, and no name may command the terminal."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

CONTROLS = {c: f"\\x{c:02x}" for c in (*range(32), *range(127, 160)) if c not in (9, 10)}
"""Control characters, tab and line feed left out -> how they are shown."""
SEPARATORS = {9: "\\t", 10: "\\n", **{c: f"\\u{c:04x}" for c in (*range(0x2028, 0x202F), *range(0x2066, 0x206A))}}
"""What breaks a line or turns its direction."""


def printable(name: object) -> str:
    """A name in one line: control characters, line breaks and bytes that are not UTF-8 as escapes."""
    return with_escapes(str(name).translate(CONTROLS | SEPARATORS))


def shorten_list(items: Sequence[object], most: int = 20) -> str:
    """The first few of a list, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(str, items[:most])) + more


def nearest(name: str, known: Sequence[str]) -> str:
    """`; did you mean x?` if something known is near `name`, else the full stop."""
    import difflib

    lower = {k.lower(): k for k in reversed(list(known))}
    close = difflib.get_close_matches(str(name).lower(), list(lower), n=1, cutoff=0.6)
    return f"; did you mean {lower[close[0]]}?" if close else "."


def indented_list(items: Sequence[object], most: int = 20) -> str:
    """The first few of a list, each on an indented line below the text, and how many more there are."""
    more = [f"and {len(items) - most} more"] if len(items) > most else []
    return "".join(f"\n  {item}" for item in (*items[:most], *more))


def with_escapes(text: str, encoding: str = "utf-8") -> str:
    r"""The text, what the encoding lacks as an escape: \xdf for a byte of a file's name that is not UTF-8."""
    try:
        return text.encode(encoding, "strict").decode(encoding)
    except UnicodeError:
        bytes_shown = "".join(f"\\x{ord(c) - 0xDC00:02x}" if "\udc80" <= c <= "\udcff" else c for c in text)
        return bytes_shown.encode(encoding, "backslashreplace").decode(encoding)


class GuardedStream(io.TextIOBase):
    """A stream in front of another that takes every text, and goes silent when the other one fails.

    What the stream's encoding lacks, and control characters, become escapes. lost: the error after which nothing is
    written any more: the reader of a pipe has gone, the disk behind it is full, it is closed. raw: control
    characters pass, as a progress bar needs them.
    """

    def __init__(self, inner: Any, *, raw: bool = False) -> None:
        self.inner, self.raw = inner, raw
        self.lost: Exception | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __eq__(self, other: object) -> bool:
        """Guards of one stream are equal: tqdm then knows that a log line and its bar share a terminal."""
        return isinstance(other, GuardedStream) and other.inner is self.inner

    def __hash__(self) -> int:
        return id(self.inner)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self.inner, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        plain = text if self.raw else text.replace("\r\n", "\n").translate(CONTROLS)
        self._try(lambda: self.inner.write(with_escapes(plain, self.encoding)))
        return len(text)

    def flush(self) -> None:
        self._try(lambda: self.inner.flush())

    def isatty(self) -> bool:
        """Whether it is a terminal that can still be written to."""
        with contextlib.suppress(Exception):
            return self.lost is None and bool(self.inner.isatty())
        return False

    def fileno(self) -> int:
        return int(self.inner.fileno())

    def close(self) -> None:
        """Leaves the other stream open."""

    def _try(self, work: Callable[[], object]) -> None:
        if self.lost is not None or self.inner is None:
            return
        try:
            work()
        except (OSError, ValueError, AttributeError, LookupError) as error:
            self.lost = error
            self._discard()

    def _discard(self) -> None:
        """Redirects what Python still buffers to the null device, or its last flush would raise another error."""
        with contextlib.suppress(Exception):
            null = os.open(os.devnull, os.O_WRONLY)
            try:
                os.dup2(null, self.inner.fileno())
            finally:
                os.close(null)


@contextlib.contextmanager
def guarded_streams() -> Iterator[tuple[GuardedStream, GuardedStream]]:
    """In it, `sys.stdout` and `sys.stderr` are guards of what they were."""
    open_standard_files()
    before = sys.stdout, sys.stderr
    guards = guard_stream(before[0]), guard_stream(before[1])
    sys.stdout, sys.stderr = guards
    try:
        yield guards
    finally:
        for guard in guards:
            guard.flush()
        sys.stdout, sys.stderr = before


def guard_stream(stream: Any) -> GuardedStream:
    """A stream behind a guard; itself if it is one."""
    return stream if isinstance(stream, GuardedStream) else GuardedStream(stream)


def bar_stream() -> GuardedStream:
    """Where a progress bar is drawn: stderr, control characters and all."""
    stream = sys.stderr
    return GuardedStream(stream.inner if isinstance(stream, GuardedStream) else stream, raw=True)


def open_standard_files() -> None:
    """Puts the null device where a standard stream is closed: else the next file that is opened gets its number,
    and with it what a library prints."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)


def print_line(text: str, *, error: bool = False) -> None:
    """A line on stdout or stderr, whatever they are."""
    stream = guard_stream(sys.stderr if error else sys.stdout)
    stream.write(text + "\n")
    stream.flush()


def plural(number: int, one: str, many: str | None = None) -> str:
    """`1 image`, `2 images`; many: a plural that is not formed by an s."""
    return f"{number} {one if number == 1 else many or one + 's'}"
