"""The report of a loss bench in four forms: results.json, report.html, report.md, table.tex."""

from __future__ import annotations

from pathlib import Path

from detkit.compare.report.html import to_html
from detkit.compare.report.latex import to_latex
from detkit.compare.report.markdown import to_markdown
from detkit.compare.report.words import finite
from detkit.runs.folder import write_json, write_text
from detkit.utils.types import Tree

JSON, HTML, MARKDOWN, LATEX = "results.json", "report.html", "report.md", "table.tex"
REPORTS = (JSON, HTML, MARKDOWN, LATEX)


def write_reports(results: Tree, folder: Path) -> list[Path]:
    """Writes all four files into `folder`, each atomically; returns their paths.

    results: docs/compare.md describes the keys. Numbers that are not finite become null.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clean = finite(results)
    write_json(folder / JSON, clean)
    for name, write in ((HTML, to_html), (MARKDOWN, to_markdown), (LATEX, to_latex)):
        write_text(folder / name, write(clean))
    return [folder / name for name in REPORTS]
