"""Sentences and number formats of the report. AP is in points, 0 to 100."""

from __future__ import annotations

from detkit.evaluate.report.pictures import CONFIDENT, WORST
from detkit.evaluate.report.slices import RESAMPLES
from detkit.utils.console import plural, shorten_list
from detkit.utils.types import Tree

METHOD = (
    "AP is COCO's average precision, as detkit eval prints it: the mean over IoU 0.50 to 0.95 and over the classes "
    "that have objects, of the precision at 101 recalls. An interval is that of a bootstrap over the images: the same "
    "detections on images drawn with replacement, percentiles 2.5 and 97.5. It covers which images were measured, and "
    "not what another training of the same detector would give.",
    "Everything but AP is at an IoU of 0.5: a detection is right if it overlaps an object of its class that much and "
    "no better-scoring one has the object. Detections on ignore regions (crowd, difficult) count neither way.",
    "F1 is the harmonic mean of precision and recall. The best threshold of a class has its highest F1 on these very "
    "images, so it flatters a little; a class in which nothing is right gets the best threshold for all. Confusion "
    "matrix, counts and pictures take the detections whose score reaches the threshold of their class.",
    "In the confusion matrix correct detections take their objects first; then a detection of another class takes the "
    "object that it overlaps most, at an IoU of at least 0.5, if none has it. The rest is confused with background.",
    "Error kinds follow TIDE (arXiv 2008.08115): what AP50 would gain if that kind alone were fixed. The gains do not "
    "add up. They are counted among as many best-scoring detections of a class as it has objects.",
    "Calibration: detections in 20 bins of score; in each, the mean score against the precision, the share that is "
    "right. D-ECE, the detection expected calibration error, is the mean of the gaps between the two, weighted by the "
    "detections of the bins: sum over bins of n_bin / n * |precision - mean score| (arXiv 2004.13546, with the score "
    "as its only dimension; of classifiers it is the expected calibration error, ECE, of arXiv 1706.04599).",
    f"A slice has the images of one value of a column, numbers of more than six values in four groups at their "
    f"quartiles. Its AP counts the objects and detections of those images alone; its interval has {RESAMPLES} "
    "resamples.",
)
ERROR_WORDS = {
    "classification": "wrong class",
    "localisation": "box does not fit",
    "both": "wrong class and box",
    "duplicate": "second detection of an object",
    "background": "no object there",
    "missed": "object missed",
}
"""Kind of error -> what it means."""


def points(value: float | None) -> str:
    """0.3612 -> 36.1"""
    return "n/a" if value is None else f"{100 * value:.1f}"


def fraction(value: float | None, digits: int = 2) -> str:
    return "n/a" if value is None else f"{value:.{digits}f}"


def spread(row: Tree) -> str:
    """`34.0 to 38.2`, the interval of a row's AP."""
    return "" if row["low"] is None else f"{points(row['low'])} to {points(row['high'])}"


def subtitle(found: Tree) -> str:
    data = found["data"]
    counts = [(data["images"], "image"), (data["objects"], "object"), (data["detections"], "detection")]
    ignored = f", {plural(data['ignored'], 'ignore region')}" if data["ignored"] else ""
    return f"{data['name']}: " + ", ".join(plural(*count) for count in counts) + ignored


def conclusions(found: Tree) -> list[str]:
    """Sentences for the top of a report."""
    everything, *classes = found["rows"]
    data, metrics = found["data"], everything["metrics"]
    if metrics["ap"] is None:
        return ["There are no objects in these images, so there is nothing to measure against."]
    interval = f" (95 % interval over images {spread(everything)})" if spread(everything) else ""
    ap50, ap75 = points(metrics["ap50"]), points(metrics["ap75"])
    lines = [f"AP {points(metrics['ap'])}{interval}, AP50 {ap50}, AP75 {ap75}."]
    if not data["detections"]:
        return [*lines, "The detector found nothing: lower postprocess.score_threshold, or train it."]
    known = sorted((row["metrics"]["ap"], row["name"]) for row in classes if row["metrics"]["ap"] is not None)
    if len(known) > 1:
        (low, worst), (high, best) = known[0], known[-1]
        lines.append(f"Best class: {best} with AP {points(high)}; weakest: {worst} with AP {points(low)}.")
    kind, gain = max(found["errors"]["dap"].items(), key=lambda item: item[1])
    if gain > 0:
        lines.append(
            f"The costliest kind of error is {kind} ({ERROR_WORDS[kind]}): without it AP50 would be {points(gain)} "
            "points higher."
        )
    if best := everything["best"]:
        lines.append(
            f"The best threshold for all classes together is a score of {fraction(best['threshold'])}: mean precision "
            f"{fraction(best['precision'])}, mean recall {fraction(best['recall'])}, mean F1 {fraction(best['f1'])}."
        )
    gap, error = found["calibration"]["mean_gap"], found["calibration"]["ece"]
    if gap is not None:
        more = "higher" if gap > 0 else "lower"
        lines.append(
            f"D-ECE {fraction(error, 3)}: scores are {fraction(abs(gap), 3)} {more} on average than the share of "
            "detections that is right."
        )
    if absent := [row["name"] for row in classes if not row["objects"]["all"]]:
        lines.append(f"No objects in these images: {shorten_list(absent, 10)}.")
    return lines


def picture_note(found: Tree) -> str:
    """What the pictures are of, and which images could not be read."""
    unread = list(dict.fromkeys(found["unread"]))
    lost = f" Could not be read: {shorten_list(unread, 10)}." if unread else ""
    return f"At most {WORST} images with mistakes, and {CONFIDENT} confident mistakes.{lost}"
