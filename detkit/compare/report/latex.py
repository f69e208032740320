"""The table of variants for a paper (needs the package booktabs)."""

from __future__ import annotations

from detkit.compare.report.words import conclusions, metrics_of, points, probability, unfinished, versus_baseline
from detkit.compare.statistics import BETTER, WORSE
from detkit.utils.types import Tree

SPECIAL = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
})  # fmt: skip


def to_latex(results: Tree) -> str:
    """A tabular in a table float; differences with a verdict are bold."""
    metrics = metrics_of(results)
    heads = ["Variant", *metrics.values(), r"$\Delta$AP", r"95\,\% interval", "$p$"]
    caption = (
        f"{results['title']}: mean and standard deviation over {len(results['seeds'])} seeds; paired differences to "
        f"{results['baseline']} with 95 % intervals (Student's t over seeds, bootstrap over images); p after Holm."
    )
    lines = [
        r"% needs \usepackage{booktabs}",
        *(f"% {' '.join(sentence.split())}" for kind, sentence in conclusions(results) if kind in ("note", "withheld")),
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escape(caption)}}}",
        r"  \begin{tabular}{l" + "r" * (len(heads) - 1) + "}",
        r"    \toprule",
        "    " + " & ".join(heads) + r" \\",
        r"    \midrule",
        *(f"    {row(variant, results['baseline'], list(metrics))}" for variant in results["variants"]),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def row(variant: Tree, baseline: str, metrics: list[str]) -> str:
    versus, cells = versus_baseline(variant), [escape(variant["label"])]
    for metric in metrics:
        figures = variant["summary"].get(metric, {})
        deviation = figures.get("std")
        spread = rf" {{\small $\pm$ {points(deviation)}}}" if metric == "ap" and deviation is not None else ""
        cells.append(points(figures.get("mean")) + spread)
    if versus is None or versus["difference"] is None:
        state = "" if variant["name"] == baseline else escape(unfinished(variant) or "withheld")
        return " & ".join([*cells, state, "", ""]) + r" \\"
    difference = f"${100 * versus['difference']:+.1f}$"
    if versus["verdict"] in (BETTER, WORSE):
        difference = rf"\textbf{{{difference}}}"
    interval = "" if versus["low"] is None else f"$[{100 * versus['low']:+.1f}, {100 * versus['high']:+.1f}]$"
    p = probability(versus["p_holm"]).replace("<", "$<$")
    return " & ".join([*cells, difference, interval, p]) + r" \\"


def escape(text: str) -> str:
    return text.translate(SPECIAL)
