"""No console can end a run, and no name commands it."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from detkit.runs.log import run_log
from detkit.utils.console import GuardedStream, guarded_streams, printable

ROOT = Path(__file__).resolve().parents[2]


def detkit(*words: str, redirect: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, its output redirected by a shell."""
    command = f'"$0" -m detkit "$@" {redirect}'
    return subprocess.run(
        ["bash", "-c", command, sys.executable, *words], capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environ, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8", "utf-8:strict", "latin-1"])
def test_every_encoding_takes_every_text(encoding: str) -> None:
    inner = io.TextIOWrapper(io.BytesIO(), encoding=encoding.partition(":")[0], errors="strict")
    guard = GuardedStream(inner)
    print("32\u00b2 \u732b \udcdf", file=guard)
    guard.flush()
    text = inner.buffer.getvalue().decode(inner.encoding)
    assert text.endswith(r"\xdf" + "\n")
    assert guard.lost is None


def test_control_characters_are_shown_and_not_obeyed() -> None:
    inner = io.StringIO()
    print("a\x1b[2Jb\rc\x07\x9b", file=GuardedStream(inner))
    assert inner.getvalue() == "a\\x1b[2Jb\\x0dc\\x07\\x9b\n"
    print("bar\r\x1b[A", file=GuardedStream(raw := io.StringIO(), raw=True))
    assert raw.getvalue() == "bar\r\x1b[A\n"
    assert printable("a\nb\t\x1b[0m\u202e.png") == r"a\nb\t\x1b[0m\u202e.png"
    assert printable(os.fsdecode(b"\xdf.png")) == r"\xdf.png"


class Broken(io.StringIO):
    """A stream behind which nobody is."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_stream_that_is_gone_is_left_alone() -> None:
    guard = GuardedStream(Broken())
    print("a", file=guard)
    print("b", file=guard, flush=True)
    assert isinstance(guard.lost, BrokenPipeError)
    assert not guard.isatty()
    print("c", file=GuardedStream(None))
    closed = io.StringIO()
    closed.close()
    print("d", file=GuardedStream(closed))


def test_streams_are_put_back() -> None:
    before = sys.stdout
    with guarded_streams() as (out, _):
        assert sys.stdout is out
    assert sys.stdout is before


def test_a_log_takes_every_name_and_every_console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = logging.getLogger("detkit")
    for stream in (Broken(), None, io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")):
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
        with run_log(tmp_path):
            log.info("\u732b %s", os.fsdecode(b"\xdf\x1b[2J"))
            log.warning("32\u00b2")
    lines = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 6
    assert lines[0].endswith("INFO \u732b \\udcdf\\x1b[2J")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device")
def test_the_exit_code_says_whether_somebody_could_read_it() -> None:
    done = detkit("list", "necks", redirect="> /dev/full")
    assert done.returncode == 5
    assert done.stderr == (
        "error: the output can't be written: No space left on device; make room there, or choose another place\n"
    )
    done = detkit("list", "necks", redirect=">&- 2>&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_stream_does_not_give_its_number_to_a_file(tmp_path: Path) -> None:
    script = (
        "import os, detkit.utils.console\n"
        "with detkit.utils.console.guarded_streams():\n"
        f"    file = open({str(tmp_path / 'checkpoint')!r}, 'wb')\n"
        "    assert file.fileno() > 2\n"
        "    os.write(1, b'a library prints')\n"
    )
    done = subprocess.run(["bash", "-c", '"$0" -c "$1" >&- 2>&- <&-', sys.executable, script], cwd=ROOT, check=False)
    assert done.returncode == 0
    assert (tmp_path / "checkpoint").read_bytes() == b""


def test_a_current_folder_that_was_deleted_is_told(tmp_path: Path) -> None:
    command = f'mkdir "{tmp_path}/gone" && cd "{tmp_path}/gone" && rmdir "{tmp_path}/gone" && "$0" -c "$1" list necks'
    script = "import sys; sys.path.insert(0, '%s'); from detkit.cli import main; sys.exit(main())" % ROOT  # noqa: UP031
    done = subprocess.run(["bash", "-c", command, sys.executable, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2, "error: the current folder is not there any more: change to another one\n"
    )  # fmt: skip
