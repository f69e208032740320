"""Error messages held word for word by snapshots, so that a rewording is one command and a diff.

    def test_a_negative_weight(refuses: Refuses) -> None:
        with refuses(ValueError):
            SigmoidFocalLoss(weight=-1)

The messages are in `__snapshots__` beside the test file. `pytest --snapshot-update` accepts new ones; review the diff.
Some of them quote Python, torch or Pillow, whose words differ between versions: where other versions are
installed, only the kind of the error counts.
"""

from __future__ import annotations

import re
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
import torch
from syrupy.assertion import SnapshotAssertion

import detkit

ROOT = Path(detkit.__file__).parents[1]
HOLDS_WORDS = sys.version_info[:2] == (3, 11) and torch.__version__.partition("+")[0] == "2.11.0"
Kinds: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]
VARIABLE = [
    (rf"(/private)?{re.escape(tempfile.gettempdir())}/pytest-of-[^/]+/pytest-\d+(/popen-gw\d+)?/[^/\s'\"]+", "<tmp>"),
    (rf"\S*/(?=detkit/csrc/)|{re.escape(str(ROOT))}/", ""),
    (rf"[^\s(']*/lib/python[\d.]+/|{re.escape(sysconfig.get_path('stdlib'))}/", "<python>/"),
    (r"(?<=\.py:)\d+", "<line>"),
    (r"0x[0-9a-f]{6,}", "<address>"),
    (r"(detkit/csrc/[\w./]+):\d+", r"\1:<line>"),
    (r"(process|pid\(s\)) \d+", r"\1 <pid>"),
    (r"127\.0\.0\.1:\d+|(?<=has port )\d+", "<port>"),
    (r"on \d+ cores: at most \d+", "on <n> cores: at most <m>"),
    (rf"(?<= on ){re.escape(socket.gethostname())}\b", "<host>"),
    (re.escape(torch.__version__), "<torch version>"),
]


def steady(message: str, hide: str | None = None) -> str:
    """The message without what differs between machines and runs: folders, addresses, processes, versions."""
    for pattern, name in [*VARIABLE, *([(hide, "<...>")] if hide else [])]:
        message = re.sub(pattern, name, message)
    return message


class Refuses:
    """`with refuses(ValueError):` the block must raise it, with the message of the snapshot."""

    def __init__(self, snapshot: SnapshotAssertion) -> None:
        self.snapshot = snapshot

    @contextmanager
    def __call__(self, kinds: Kinds, *, hide: str | None = None) -> Iterator[pytest.ExceptionInfo[BaseException]]:
        """hide: regular expression of what differs between runs, besides what `steady` knows."""
        with pytest.raises(kinds) as info:
            yield info
        if HOLDS_WORDS:
            assert steady(str(info.value), hide) == self.snapshot
