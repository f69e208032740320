"""The report as one page that needs no network: it contains data, style and script."""

from __future__ import annotations

import html
from importlib.resources import files

from detkit.compare.report.words import about, conclusions, equal_settings, method
from detkit.evaluate.errors import KINDS
from detkit.evaluate.report import METRIC_NAMES
from detkit.utils.types import Tree
from detkit.visualize.page import embedded, filled, shared_source


def to_html(results: Tree) -> str:
    """The page. Everything from outside is escaped here, or set as text by the script."""
    sources = files("detkit.compare.report")
    escape = html.escape
    count = len(results["variants"]), len(results["seeds"])
    slots = {
        "title": escape(results["title"]),
        "subtitle": escape(
            f"{count[0]} variants x {count[1]} seeds, {results['iterations']} steps each, "
            f"{results['data']['num_val_images']} validation images, baseline {results['baseline']}"
        ),
        "verdicts": "\n".join(f'<li class="{kind}">{escape(sentence)}</li>' for kind, sentence in conclusions(results)),
        "equal": escape(equal_settings(results)),
        "method": "\n".join(f"<p>{escape(text)}</p>" for text in method(results)),
        "samples": escape(str(results["sample_threshold"])),
        "about": escape(f"{about(results)}\n\n{results['config']}"),
        "footer": escape(f"Written by detkit {results['versions'].get('detkit', '')}."),
        "css": shared_source("report.css"),
        "js": shared_source("charts.js") + (sources / "page.js").read_text(encoding="utf-8"),
        "json": embedded(results),
        "names": embedded({"metrics": METRIC_NAMES, "errors": KINDS}),
    }
    return filled((sources / "page.html").read_text(encoding="utf-8"), slots)
