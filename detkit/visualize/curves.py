"""Curves of a run, from its metrics.jsonl."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from detkit.utils import outputs
from detkit.utils.console import printable
from detkit.utils.types import Tree
from detkit.visualize.colors import class_color

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_curves(
    train: Sequence[Tree],
    evals: Sequence[Tree],
    path: str | Path,
    *,
    title: str = "",
    ledger: outputs.Ledger | None = None,
) -> Path:
    """Draws loss terms, learning rate and AP over steps as one PNG. ledger: of the folder, if any."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    if not train and not evals:
        raise ValueError(f"{path}: there are neither training nor evaluation lines to draw")
    figure = Figure(figsize=(13, 4), dpi=110, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.08))
    FigureCanvasAgg(figure)
    loss_axes, lr_axes, ap_axes = figure.subplots(1, 3)
    _plot_losses(loss_axes, train)
    _plot_lr(lr_axes, train)
    _plot_ap(ap_axes, evals)
    last = max(line["step"] for line in (*train, *evals))
    for axes in (loss_axes, lr_axes, ap_axes):
        axes.set_xlim(0, last * 1.02)
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(printable(title), fontsize=13, parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box is drawn there; it needs no list
        return outputs.write_png(path, figure.savefig, ledger=ledger)


def _points(lines: Sequence[Tree], key: str) -> list[tuple[int, float]]:
    return [(line["step"], line[key]) for line in lines if line.get(key) is not None]


def _hex(label: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*class_color(label))


def _smooth(values: list[float], span: int) -> list[float]:
    """Exponential mean over about `span` values, corrected for the bias towards zero at the start."""
    keep = 1 - 1 / max(span, 1)
    total = weight = 0.0
    out = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        out.append(total / weight)
    return out


def _plot_losses(axes: Axes, train: Sequence[Tree]) -> None:
    """Draws each term twice: faint as measured, strong as a running mean."""
    from matplotlib.ticker import LogLocator

    axes.set_title("loss", fontsize=11)
    keys = ["train/loss", *sorted({k for line in train for k in line if k.startswith("train/loss/")}, reverse=True)]
    for n, key in enumerate(keys):
        if not (points := _points(train, key)):
            continue
        steps, values = zip(*points, strict=True)
        name = "total" if key == "train/loss" else key.removeprefix("train/loss/").replace("_", " ")
        axes.plot(steps, values, color=_hex(n), alpha=0.25, linewidth=0.8)
        axes.plot(steps, _smooth(list(values), max(1, len(values) // 25)), color=_hex(n), linewidth=1.8, label=name)
    if axes.lines:
        axes.legend(frameon=False)
        if all((np.asarray(line.get_ydata()) > 0).all() for line in axes.lines):
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")  # 0.2 instead of 2 x 10^-1
            axes.yaxis.set_minor_formatter("")


def _plot_lr(axes: Axes, train: Sequence[Tree]) -> None:
    axes.set_title("learning rate", fontsize=11)
    if points := _points(train, "lr"):
        axes.plot(*zip(*points, strict=True), color=_hex(4), linewidth=1.8)
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))


def _plot_ap(axes: Axes, evals: Sequence[Tree]) -> None:
    axes.set_title("average precision on the validation images", fontsize=11)
    axes.set_ylim(0, 1)
    for n, (key, name) in enumerate((("ap", "AP"), ("ap50", "AP50"), ("ap75", "AP75"))):
        if points := _points(evals, f"val/{key}"):
            label = f"{name}, last {points[-1][1]:.3f}"
            axes.plot(*zip(*points, strict=True), color=_hex(n), marker="o", markersize=4, linewidth=1.8, label=label)
    if axes.lines:
        axes.legend(frameon=False, loc="lower right")
    else:
        axes.text(0.5, 0.5, "no evaluation yet", ha="center", va="center", transform=axes.transAxes)
