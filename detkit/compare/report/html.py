"""The report as one page that needs no network: data, style and script are inside it."""

from __future__ import annotations

import html
import json
import re
from importlib.resources import files
from typing import Any

from detkit.compare.report.words import about, conclusions, method

SLOT = re.compile(r"@([a-z]+)@")


def to_html(results: dict[str, Any]) -> str:
    """The whole page. Everything that comes from outside is escaped, or set as text by the script."""
    here = files("detkit.compare.report")
    escape = html.escape
    count = len(results["variants"]), len(results["seeds"])
    slots = {
        "title": escape(results["title"]),
        "subtitle": escape(
            f"{count[0]} variants x {count[1]} seeds, {results['iterations']} steps each, "
            f"{results['data']['num_val_images']} validation images, baseline {results['baseline']}"
        ),
        "verdicts": "\n".join(f'<li class="{kind}">{escape(sentence)}</li>' for kind, sentence in conclusions(results)),
        "equal": escape("Equal in every variant: " + ", ".join(results["fairness"].get("equal", [])) + "."),
        "method": "\n".join(f"<p>{escape(text)}</p>" for text in method(results)),
        "samples": "they come out of post-processing above a score of "
        + escape(str(results.get("sample_threshold", 0.3))),
        "about": escape(f"{about(results)}\n\n{results.get('config', '')}"),
        "footer": escape(f"Written by detkit {(results.get('versions') or {}).get('detkit', '')}."),
        "css": (here / "page.css").read_text(encoding="utf-8"),
        "js": "".join((here / name).read_text(encoding="utf-8") for name in ("charts.js", "page.js")),
        "json": embedded(results),
    }
    # One pass, so that a slot's name inside a value stays what it is.
    return SLOT.sub(lambda m: slots.get(m[1], m[0]), (here / "page.html").read_text(encoding="utf-8"))


def embedded(results: dict[str, Any]) -> str:
    """JSON that can stand in a script element: no `<` can end it."""
    text = json.dumps(results, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
