"""The report as Markdown, for the appendix of a paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detkit.compare.report.words import (
    about,
    against,
    conclusions,
    cost,
    method,
    metrics_of,
    name_of,
    points,
    probability,
    signed,
    state_of,
    unfinished,
)


def to_markdown(results: dict[str, Any]) -> str:
    """Verdicts, the tables, fairness, method, machine."""
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
        escape("Equal in every variant: " + ", ".join(results["fairness"].get("equal", [])) + "."),
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


def variants_table(results: dict[str, Any]) -> str:
    """One line a variant."""
    metrics = metrics_of(results)
    rows = []
    for variant in results["variants"]:
        summary, versus = variant.get("summary") or {}, against(variant)
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
    heads = ("variant", "AP", "against baseline", "p, Holm", "verdict", *list(metrics.values())[1:], "s a step", "MB")
    return table(heads, rows)


def seeds_table(results: dict[str, Any]) -> str:
    """AP of every run."""
    rows = []
    for variant in results["variants"]:
        cells = {cell["seed"]: cell for cell in variant["cells"]}
        figures = []
        for seed in results["seeds"]:
            cell = cells.get(seed)
            finished = cell is not None and cell["status"] == "finished"
            figures.append(
                points(cell["metrics"].get("ap")) if cell and finished else (cell or {}).get("status", "missing")
            )
        rows.append((name_of(variant), *figures))
    return table(("variant", *(f"seed {seed}" for seed in results["seeds"])), rows)


def diagnosis(results: dict[str, Any]) -> list[str]:
    """The shares of loss and gradient and the errors, where they were measured."""
    rows = []
    for variant in results["variants"]:
        found = variant.get("diagnosis")
        if not found:
            continue
        share, errors = found.get("share") or {}, (found.get("errors") or {}).get("counts") or {}
        rows.append(
            (
                name_of(variant),
                *(percent((share.get(what) or {}).get("easy_background")) for what in ("loss", "gradient")),
                number((found.get("calibration") or {}).get("ece"), 3),
                number((found.get("box_quality") or {}).get("mean"), 3),
                *(str(round(errors[kind], 1)) if kind in errors else "n/a" for kind in KINDS),
            )
        )
    if not rows:
        return []
    heads = ("variant", "loss from easy background", "gradient from it", "ECE", "mean IoU", *KINDS)
    return ["## Diagnosis", table(heads, rows)]


KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")


def percent(value: float | None) -> str:
    """0.314 -> 31 %"""
    return "n/a" if value is None else f"{100 * value:.0f} %"


def number(value: float | None, digits: int) -> str:
    """With so many digits behind the point."""
    return "n/a" if value is None else f"{value:.{digits}f}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in pipes."""
    lines = [[escape(cell) for cell in row] for row in (heads, *rows)]
    rule = ["---"] * len(heads)
    return "\n".join("| " + " | ".join(line) + " |" for line in (lines[0], rule, *lines[1:]))


def escape(text: Any) -> str:
    """Plain text that stays plain text."""
    plain = str(text).replace("\n", " ")
    for sign in ("\\", "`", "*", "_", "|", "[", "]", "#"):
        plain = plain.replace(sign, f"\\{sign}")
    return plain.replace("&", "&amp;").replace("<", "&lt;")


def fenced(text: str) -> str:
    """Text that can't end the fence around it."""
    return text.replace("```", "'''")
