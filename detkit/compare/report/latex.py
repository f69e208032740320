"""The table of variants for a paper (needs the package booktabs)."""

from __future__ import annotations

from detkit.compare.report.words import (
    conclusions,
    metrics_of,
    name_of,
    points,
    probability,
    unfinished,
    versus_baseline,
)
from detkit.compare.statistics import BETTER, WORSE
from detkit.utils.types import Tree

SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def to_latex(results: Tree) -> str:
    """A tabular in a table float; differences with a verdict are bold."""
    metrics = metrics_of(results)
    heads = ["Variant", *metrics.values(), r"$\Delta$AP", r"95\,\% interval", "$p$"]
    lines = [
        r"% needs \usepackage{booktabs}",
        *(f"% {' '.join(sentence.split())}" for kind, sentence in conclusions(results) if kind in ("note", "withheld")),
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escape(caption(results))}}}",
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


def caption(results: Tree) -> str:
    """Caption of the table."""
    return (
        f"{results['title']}: mean and standard deviation over {len(results['seeds'])} seeds; paired differences to "
        f"{results['baseline']} with 95 % intervals (Student's t over seeds, bootstrap over images); p after Holm."
    )


def row(variant: Tree, baseline: str, metrics: list[str]) -> str:
    """One line of the table."""
    summary, versus = variant.get("summary") or {}, versus_baseline(variant)
    cells = [escape(name_of(variant))]
    for metric in metrics:
        figures = summary.get(metric, {})
        deviation = figures.get("std")
        spread = rf" {{\small $\pm$ {points(deviation)}}}" if metric == "ap" and deviation is not None else ""
        cells.append(points(figures.get("mean")) + spread)
    if versus is None or versus.get("difference") is None:
        state = "" if variant["name"] == baseline else escape(unfinished(variant) or "withheld")
        return " & ".join([*cells, state, "", ""]) + r" \\"
    difference = f"${100 * versus['difference']:+.1f}$"
    if versus["verdict"] in (BETTER, WORSE):
        difference = rf"\textbf{{{difference}}}"
    ends = [versus.get(key) for key in ("low", "high")]
    interval = "" if None in ends else "$[" + ", ".join(f"{100 * end:+.1f}" for end in ends if end is not None) + "]$"
    p = probability(versus.get("p_holm")).replace("<", "$<$")
    return " & ".join([*cells, difference, interval, p]) + r" \\"


def escape(text: str) -> str:
    """Escapes the characters that have a meaning in LaTeX."""
    return "".join(SPECIAL.get(sign, sign) for sign in str(text))
