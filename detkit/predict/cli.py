"""The verb `detkit predict`."""

from __future__ import annotations

import argparse
import json
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from detkit.registry.bounds import LARGEST_FLOAT
from detkit.utils.console import plural, printable
from detkit.utils.errors import error_lines, find_disk_full
from detkit.utils.outputs import (
    ForeignFileError,
    Ledger,
    check_can_write,
    json_name,
    refuse_foreign,
    refuse_inputs,
    short_name,
    write_png,
    write_text,
)
from detkit.utils.types import Tree

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

    from detkit.data.datasets.images import ImageOptions
    from detkit.predict.detections import Detections
    from detkit.structures import ClassMap

RESULTS, IMAGES = "predictions.json", "images.json"
SAVED_EVERY = 2.0
"""Seconds between updates of the ledger while images are drawn."""
RUN_FILES = ("checkpoints", "environment.json", "plan.json")
"""Entries by which the folder of a run or of a bench is known."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", help="run folder, checkpoint, .safetensors file, or the name or address of a model"
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="image files, folders, globs or addresses")
    parser.add_argument(
        "--output",
        default="predictions",
        metavar="DIR",
        help="output folder (default: ./predictions); only results of an earlier `detkit predict` are replaced",
    )
    parser.add_argument("--score", type=float, default=0.5, help="lowest score that is drawn and written")
    parser.add_argument("--batch", type=int, default=8, help="images per forward pass")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--max-megapixels",
        type=float,
        metavar="N",
        help="refuse images with more pixels than this; default: as trained",
    )
    parser.add_argument("--no-draw", action="store_true", help="write only the JSON files")


def run(args: argparse.Namespace) -> int:
    """Draws each image into the output folder and writes predictions.json (COCO results) and images.json.

    Files that are not images are skipped with a warning, as are drawings that can't be written; then the exit code
    is 1. The results so far are written whatever ends the command.
    """
    if not 0 <= args.score < 1:
        raise ValueError(f"--score: {args.score} must be at least 0 and less than 1")
    if args.batch < 1:
        raise ValueError(f"--batch: {args.batch} must be at least 1")
    if args.max_megapixels is not None and not 0 < args.max_megapixels < LARGEST_FLOAT:
        raise ValueError(f"--max-megapixels: {args.max_megapixels} must be a positive number")
    files = list(find_images(args.paths))
    output = Path(args.output)
    names = unique_names(files)
    targets = [RESULTS, IMAGES, *([] if args.no_draw else names)]
    check_output(output, targets, [*files, args.checkpoint])
    from detkit.predict.predictor import Predictor

    overrides = [f"postprocess.score_threshold={min(args.score, 0.999)}"]
    if args.max_megapixels is not None:
        overrides.append(f"data.images.max_megapixels={args.max_megapixels}")
    predictor = Predictor.from_checkpoint(
        args.checkpoint, device=args.device, overrides=overrides, batch_size=args.batch
    )
    output.mkdir(parents=True, exist_ok=True)
    results = Results(output, predictor.classes)
    readable: list[int] = []
    undrawn = 0
    images = read_images(files, readable, predictor.image_options)
    try:
        for number, (detections, image) in enumerate(predictor.stream(images)):
            index = readable[number]
            results.add(files[index], image, detections)
            if not args.no_draw:
                undrawn += not results.draw(names[index], image, detections)
            print(f"{printable(files[index])}: {plural(len(detections), 'detection')}", flush=True)
    finally:
        if results.images:
            results.write()
    written = f"{RESULTS} and {IMAGES}" if args.no_draw else f"drawn images, {RESULTS} and {IMAGES}"
    totals = f"{plural(len(results.detections), 'detection')} in {plural(len(results.images), 'image')}"
    print(f"{totals}; {written} in {printable(output)}")
    problems = ((len(files) - len(readable), "files could not be read"), (undrawn, "drawings could not be written"))
    for count, what in problems:
        if count:
            print(f"error: {count} of {len(files)} {what}, see above", file=sys.stderr)
    return int(any(count for count, _ in problems))


def check_output(output: Path, names: Sequence[str], inputs: Sequence[str | Path]) -> None:
    """Raises ValueError or OSError, before anything is computed, where writing would lose or mix up files."""
    check_can_write("--output", output)
    if run_files := [name for name in RUN_FILES if (output / name).exists()]:
        raise ForeignFileError(
            f"--output: {printable(output)} is the folder of a run or a bench ({', '.join(run_files)}): choose another"
        )
    refuse_inputs("--output", [output / name for name in names], inputs)
    refuse_foreign("--output", output, names)


class Results:
    """The detections so far, and the folder to which they are written."""

    def __init__(self, output: Path, classes: ClassMap) -> None:
        self.output, self.classes, self.ledger = output, classes, Ledger(output, every=SAVED_EVERY)
        self.detections: list[Tree] = []
        self.images: list[Tree] = []

    def add(self, file: Path, image: PILImage, detections: Detections) -> None:
        image_id = len(self.images) + 1
        self.images.append({"id": image_id, **json_name(file), "width": image.width, "height": image.height})
        self.detections += detections.to_coco(image_id)

    def draw(self, name: str, image: PILImage, detections: Detections) -> bool:
        """Writes the drawing of an image; returns False, after a warning, if it can't be written."""
        from detkit.visualize import draw_detections

        try:
            picture = draw_detections(image, detections, self.classes)
            write_png(self.output / name, picture.save, ledger=self.ledger)
        except (OSError, ValueError) as error:
            if find_disk_full(error) is not None:
                raise
            print(f"warning: not drawn: {printable(name)}: {error_lines(error)[0]}", file=sys.stderr, flush=True)
            return False
        return True

    def write(self) -> None:
        write_text(self.output / RESULTS, json.dumps(self.detections), ledger=self.ledger)
        write_text(self.output / IMAGES, json.dumps(self.images, indent=1), ledger=self.ledger)
        self.ledger.flush()


