"""What is printed and written of an evaluation: a table, JSON, and the report in two files."""

from __future__ import annotations

from pathlib import Path

from detkit.evaluate.report.table import METRIC_NAMES, figure, format_table, metric_names, to_json
from detkit.utils.outputs import Ledger, check_can_write, refuse_foreign, write_text
from detkit.utils.types import Tree

__all__ = [
    "METRIC_NAMES", "check_report_folder", "figure", "format_table", "metric_names", "to_json", "write_report",
]  # fmt: skip

HTML, MARKDOWN = "report.html", "report.md"


def check_report_folder(option: str, folder: str | Path) -> None:
    """Raises ValueError or OSError, before anything is computed, if no report can be written into a folder."""
    check_can_write(option, folder)
    refuse_foreign(option, folder, (HTML, MARKDOWN))


def write_report(found: Tree, folder: str | Path) -> list[Path]:
    """Writes report.html and report.md; returns their paths. found: see `detkit/evaluate/report/findings.py`."""
    from detkit.evaluate.report.html import to_html
    from detkit.evaluate.report.markdown import to_markdown

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(folder)
    for name, write in ((HTML, to_html), (MARKDOWN, to_markdown)):
        write_text(folder / name, write(found), ledger=ledger)
    return [folder / HTML, folder / MARKDOWN]
