"""detkit: a toolkit for dense object detection.

    import detkit

    run = detkit.train("quickstart", output="runs/first")
    for detections in run.predictor()(["a.jpg"]):
        print(detections.names, detections.boxes)

`import detkit` loads neither torch nor any room: a name is imported when it is first used. docs/python.md shows them
all.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from detkit.version import __version__ as __version__

if TYPE_CHECKING:
    from detkit import datasets as datasets
    from detkit.api import build as build
    from detkit.api import evaluate as evaluate
    from detkit.api import load as load
    from detkit.api import train as train
    from detkit.config import Config as Config
    from detkit.config.explain import explain as explain
    from detkit.config.explain import list_parts as list_parts
    from detkit.detectors.dense import DenseDetector as DenseDetector
    from detkit.evaluate.coco import CocoResult as CocoResult
    from detkit.predict.detections import Detections as Detections
    from detkit.predict.predictor import Predictor as Predictor
    from detkit.predict.views import Views as Views
    from detkit.runs.run import Run as Run

NAMES = {
    "build": "detkit.api:build",
    "train": "detkit.train",
    "load": "detkit.api:load",
    "evaluate": "detkit.evaluate",
    "datasets": "detkit.datasets",
    "list_parts": "detkit.config.explain:list_parts",
    "explain": "detkit.config.explain:explain",
    "Config": "detkit.config:Config",
    "CocoResult": "detkit.evaluate.coco:CocoResult",
    "DenseDetector": "detkit.detectors.dense:DenseDetector",
    "Detections": "detkit.predict.detections:Detections",
    "Predictor": "detkit.predict.predictor:Predictor",
    "Run": "detkit.runs.run:Run",
    "Views": "detkit.predict.views:Views",
}
"""Public name -> where it is. The packages detkit.train and detkit.evaluate are the functions of their name, too."""
__all__ = ["__version__", *NAMES]  # the names come from the table


if not TYPE_CHECKING:  # a type checker would take any name for one that is there

    def __getattr__(name: str) -> object:
        import pkgutil  # here, as it takes longer to load than all the rest

        if name not in NAMES:
            text = f"module 'detkit' has no attribute {name!r}; its names: {', '.join(NAMES)}"
            raise AttributeError(text, name=name, obj=sys.modules[__name__])
        globals()[name] = value = pkgutil.resolve_name(NAMES[name])
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *NAMES})
