"""The verb `detkit bench`."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from detkit.utils.console import printable
from detkit.utils.outputs import check_output_file, write_marked_json
from detkit.utils.types import Tree

if TYPE_CHECKING:
    from detkit.bench.measure import Bench
    from detkit.bench.runners import Runner
    from detkit.predict.predictor import Predictor

CLASSES = 80
"""Of a config without training data."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="RUN_OR_CONFIG",
        help="run folder, checkpoint or name of a model; or a config, as a file or name, whose weights are then random",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="override config keys")
    parser.add_argument("--image", metavar="FILE", help="the image to measure with; without it, a made-up one")
    parser.add_argument("--size", metavar="WxH", default="640x480", help="of the made-up image, pixels")
    parser.add_argument("--batch", metavar="N", type=int, default=1, help="images of a batch")
    parser.add_argument("--steps", metavar="N", type=int, default=20, help="batches that are measured")
    parser.add_argument("--warmup", metavar="N", type=int, default=3, help="batches before them")
    parser.add_argument("--how", metavar="LIST", help="ways to run, as eager,compiled; without it, all that can")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--no-counts", action="store_true", help="leave out parameters and multiply-adds")
    parser.add_argument("--json", metavar="FILE", help="also write the figures to FILE")


def run(args: argparse.Namespace) -> int:
    """Prints the tables; returns 1 if a way to run that `--how` names failed, or all did."""
    from detkit.bench.runners import chosen_runners
    from detkit.bench.table import format_bench

    for name, least in (("batch", 1), ("steps", 1), ("warmup", 0)):
        if getattr(args, name) < least:
            raise ValueError(f"--{name}: {getattr(args, name)} must be at least {least}")
    width, height = parse_size(args.size)
    if args.json is not None:
        check_output_file("--json", args.json, inputs=[args.source, *([args.image] if args.image else [])])
    runners = chosen_runners(args.how)
    predictor = predictor_of(args)
    with tempfile.TemporaryDirectory() as folder:
        file = args.image or made_up_image(Path(folder) / "image.jpg", width, height)
        content = measure(predictor, str(file), args, runners)
    if args.json is not None:
        write_marked_json(args.json, content)
    print(format_bench(content))
    failed = ["error" in run for run in content["runs"]]
    return int(all(failed) or (args.how is not None and any(failed)))


def measure(predictor: Predictor, file: str, args: argparse.Namespace, runners: list[Runner]) -> Tree:
    """The figures, as `--json` has them."""
    from detkit.bench.count import count
    from detkit.bench.measure import Bench
    from detkit.runs.environment import environment

    bench = Bench(predictor, [file] * args.batch)
    counts = None if args.no_counts else count(predictor.detector, bench.images, bench.sizes)
    image = bench.read()[0]
    return {
        "source": args.source,
        "environment": environment(),
        "device": str(predictor.device),
        "input": {
            "width": image.width,
            "height": image.height,
            "batch": args.batch,
            "padded": list(bench.images.shape[-2:]),
        },
        "steps": args.steps,
        "runs": [measured(bench, runner, args) for runner in runners],
        "counts": counts,
    }


def measured(bench: Bench, runner: Runner, args: argparse.Namespace) -> Tree:
    """The figures of one way to run, or why it failed: the others are measured all the same."""
    from detkit.utils.errors import error_lines

    try:
        return bench.run(runner, args.steps, args.warmup)
    except Exception as error:
        return {"how": runner.name, "error": error_lines(error)[0]}


def predictor_of(args: argparse.Namespace) -> Predictor:
    """The predictor of a run, or one of a config with random weights."""
    from detkit.config import load_config
    from detkit.config.find import configs_named
    from detkit.data.build import build_dataset
    from detkit.detectors.build import build_detector
    from detkit.predict.detector import resolve_device
    from detkit.predict.predictor import Predictor

    source = Path(args.source)
    if source.suffix not in (".yaml", ".yml") and (source.exists() or not configs_named(args.source)):
        return Predictor.from_checkpoint(args.source, device=args.device, overrides=args.overrides)
    config = load_config(args.source, args.overrides)
    try:
        classes = len(build_dataset(config, "train").classes) if "data.train" in config else CLASSES
    except (FileNotFoundError, NotADirectoryError):
        classes = CLASSES
        print(f"the data of {printable(args.source)} are not there: counted as {CLASSES} classes")
    detector = build_detector(config, classes).to(resolve_device(args.device)).eval()
    return Predictor(detector, config)


def parse_size(text: str) -> tuple[int, int]:
    """`640x480` -> width and height."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and 1 <= int(part) <= 20_000 for part in parts):
        raise ValueError(f"--size: {text!r} must be a width and a height in pixels, as 640x480")
    return int(parts[0]), int(parts[1])


def made_up_image(path: Path, width: int, height: int) -> Path:
    """A JPEG with coarse and fine structure, which takes as long to decode as a photo does; always the same."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((width, height))
    noise = random.normal(0, 6, (height, width, 3))
    pixels = (np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=90)
    return path
