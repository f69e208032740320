"""The report as Markdown, for the appendix of a paper."""

from __future__ import annotations

from detkit.compare.cell_folder import FINISHED
from detkit.compare.report.words import (
    about,
    conclusions,
    cost,
    equal_settings,
    method,
    metrics_of,
    number,
    points,
    probability,
    signed,
    state_of,
    unfinished,
    versus_baseline,
)
from detkit.evaluate.errors import KINDS
from detkit.utils.markdown import escape, fenced, table
from detkit.utils.types import Tree


def to_markdown(results: Tree) -> str:
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
        "\n".join(f"- {escape(flag)}" for flag in results["fairness"]["flags"]),
        table(("check", "", "detail"), [(c["name"], state_of(c), c["detail"]) for c in results["fairness"]["checks"]]),
        "## Method",
        "\n\n".join(escape(text) for text in method(results)),
        "## Machine",
        f"```text\n{fenced(about(results))}\n```",
        f"```yaml\n{fenced(results['config'])}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def variants_table(results: Tree) -> str:
    metrics = metrics_of(results)
    rows = []
    for variant in results["variants"]:
        summary, versus = variant["summary"], versus_baseline(variant)
        ap, *others = (summary.get(key, {}) for key in ("ap", *list(metrics)[1:]))
        if versus is None:
            is_baseline = variant["name"] == results["baseline"]
            compared = ("", "", "baseline" if is_baseline else unfinished(variant) or "withheld")
        else:
            interval = f"[{signed(versus['low'])}, {signed(versus['high'])}]"
            compared = (f"{signed(versus['difference'])} {interval}", probability(versus["p_holm"]), versus["verdict"])
        mean = f"{points(ap.get('mean'))} ± {points(ap.get('std'))}"
        seconds, memory = cost(variant, "seconds_per_step"), cost(variant, "peak_memory_mb")
        means = (points(figures.get("mean")) for figures in others)
        rows.append((variant["label"], mean, *compared, *means, number(seconds, "{:.3g}"), number(memory, "{:.0f}")))
    heads = ("variant", "AP", "vs baseline", "p, Holm", "verdict", *list(metrics.values())[1:], "s/step", "MB")
    return table(heads, rows)


def seeds_table(results: Tree) -> str:
    """AP of every run, or its status if it did not finish."""
    rows = [
        (v["label"], *(points(c["metrics"].get("ap")) if c["status"] == FINISHED else c["status"] for c in v["cells"]))
        for v in results["variants"]
    ]
    return table(("variant", *(f"seed {seed}" for seed in results["seeds"])), rows)


def diagnosis(results: Tree) -> list[str]:
    """Heading and table of the diagnosis; empty without any."""
    rows = []
    for variant in results["variants"]:
        if figures := variant["diagnosis"]:
            easy = [(figures["share"][of] or {}).get("easy_background") for of in ("loss", "gradient")]
            means = figures["calibration"]["ece"], figures["box_quality"]["mean"]
            rows.append(
                (
                    variant["label"],
                    *(number(share, "{:.0f} %", factor=100) for share in easy),
                    *(number(mean, "{:.3f}") for mean in means),
                    *(str(round(figures["errors"]["counts"][kind], 1)) for kind in KINDS),
                )
            )
    heads = ("variant", "loss from easy background", "gradient from it", "ECE", "mean IoU", *KINDS)
    return ["## Diagnosis", table(heads, rows)] if rows else []
