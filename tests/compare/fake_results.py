"""Made-up results of a bench in the shape of results.json: for tests of the reports, and nothing else."""

from __future__ import annotations

import base64
import io
from itertools import pairwise
from typing import Any

import numpy as np

STEPS = list(range(20, 401, 20))
EDGES = [round(x, 2) for x in np.linspace(0, 1, 21)]


def results(
    *, names: tuple[str, ...] = ("focal", "bce", "bce_mining", "ghm", "<script>alert(1)</script>")
) -> dict[str, Any]:
    """Five variants by three seeds: the second is worse, the fourth diverged once, the last lacks a run."""
    random = np.random.default_rng(0)
    variants = [variant(random, i, name) for i, name in enumerate(names)]
    return {
        "schema": 1,
        "title": "Class losses on shapes & <b>bold</b> @json@",
        "created": "2026-11-23",
        "baseline": names[0],
        "seeds": [0, 1, 2],
        "complete": False,
        "withheld": [f"{names[-1]}: seed 2 is missing"],
        "machine": {"cpu": "a CPU", "cores": 2},
        "versions": {"detkit": "0.1.0", "torch": "2.11.0"},
        "code": "0123abc",
        "data": {
            "hash": "abc",
            "train": "3000 images",
            "val": "200 images",
            "classes": ["star", "moon"],
            "num_val_images": 200,
        },
        "config": "a: 1\n</script>",
        "command": "detkit compare ...",
        "iterations": 400,
        "fairness": {
            "checks": [
                {"name": "initial weights", "ok": True, "detail": "one hash for each seed"},
                {"name": "images", "ok": False, "detail": "ghm, seed 1"},
            ],
            "differs": [{"key": "losses.classification.type", "values": dict.fromkeys(names, "Loss")}],
            "normalizers": dict.fromkeys(names, "PositiveCount"),
            "equal": ["assigner", "head", "schedule"],
            "flags": ["ghm divides by another normaliser"],
        },
        "variants": variants,
        "samples": [sample(names)],
        "sample_threshold": 0.3,
        "tuning": None,
    }


def variant(random: Any, i: int, name: str) -> dict[str, Any]:
    """One variant, with ap some 30 points."""
    bad = {3: ("diverged", 2), 4: ("missing", 2)}.get(i)
    cells = [cell(random, i, seed, bad[0] if bad and bad[1] == seed else "finished") for seed in range(3)]
    values = [c["metrics"].get("ap") for c in cells]
    good = [v for v in values if v is not None]
    summary = {
        key: {"mean": float(np.mean(good)) + add, "std": float(np.std(good)), "values": values}
        for key, add in {
            "ap": 0.0,
            "ap50": 0.2,
            "ap75": -0.03,
            "ap_small": -0.1,
            "per_class:star": 0.05,
            "per_class:moon": -0.05,
        }.items()
    }
    compared = None
    if 0 < i < 3:
        compared = {
            key: {
                "difference": -0.021 * i,
                "low": -0.031 * i,
                "high": -0.012 * i,
                "p": 0.0004,
                "p_permutation": 0.25,
                "p_holm": 0.0012,
                "verdict": "worse" if i == 1 else "no difference shown",
                "smallest_detectable": 0.013,
                "seeds_differences": [-0.02 * i, -0.025 * i, -0.018 * i],
            }
            for key in summary
        }
    elif i == 3:
        compared = {
            "ap": {
                "difference": None,
                "low": None,
                "high": None,
                "p": None,
                "p_permutation": None,
                "p_holm": None,
                "verdict": "diverged",
                "smallest_detectable": None,
                "seeds_differences": [],
            }
        }
    return {
        "name": name,
        "label": name,
        "config_diff": {},
        "class_loss": "Loss",
        "box_loss": "GIoULoss",
        "normalizer": "PositiveCount",
        "cells": cells,
        "summary": summary,
        "versus_baseline": compared,
        "diagnosis": diagnosis(i) if i != 2 else None,
    }


