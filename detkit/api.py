"""What `import detkit` offers as functions: detectors, trainings, predictors and evaluations in one call each.

Each takes its config as a name, a file, a mapping or a `Config`, and its overrides as a mapping of dotted keys or as
texts `key=value`. What goes wrong is raised; exit codes are for the command line.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, SupportsIndex, TypeAlias

from detkit import datasets
from detkit.config import Config, ConfigLike, Overrides, as_config
from detkit.data.build import SPLITS, build_dataset, usable_dataset
from detkit.data.datasets.base import DetectionDataset
from detkit.data.loader import build_eval_loader
from detkit.detectors.build import build_detector
from detkit.detectors.dense import DenseDetector
from detkit.distributed.process_info import find_process_info
from detkit.evaluate.coco import CocoResult
from detkit.evaluate.report import check_report_folder
from detkit.evaluate.reported import evaluate_and_report
from detkit.predict.detector import config_of
from detkit.predict.predictor import Predictor
from detkit.predict.views import Views
from detkit.runs.run import Run
from detkit.structures import ClassMap
from detkit.train.cli import check_trainable, run_folder
from detkit.train.run import train as run_training
from detkit.train.torch_setup import kept_settings
from detkit.utils.console import plural

PathLike: TypeAlias = "str | os.PathLike[str]"


def build(
    config: ConfigLike,
    *,
    num_classes: int | None = None,
    backbone_weights: PathLike | Literal[False] | None = None,
    overrides: Overrides = (),
) -> DenseDetector:
    """Builds the detector of a config: an `nn.Module` with `forward`, `loss` and `detect`, in training mode.

    Args:
        config: name, file, mapping or `Config`; it needs no data.
        num_classes: number of classes; None counts those of `data.train`.
        backbone_weights: name or file of the backbone's weights; None takes `backbone.weights` of the config, False
            none at all.
        overrides: settings of the config to change.
    """
    settings = as_config(config, overrides)
    if backbone_weights is False:
        settings = as_config(settings, {"backbone.weights": None})
    elif backbone_weights is not None:
        settings = as_config(settings, {"backbone.weights": os.fspath(backbone_weights)})
    if num_classes is None and "data.train" not in settings:
        raise ValueError(f"num_classes: {settings.name} has no data.train whose classes could be counted: give it")
    if num_classes is None:
        num_classes = len(build_dataset(settings, "train").classes)
    if isinstance(num_classes, bool) or not isinstance(num_classes, SupportsIndex):
        raise ValueError(f"num_classes: {num_classes!r} must be a whole number")
    if num_classes.__index__() < 1:
        raise ValueError(f"num_classes: {num_classes} must be at least 1")
    detector = build_detector(settings, num_classes)
    with settings.locate_errors("backbone.weights"):
        detector.backbone.load_pretrained()
    return detector


def train(
    config: ConfigLike,
    *,
    output: PathLike | None = None,
    overrides: Overrides = (),
    overlays: Sequence[str | Path] = (),
    resume: bool = False,
    init_from: PathLike | None = None,
    overwrite: bool = False,
    profile: int | None = None,
    allow: Sequence[str] = (),
) -> Run:
    """Trains in this process, as `detkit train` does, and returns the finished run.

    It leaves signals to the caller: Ctrl-C, or a notebook's stop button, raises KeyboardInterrupt, and `resume=True`
    continues from the last checkpoint. Random generators and settings of torch are afterwards as they were.

    Args:
        config: name, file, mapping or `Config`.
        output: run folder; None for runs/<name of the config>.
        overrides: settings of the config to change.
        overlays: files laid over the config, as those of configs/losses.
        resume: continue the run in `output`.
        init_from: weights to start a new run from, by name or file.
        overwrite: replace a run that is in `output`.
        profile: steps to record a profiler trace of.
        allow: `code`: with `resume`, accept changed code.

    Raises NonFiniteLossError if the loss becomes infinite or NaN, EvaluationFailedError if the weights are there but
    could not be evaluated, and ValueError or OSError for input that is wrong.
    """
    refuse_other_ranks()
    refuse_together(resume=resume, overwrite=overwrite, init_from=init_from is not None)
    if allow and not resume:
        raise ValueError("allow=['code'] requires resume=True: a new run has no earlier code to differ from")
    settings = as_config(config, overrides, overlays=overlays)
    check_trainable(settings, resume=resume)
    if output is not None and not os.fspath(output):
        raise ValueError("output: '' names no folder; the present one is '.'")
    folder = Path(output) if output is not None else default_folder(config, overlays)
    weights = None if init_from is None else os.fspath(init_from)
    with kept_settings():
        run_training(
            settings, folder, resume=resume, init_from=weights, overwrite=overwrite, profile=profile, allow=allow,
            in_process=True,
        )  # fmt: skip
    return Run(folder)


def load(
    source: PathLike,
    *,
    device: str = "auto",
    overrides: Overrides = (),
    batch_size: int = 8,
    views: Views | None = None,
) -> Predictor:
    """A predictor with trained weights: `load("runs/mine")(["a.jpg"])`.

    Args:
        source: run folder (its best checkpoint), checkpoint, or another name of weights that docs/interop.md lists.
        device: auto, cpu, cuda, cuda:1, ...
        overrides: settings that don't change weights, as `postprocess.score_threshold`.
        batch_size: images per forward pass.
        views: tiles, scales and flips in which every image is looked at; None for the image alone.
    """
    return Predictor.from_checkpoint(
        os.fspath(source), device=device, overrides=overrides, batch_size=batch_size, views=views
    )


def evaluate(
    model: DenseDetector | Predictor | Run | PathLike,
    dataset: DetectionDataset | PathLike | None = None,
    *,
    device: str = "auto",
    overrides: Overrides = (),
    progress: bool = True,
    report: PathLike | None = None,
    slices: Sequence[str] = (),
) -> CocoResult:
    """COCO metrics of a detector on a data set, with the transforms of `data.val` of its config.

    Args:
        model: detector, predictor, run, or what `load` takes.
        dataset: data set, file or folder as `datasets.load` takes it, or "train" or "val" of the config; None for
            "val". The classes of a trained detector are matched by name, those of a bare detector by their order.
        device: where a run or checkpoint is loaded to; a detector stays on its own.
        overrides: settings that don't change weights, as `nms.iou_threshold`; of a detector that is built already, only
            those below `data` and `evaluator`.
        progress: show a progress bar on a terminal.
        report: folder for report.html and report.md, with curves and pictures; None for no report.
        slices: columns of the images' metadata by which the report gives AP, as `width`, or a key of COCO's `images`.
    """
    if report is not None:
        check_report_folder("report", os.fspath(report))
    elif slices:
        raise ValueError("slices: they are part of the report: give report, a folder")
    predictor, classes = predictor_of(model, device, overrides)
    data = dataset_of(predictor, classes, dataset)
    loader = build_eval_loader(data, predictor.transforms, predictor.config.options("data.loader"))
    options = predictor.config.options("evaluator")
    return evaluate_and_report(
        predictor.detector,
        data,
        loader,
        options,
        report=report,
        slices=slices,
        title=title_of(model),
        progress=progress,
    )


def title_of(model: DenseDetector | Predictor | Run | PathLike) -> str:
    """The heading of the report on a model."""
    if isinstance(model, Run):
        return f"Evaluation of {model.folder}"
    return f"Evaluation of {os.fspath(model)}" if isinstance(model, (str, os.PathLike)) else "Evaluation"


def refuse_other_ranks() -> None:
    """Raises ValueError in one of several processes that a launcher started."""
    process = find_process_info(os.environ)
    if process.world_size > 1:
        raise ValueError(
            f"this process is {process}, and detkit.train trains in one process: start `detkit train` or "
            "`python -m detkit train` with the launcher, or `detkit train --procs`"
        )


def refuse_together(**given: bool) -> None:
    """Raises ValueError if more than one of these arguments is given."""
    chosen = [name for name, is_given in given.items() if is_given]
    if "resume" in chosen and len(chosen) > 1:
        raise ValueError(f"resume continues the run in output, {chosen[1]} begins a new one: choose one of the two")


def default_folder(config: ConfigLike, overlays: Sequence[str | Path]) -> Path:
    """The run folder that `detkit train` would take."""
    if not isinstance(config, (str, os.PathLike)):
        raise ValueError("output: name a run folder: the config has no file whose name it could take")
    return run_folder([config, *overlays])


def changed_data(config: Config, overrides: Overrides) -> Config:
    """The config with overrides; ValueError if they change more than the data and how it is measured."""
    changed, before = as_config(config, overrides), dict(config.leaves())
    keys = [key for key, value in changed.leaves() if before.get(key) != value]
    if built := [key for key in keys if not key.startswith(("data.", "evaluator."))]:
        raise ValueError(f"overrides: {', '.join(built)}: the detector is built already: override it in build or load")
    return changed


def predictor_of(
    model: DenseDetector | Predictor | Run | PathLike, device: str, overrides: Overrides
) -> tuple[Predictor, ClassMap | None]:
    """The predictor of a model, and the classes that it was trained on; None for a bare detector."""
    if isinstance(model, DenseDetector):
        return Predictor(model, changed_data(config_of(model), overrides)), None
    if isinstance(model, Predictor):
        return Predictor(model.detector, changed_data(model.config, overrides), model.classes), model.classes
    predictor = load(model.folder if isinstance(model, Run) else model, device=device, overrides=overrides)
    return predictor, predictor.classes


def dataset_of(
    predictor: Predictor, classes: ClassMap | None, dataset: DetectionDataset | PathLike | None
) -> DetectionDataset:
    """The data set to evaluate on, with the classes of the detector."""
    source = "val" if dataset is None else dataset
    if isinstance(source, str) and source in SPLITS:
        data = usable_dataset(predictor.config, source, classes)
    else:
        data = datasets.load(source) if isinstance(source, (str, os.PathLike)) else copy.copy(source)
        if classes is not None:
            data.use_classes(classes, "the detector")
    count = predictor.detector.num_classes
    if count is not None and len(data.classes) != count:
        raise ValueError(f"{data.name} has {plural(len(data.classes), 'class', 'classes')}, the detector {count}")
    return data
