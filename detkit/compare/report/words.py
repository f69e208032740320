"""Sentences and number formats of the reports. AP is in points, 0 to 100."""

from __future__ import annotations

import math
from collections import Counter
from statistics import median

from detkit.compare.cell_folder import DIVERGED, FINISHED
from detkit.compare.checks import Check
from detkit.compare.statistics import BETTER, NO_DIFFERENCE, WORSE
from detkit.evaluate.report import METRIC_NAMES
from detkit.utils.types import Tree, Value

DIFFERS, NOT_KNOWN = "differs", "not known"
METHOD = (
    "Every variant is trained once per seed. For one seed all variants start from the same weights and see the same "
    "images in the same order under the same augmentation, which is checked by hash (see the fairness table), so "
    "variants are compared in pairs.",
    "AP is COCO's average precision (IoU 0.50 to 0.95, 101 recall points). An interval covers both sources of chance: "
    "the training, by the spread of the paired differences over seeds (Student's t, as there are few), and the "
    "images, by a bootstrap in which both members of a pair get the same images. Its p-value is corrected by Holm's "
    "method over the variants and decides the verdict, on AP; the other metrics describe. The exact permutation test "
    "over seeds is shown beside it; with three seeds it is at least 0.25.",
    "The cumulative loss is figure 4 of the RetinaNet paper (arXiv 1708.02002): anchors sorted by their loss, "
    "foreground and background apart. Easy background is every background anchor whose highest class score is below "
    "{easy}. Error kinds follow TIDE (arXiv 2008.08115). ECE is the expected calibration error: the mean gap between "
    "the score of detections and the share of them that is correct at IoU 0.5.",
    "No difference shown does not mean equal: the smallest difference that this budget would have shown with a "
    "probability of 0.8, estimated from the observed spread, is reported with it.",
)


def finite(value: Value) -> Value:
    """Plain data with null in place of every number that is not finite."""
    if isinstance(value, dict):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def number(value: float | None, form: str, factor: int = 1) -> str:
    """A multiple of the value in the format; n/a where it is unknown."""
    return "n/a" if value is None else form.format(factor * value)


def points(value: float | None) -> str:
    """0.3612 -> 36.1"""
    return number(value, "{:.1f}", factor=100)


def signed(value: float | None) -> str:
    """0.012 -> +1.2"""
    return number(value, "{:+.1f}", factor=100).replace("-", "\u2212")


def probability(value: float | None) -> str:
    """0.00041 -> < 0.001"""
    return "n/a" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def versus_baseline(variant: Tree) -> Tree | None:
    """AP compared with the baseline; None for the baseline itself or where the verdict is withheld."""
    ap: Tree | None = (variant["versus_baseline"] or {}).get("ap")
    return ap


def unfinished(variant: Tree) -> str:
    """`1 diverged, 2 missing`; empty if every run finished."""
    counts = Counter(cell["status"] for cell in variant["cells"] if cell["status"] != FINISHED)
    return ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))


def cost(variant: Tree, key: str) -> float | None:
    """Median over seeds of an entry of "cost"."""
    values = [cell["cost"][key] for cell in variant["cells"] if cell["cost"].get(key) is not None]
    return median(values) if values else None


def metrics_of(results: Tree) -> dict[str, str]:
    """COCO metrics with a value in any variant -> their names."""
    summaries = [entry for variant in results["variants"] for entry in variant["summary"].items()]
    known = {metric for metric, figures in summaries if any(value is not None for value in figures["values"])}
    return {metric: name for metric, name in METRIC_NAMES.items() if metric in known}


def conclusions(results: Tree) -> list[tuple[str, str]]:
    """(kind, sentence) for the top of a report; kind is withheld, better, worse, diverged, even or note."""
    baseline = results["baseline"]
    verdicts = [conclusion(variant, baseline) for variant in results["variants"] if variant["name"] != baseline]
    return [
        *(("withheld", f"No verdict: {reason}") for reason in results["withheld"]),
        *(verdict for verdict in verdicts if verdict is not None),
        *(
            ("note", f"{check['name']} {state_of(check)}: {check['detail']}")
            for check in results["fairness"]["checks"]
            if state_of(check) in (DIFFERS, NOT_KNOWN)
        ),
    ]


def state_of(check: Check) -> str:
    if check["ok"] is None:
        return NOT_KNOWN
    if check["ok"]:
        return "ok"
    return "NOT EQUAL" if check.get("withholds", True) else DIFFERS


def conclusion(variant: Tree, baseline: str) -> tuple[str, str] | None:
    name, versus = variant["label"], versus_baseline(variant)
    if versus is None:
        left = unfinished(variant)
        return (DIVERGED if DIVERGED in left else "withheld", f"{name}: {left}") if left else None
    verdict = versus["verdict"]
    ends, p = f"{signed(versus['low'])} to {signed(versus['high'])}", probability(versus["p_holm"])
    interval = f"95 % interval {ends}, p {p} after Holm"
    if verdict in (BETTER, WORSE):
        return verdict, f"{name} is {verdict} than {baseline}: AP {signed(versus['difference'])} points ({interval})"
    if verdict != NO_DIFFERENCE:
        return DIVERGED, f"{name}: {verdict}"
    smallest = versus["smallest_detectable"]
    could = f"; this budget would have shown {points(smallest)} points" if smallest is not None else ""
    return "even", f"{name}: no difference to {baseline} shown: AP {signed(versus['difference'])} ({interval}){could}"


def method(results: Tree) -> list[str]:
    easy = next((v["diagnosis"]["easy_below"] for v in results["variants"] if v["diagnosis"]), 0.1)
    return [text.format(easy=f"{easy:g}") for text in METHOD]


def equal_settings(results: Tree) -> str:
    return f"Equal in every variant: {', '.join(results['fairness']['equal'])}."


def about(results: Tree) -> str:
    """Machine, versions, data and command, one a line."""
    data = results["data"]
    lines = {
        **{name: results[name] for name in ("command", "created", "code")},
        **{name: ", ".join(f"{k} {v}" for k, v in results[name].items()) for name in ("machine", "versions")},
        "train": data["train"],
        "val": data["val"],
        "data hash": data["hash"],
        "seeds": ", ".join(map(str, results["seeds"])),
        "iterations": results["iterations"],
    }
    return "\n".join(f"{name:10} {text}" for name, text in lines.items())