def cell(random: Any, i: int, seed: int, status: str) -> dict[str, Any]:
    """One run."""
    if status == "missing":
        return {
            "seed": seed,
            "status": status,
            "error": None,
            "metrics": {},
            "per_class": {},
            "curve": {},
            "evals": [],
            "cost": {},
            "step0": None,
        }
    noise = float(random.normal(0, 0.004))
    loss = [float(2 * np.exp(-s / 150) + 0.3 + 0.05 * i + noise) for s in STEPS]
    ap = 0.31 - 0.02 * i + noise
    return {
        "seed": seed,
        "status": status,
        "error": None if status == "finished" else "the loss is not finite at step 41",
        "metrics": {"ap": ap, "ap50": ap + 0.2} if status == "finished" else {},
        "per_class": {},
        "curve": {"step": STEPS, "loss": loss, "loss_classification": loss, "loss_box": [x / 2 for x in loss]},
        "evals": [{"step": s, "ap": ap * s / 400, "ap50": None, "ap75": None} for s in (100, 200, 300, 400)],
        "cost": {"seconds_per_step": 0.11 + 0.01 * i, "peak_memory_mb": 700.0 + i, "train_seconds": 44.0},
        "step0": {"grad_norm_class": 3.1, "grad_norm_box": 1.2, "ratio": 0.39, "foreground_probability": 0.01},
    }


def diagnosis(i: int) -> dict[str, Any]:
    """One diagnosis."""
    x = np.linspace(0, 1, 50)
    cumulative = {
        side: {"fraction": x.tolist(), "loss": (x ** (power + i)).tolist()}
        for side, power in (("foreground", 2), ("background", 20))
    }
    bins = np.exp(-np.arange(20) / 4) / np.exp(-np.arange(20) / 4).sum()
    share = {"foreground": 0.5, "easy_background": 0.1 + 0.08 * i, "hard_background": 0.4 - 0.08 * i}
    return {
        "num_images": 200,
        "num_anchors": 4000000,
        "easy_below": 0.1,
        "cumulative": cumulative,
        "share": {"loss": share, "gradient": share},
        "scores": {"edges": EDGES, "foreground": bins[::-1].tolist(), "background": bins.tolist()},
        "calibration": {
            "ece": 0.05 + 0.01 * i,
            "edges": EDGES,
            "confidence": [(a + b) / 2 for a, b in pairwise(EDGES)],
            "precision": [None] + [min(1.0, 0.1 + b) for b in EDGES[2:]],
            "count": [10] * 20,
        },
        "positives_per_level": [{"level": "p3", "per_image": 20.0}, {"level": "p4", "per_image": 8.0 + i}],
        "errors": {
            "counts": {
                "correct": 500,
                "classification": 30 + i,
                "localisation": 60,
                "both": 9,
                "duplicate": 4,
                "background": 120,
                "missed": 70,
            },
            "dap": {
                "classification": 0.02,
                "localisation": 0.05,
                "both": 0.0,
                "duplicate": 0.001,
                "background": 0.03,
                "missed": 0.06,
            },
        },
        "box_quality": {"edges": EDGES[10:], "fraction": [0.1] * 10, "mean": 0.78},
    }


def sample(names: tuple[str, ...]) -> dict[str, Any]:
    """One image with two boxes for every variant."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (64, 48), (40, 60, 90)).save(file, format="JPEG")
    uri = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    found = [
        {"box": [4, 4, 30, 30], "score": 0.8, "label": "star", "correct": True},
        {"box": [20, 10, 60, 40], "score": 0.4, "label": "moon", "correct": False},
    ]
    return {
        "image_id": 7,
        "width": 64,
        "height": 48,
        "image": uri,
        "truth": [{"box": [4, 4, 30, 30], "label": "star"}],
        "detections": dict.fromkeys(names, found),
    }
