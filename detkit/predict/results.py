"""The output folder of `detkit predict`: drawings and files of each format."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL.Image import Image

from detkit.predict.detections import Detections
from detkit.predict.predictor import Predictor
from detkit.predict.saving import Saved, clear_own, saved, write_crops, write_sets
from detkit.predict.sources import read_images
from detkit.structures import ClassMap
from detkit.utils.console import plural, printable
from detkit.utils.errors import error_lines, find_disk_full
from detkit.utils.outputs import (
    ForeignFileError,
    Ledger,
    check_can_write,
    json_name,
    refuse_foreign,
    refuse_inputs,
    write_png,
    write_text,
)
from detkit.utils.types import Tree
from detkit.visualize import draw_detections

RESULTS, IMAGES = "predictions.json", "images.json"
SAVED_EVERY = 2.0
"""Seconds between updates of the ledger while images are drawn."""
RUN_FILES = ("checkpoints", "environment.json", "plan.json")
"""Entries by which the folder of a run or of a bench is known."""


def check_output(
    output: Path, names: Sequence[str], inputs: Sequence[str | Path], formats: Sequence[str] = ("coco",)
) -> None:
    """Raises ValueError or OSError, before anything is computed, where writing would lose or mix up files."""
    check_can_write("--output", output)
    if run_files := [name for name in RUN_FILES if (output / name).exists()]:
        raise ForeignFileError(
            f"--output: {printable(output)} is the folder of a run or a bench ({', '.join(run_files)}): choose another"
        )
    refuse_inputs("--output", [output / name for name in names], inputs)
    refuse_foreign("--output", output, names)
    clear_own(output, list(formats), Ledger(output), check=True)


class Results:
    """The detections so far, and the folder to which they are written.

    formats: what `--save` names. draws: whether images with boxes are written.
    """

    def __init__(self, output: Path, classes: ClassMap, formats: Sequence[str] = ("coco",), *, draws: bool = True):
        self.output, self.classes, self.formats, self.draws = output, classes, list(formats), draws
        self.ledger = Ledger(output, every=SAVED_EVERY)
        self.detections: list[Tree] = []
        self.images: list[Tree] = []
        self.kept: list[Saved] = []
        self.unwritten = 0

    def add(self, file: Path, name: str, image: Image, detections: Detections) -> None:
        """Takes an image's detections, draws it and writes its crops. name: of its drawing."""
        if not self.images:  # not before, as results of an earlier run are better than none
            clear_own(self.output, self.formats, self.ledger)
        image_id = len(self.images) + 1
        self.images.append({"id": image_id, **json_name(file), "width": image.width, "height": image.height})
        self.detections += detections.to_coco(image_id)
        if set(self.formats) - {"coco", "crops"}:
            self.kept.append(saved(file, image, detections))
        if self.draws:
            self._try(name, lambda: self.draw(name, image, detections))
        if "crops" in self.formats:
            stem = name.removesuffix(".png")
            self._try(
                f"crops of {name}",
                lambda: write_crops(self.output / "crops", stem, image, detections, self.ledger),
            )

    def draw(self, name: str, image: Image, detections: Detections) -> None:
        picture = draw_detections(image, detections, self.classes)
        write_png(self.output / name, picture.save, ledger=self.ledger)

    def _try(self, name: str, work: Callable[[], object]) -> None:
        """Counts pictures that can't be written, after a warning."""
        try:
            work()
        except (OSError, ValueError) as error:
            if find_disk_full(error) is not None:
                raise
            print(f"warning: not drawn: {printable(name)}: {error_lines(error)[0]}", file=sys.stderr, flush=True)
            self.unwritten += 1

    def write(self) -> None:
        """Writes the files of all images."""
        if "coco" in self.formats:
            write_text(self.output / RESULTS, json.dumps(self.detections), ledger=self.ledger)
            write_text(self.output / IMAGES, json.dumps(self.images, indent=1), ledger=self.ledger)
        for note in write_sets(self.formats, self.output, self.classes, self.kept, self.ledger):
            print(f"note: {note}", file=sys.stderr)
        self.ledger.flush()

    def summary(self) -> str:
        """How much is written where."""
        what = ["drawn images"] if self.draws else []
        what += [f"{RESULTS} and {IMAGES}"] if "coco" in self.formats else []
        what += [f"{name}/" for name in self.formats if name != "coco"]
        totals = f"{plural(len(self.detections), 'detection')} in {plural(len(self.images), 'image')}"
        return f"{totals}; {', '.join(what) or 'nothing'} in {printable(self.output)}"


def predict_images(
    predictor: Predictor, files: list[Path], names: Sequence[str], results: Results, min_score: float
) -> int:
    """Runs a predictor on image files and writes the results, whatever ends it; returns the exit code.

    Files that are not images are skipped with a warning, as are drawings that can't be written; then it is 1.
    """
    readable: list[int] = []
    images = read_images(files, readable, predictor.image_options)
    try:
        for number, (detections, image) in enumerate(predictor.stream(images)):
            index, chosen = readable[number], detections[detections.scores > min_score]
            results.add(files[index], names[index], image, chosen)
            print(f"{printable(files[index])}: {plural(len(chosen), 'detection')}", flush=True)
    finally:
        if results.images:
            results.write()
    print(results.summary())
    problems = (
        (len(files) - len(readable), "files could not be read"),
        (results.unwritten, "drawings could not be written"),
    )
    for count, what in problems:
        if count:
            print(f"error: {count} of {len(files)} {what}, see above", file=sys.stderr)
    return int(any(count for count, _ in problems))
