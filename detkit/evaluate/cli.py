"""The verb `detkit eval`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from detkit.utils.console import printable
from detkit.utils.outputs import Ledger, check_output_file, write_marked_json, write_text

if TYPE_CHECKING:
    from detkit.config import Config
    from detkit.data.datasets.base import DetectionDataset
    from detkit.data.loader import Loader
    from detkit.evaluate.arrays import Shard
    from detkit.evaluate.coco import CocoResult
    from detkit.evaluate.loop import SelfTest
    from detkit.structures import ClassMap

TOLERANCE = 1e-9
"""How far below 1 an AP of a self-test may lie: pycocotools' precision has an epsilon in it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        metavar="RUN_OR_CKPT",
        help="run folder, checkpoint, .safetensors file, or the name or address of a model",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="override config keys, e.g. data.val.dataset.split=test"
    )
    parser.add_argument("--json", metavar="FILE", help="also write the figures to FILE")
    parser.add_argument(
        "--detections",
        metavar="FILE",
        help="write the detections to FILE as COCO results, with the annotation file's ids",
    )
    parser.add_argument("--report", metavar="DIR", help="write report.html and report.md, with curves and pictures")
    parser.add_argument(
        "--slice",
        metavar="KEY",
        action="append",
        default=[],
        help="in the report, AP by a column of the images' metadata: width, objects, or a key of COCO's `images`; can "
        "be repeated",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--self-test",
        action="store_true",
        help="evaluate the ground truth as predictions, which must give AP 1; accepts a config, as a file or name, too",
    )


def run(args: argparse.Namespace) -> int:
    """Prints the table; returns 1 if a self-test fails."""
    from detkit.evaluate.report import check_report_folder, format_table, to_json

    if args.self_test and args.detections:
        raise ValueError("--detections: a self-test has no detections; remove one of the two options")
    if args.self_test and args.report is not None:
        raise ValueError("--report: a self-test has nothing to report on; remove one of the two options")
    if args.slice and args.report is None:
        raise ValueError("--slice: slices are part of the report: add --report DIR")
    if args.report is not None:
        check_report_folder("--report", args.report)
    if args.json is not None:
        check_output_file("--json", args.json, inputs=[args.checkpoint])
    if args.json and args.detections and Path(args.json).resolve() == Path(args.detections).resolve():
        raise ValueError(f"--detections: {printable(args.detections)} is the file of --json, too: choose another")
    test = measure_ground_truth(args) if args.self_test else None
    result = test.file if test else measure_detector(args)
    if args.json is not None:
        write_marked_json(args.json, to_json(result))
    print(format_table(result))
    if args.report is not None:
        print(f"report: {printable(Path(args.report) / 'report.html')}")
    if result.seconds:
        print("seconds: " + ", ".join(f"{part} {s:.1f}" for part, s in result.seconds.items()))
    return judge_self_test(test) if test else 0


def measure_detector(args: argparse.Namespace) -> CocoResult:
    """Evaluates the detector of a checkpoint on its config's `data.val`, overrides applied."""
    from detkit.evaluate.engines import coco_results
    from detkit.evaluate.reported import evaluate_and_report
    from detkit.predict.detector import load_detector

    if args.detections is not None:
        # COCO results have no room for a mark: the ledger of the folder says whether detkit wrote the file.
        file = check_output_file(
            "--detections", args.detections, inputs=[args.checkpoint], owned=lambda f: Ledger(f.parent).owns(f.name)
        )
    detector, config, classes = load_detector(args.checkpoint, device=args.device, overrides=args.overrides)
    dataset, loader = validation_data(config, classes)

    def write(detections: Shard) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(coco_results(detections, dataset.classes)) + "\n", ledger=Ledger(file.parent))

    return evaluate_and_report(
        detector, dataset, loader, config.options("evaluator"), report=args.report, slices=args.slice,
        title=f"Evaluation of {args.checkpoint}", on_detections=None if args.detections is None else write,
    )  # fmt: skip


def measure_ground_truth(args: argparse.Namespace) -> SelfTest:
    """Evaluates the ground truth as predictions, for the config of a checkpoint or for a config file itself."""
    from detkit.config import Config, load_config
    from detkit.config.find import configs_named
    from detkit.evaluate.loop import self_test
    from detkit.interop import load_any

    source = Path(args.checkpoint)
    if source.suffix in (".yaml", ".yml") or (not source.exists() and configs_named(args.checkpoint)):
        config = load_config(args.checkpoint, args.overrides)
    else:
        config = Config.from_dict(load_any(args.checkpoint).config, args.overrides)
    dataset, loader = validation_data(config)
    return self_test(dataset, loader, config.options("evaluator"))


def validation_data(config: Config, classes: ClassMap | None = None) -> tuple[DetectionDataset, Loader]:
    """Data set and loader of `data.val`. classes: of the detector, to which the data set maps its own by name."""
    from detkit.data.build import build_transforms, usable_dataset
    from detkit.data.loader import build_eval_loader

    dataset = usable_dataset(config, "val", classes)
    return dataset, build_eval_loader(dataset, build_transforms(config, "val"), config.options("data.loader"))


def judge_self_test(test: SelfTest) -> int:
    """Prints which AP is not 1, class by class; returns 0 if none is.

    Boxes that differ from the file's, as training's do at the edge, are no fault; what they cost is printed.
    """
    from detkit.evaluate.report import figure

    result = test.pipeline
    if test.differing or test.missing:
        print(
            f"training differs from the file in {test.differing + test.missing} objects: {test.differing} have other "
            f"boxes (clipped at the edge), {test.missing} are skipped as unusable. Evaluation uses the boxes of the "
            f"file, against which the training boxes reach AP {figure(test.file.ap)}"
        )
    wrong = [
        f"  {name}: {key} {value:.6f}"
        for name, metrics in (("all classes", result.metrics), *result.per_class.items())
        for key, value in metrics.items()
        if key.startswith("ap") and value is not None and value < 1 - TOLERANCE
    ]
    if result.ap is None:
        print("self-test: nothing to measure: there is no ground truth")
        return 1
    if not wrong:
        print("self-test passed: the ground truth as predictions gives 1 wherever AP is defined")
        return 0
    print("self-test failed: the ground truth as predictions does not give 1")
    print("\n".join(wrong))
    print(
        "either data.val.transforms lose or move boxes, or an image has more objects of a class than "
        "evaluator.max_detections allows"
    )
    return 1
