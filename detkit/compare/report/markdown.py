"""The report as Markdown, for the appendix of a paper."""

from __future__ import annotations

from collections.abc import Sequence

from detkit.compare.cell_folder import FINISHED, MISSING
from detkit.compare.errors import KINDS
from detkit.compare.report.words import (
    about,
    conclusions,
    cost,
    equal_settings,
    method,
    metrics_of,
    name_of,
    points,
    probability,
    signed,
    state_of,
    unfinished,
    versus_baseline,
)
from detkit.utils.types import Tree


def to_markdown(results: Tree) -> str:
    """The report: verdicts, tables, fairness, method, machine."""
    parts = [
        f"# {escape(results['title'])}",
        "\n".join(f"- {escape(sentence)}" for _, sentence in conclusions(results)),
        "## Variants",
        "AP in points, mean ± standard deviation over seeds; differences are paired, with a 95 % interval.",
        variants_table(results),
        "## Every seed",
        seeds_table(results),
        *diagnosis(results),
        "## Fairness",
        escape(equal_settings(results)),
        "\n".join(f"- {escape(flag)}" for flag in results["fairness"].get("flags", [])),
        table(
            ("check", "", "detail"),
            [(c["name"], state_of(c), c.get("detail") or "") for c in results["fairness"]["checks"]],
        ),
        "## Method",
        "\n\n".join(escape(text) for text in method(results)),
        "## Machine",
        f"```text\n{fenced(about(results))}\n```",
        f"```yaml\n{fenced(results.get('config', ''))}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def variants_table(results: Tree) -> str:
    """The table of variants."""
    metrics = metrics_of(results)
    rows = []
    for variant in results["variants"]:
        summary, versus = variant.get("summary") or {}, versus_baseline(variant)
        ap = summary.get("ap", {})
        if variant["name"] == results["baseline"]:
            difference, p, verdict = "", "", "baseline"
        elif versus is None:
            difference, p, verdict = "", "", unfinished(variant) or "withheld"
        else:
            difference = f"{signed(versus['difference'])} [{signed(versus.get('low'))}, {signed(versus.get('high'))}]"
            p, verdict = probability(versus.get("p_holm")), versus["verdict"]
        seconds, memory = cost(variant, "seconds_per_step"), cost(variant, "peak_memory_mb")
        rows.append(
            (
                name_of(variant),
                f"{points(ap.get('mean'))} ± {points(ap.get('std'))}",
                difference,
                p,
                verdict,
                *(points(summary.get(key, {}).get("mean")) for key in list(metrics)[1:]),
                "n/a" if seconds is None else f"{seconds:.3g}",
                "n/a" if memory is None else f"{memory:.0f}",
            )
        )
    heads = ("variant", "AP", "vs baseline", "p, Holm", "verdict", *list(metrics.values())[1:], "s/step", "MB")
    return table(heads, rows)


def seeds_table(results: Tree) -> str:
    """AP of every run."""
    rows = []
    for variant in results["variants"]:
        cells = {cell["seed"]: cell for cell in variant["cells"]}
        rows.append((name_of(variant), *(ap_or_status(cells.get(seed)) for seed in results["seeds"])))
    return table(("variant", *(f"seed {seed}" for seed in results["seeds"])), rows)


def ap_or_status(cell: Tree | None) -> str:
    """AP of a finished run, else its status."""
    if cell is None:
        return MISSING
    return points(cell["metrics"].get("ap")) if cell["status"] == FINISHED else str(cell["status"])


def diagnosis(results: Tree) -> list[str]:
    """Heading and table of the diagnosis; empty without any."""
    rows = []
    for variant in results["variants"]:
        figures = variant.get("diagnosis")
        if not figures:
            continue
        share, errors = figures.get("share") or {}, (figures.get("errors") or {}).get("counts") or {}
        rows.append(
            (
                name_of(variant),
                *(percent((share.get(quantity) or {}).get("easy_background")) for quantity in ("loss", "gradient")),
                number((figures.get("calibration") or {}).get("ece"), 3),
                number((figures.get("box_quality") or {}).get("mean"), 3),
                *(str(round(errors[kind], 1)) if kind in errors else "n/a" for kind in KINDS),
            )
        )
    if not rows:
        return []
    heads = ("variant", "loss from easy background", "gradient from it", "ECE", "mean IoU", *KINDS)
    return ["## Diagnosis", table(heads, rows)]


def percent(value: float | None) -> str:
    """0.314 -> 31 %"""
    return "n/a" if value is None else f"{100 * value:.0f} %"


def number(value: float | None, digits: int) -> str:
    """0.31416 -> 0.314 with 3 digits"""
    return "n/a" if value is None else f"{value:.{digits}f}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [[escape(cell) for cell in row] for row in (heads, *rows)]
    rule = ["---"] * len(heads)
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def escape(text: object) -> str:
    """Escapes the characters that have a meaning in Markdown."""
    plain = str(text).replace("\n", " ")
    for sign in ("\\", "`", "*", "_", "|", "[", "]", "#"):
        plain = plain.replace(sign, f"\\{sign}")
    return plain.replace("&", "&amp;").replace("<", "&lt;")


def fenced(text: str) -> str:
    """Text that cannot end the fence around it."""
    return text.replace("```", "'''")