def read_images(files: list[Path], readable: list[int], options: ImageOptions) -> Iterator[PILImage]:
    """Yields the images that can be read and appends their index to `readable`; ValueError if none can."""
    from detkit.data.datasets.images import read_image

    for index, file in enumerate(files):
        try:
            image = read_image(file, options)
        except (ValueError, OSError, MemoryError) as error:
            if len(files) == 1:
                raise
            text = "; ".join(error_lines(error)).replace(str(file), printable(file))
            print(f"warning: skipped: {text}", file=sys.stderr, flush=True)
            continue
        readable.append(index)
        yield image
    if not readable:
        raise ValueError(f"none of the {len(files)} files is a readable image")


def find_images(paths: list[str]) -> Iterator[Path]:
    """Yields the image files of files, folders (not deeper) and globs; FileNotFoundError names one without any.

    Files that are skipped in a folder, and drawings of an earlier `detkit predict`, are reported.
    """
    import glob

    from detkit.data.datasets.image_files import describe_left_out, list_images
    from detkit.hub import local_path

    for text in paths:
        path = local_path(text)
        if path.is_file():
            yield path
            continue
        if path.is_dir():
            images, left_out = list_images(path)
            skipped = describe_left_out(printable(text), left_out)
            reason = f"the folder {printable(text)} holds no image" + (f"; {skipped}" if skipped else "")
            if skipped and images:
                print(f"note: {skipped}", file=sys.stderr, flush=True)
        else:
            images = sorted(Path(p) for p in glob.glob(text, recursive=True) if Path(p).is_file())
            reason = f"no file, folder or glob match: {printable(text)}"
        ledgers = {folder: Ledger(folder) for folder in {image.parent for image in images}}
        photos = [image for image in images if not ledgers[image.parent].owns(image.name)]
        if drawn := len(images) - len(photos):
            files = plural(drawn, "file")
            reason += f" besides {files} that detkit wrote"
            print(f"skipped: {files} in {printable(text)} that detkit wrote", flush=True)
        if not photos:
            raise FileNotFoundError(reason)
        yield from photos


def unique_names(files: list[Path]) -> list[str]:
    """A PNG name for every file, with a number if two folders hold the same name.

    Names that differ only in case or Unicode form count as the same: some file systems don't tell them apart.
    """
    taken: set[str] = set()
    names = []
    for file in files:
        name, n = short_name(file.stem, ".png"), 1
        while (key := unicodedata.normalize("NFC", name).casefold()) in taken:
            n += 1
            name = short_name(file.stem, f"-{n}.png")
        taken.add(key)
        names.append(name)
    return names
