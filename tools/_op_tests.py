"""The op tests away from the source tree: laid out in an empty folder, run there, counted."""

from __future__ import annotations

import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Outcome:
    """Counts of one run. `reasons` says why tests were skipped; `tail` is the end of what pytest printed."""

    passed: int
    failed: int
    skipped: int
    reasons: dict[str, int]
    tail: str
    code: int

    @property
    def good(self) -> bool:
        """Nothing failed and something was tested."""
        return self.code == 0 and self.failed == 0 and self.passed > 0

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def stage(folder: Path) -> Path:
    """Puts tests/ops and pytest's settings into `folder`; no detkit among them."""
    shutil.copytree(ROOT / "tests" / "ops", folder / "tests" / "ops", ignore=shutil.ignore_patterns("__pycache__"))
    for helper in (ROOT / "tests").glob("*.py"):
        if not helper.name.startswith("test_"):
            shutil.copy2(helper, folder / "tests")
    shutil.copy2(ROOT / "pyproject.toml", folder)
    return folder


def run(python: str, folder: Path, env: dict[str, str], *options: str, prefix: tuple[str, ...] = ()) -> Outcome:
    """Runs tests/ops of a staged folder by `python`. `prefix` is a command put before it."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    command = [*prefix, python, "-m", "pytest", "tests/ops", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = subprocess.run([*command, *options], cwd=folder, env=env, capture_output=True, text=True, errors="replace")
    tail = "\n".join((done.stdout + done.stderr).splitlines()[-60:])
    if not report.exists():
        return Outcome(0, 1, 0, {}, tail, done.returncode or 1)
    counts: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        skipped = case.find("skipped")
        if skipped is not None:
            counts["skipped"] += 1
            reasons[skipped.get("message", "")] += 1
        elif case.find("failure") is not None or case.find("error") is not None:
            counts["failed"] += 1
        else:
            counts["passed"] += 1
    return Outcome(counts["passed"], counts["failed"], counts["skipped"], dict(reasons), tail, done.returncode)
