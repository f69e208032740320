"""The verb `detkit predict`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from detkit.data.datasets.images import ImageOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("checkpoint", help="checkpoint file or run folder")
    parser.add_argument("paths", nargs="+", metavar="PATH", help="image files, folders or globs")
    parser.add_argument("--output", default="predictions", metavar="DIR", help="default: ./predictions")
    parser.add_argument("--score", type=float, default=0.5, help="draw and write detections scoring at least this")
    parser.add_argument("--batch", type=int, default=8, help="images a forward pass")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--max-megapixels",
        type=float,
        metavar="N",
        help="refuse images with more pixels than this; default: as trained",
    )
    parser.add_argument("--no-draw", action="store_true", help="write only the JSON file")


def run(args: argparse.Namespace) -> int:
    """Draws each image into the output folder and writes predictions.json (COCO results).

    Files that are no images are told and left out; then the exit code is 1.
    """
    if not 0 <= args.score < 1:
        raise ValueError(f"--score {args.score} is not in [0, 1)")
    files = list(find_images(args.paths))
    from detkit.detectors.predictor import Predictor
    from detkit.visualize import draw_detections

    overrides = [f"postprocess.score_threshold={min(args.score, 0.999)}"]
    if args.max_megapixels is not None:
        overrides.append(f"data.images.max_megapixels={args.max_megapixels}")
    predictor = Predictor.from_checkpoint(
        args.checkpoint, device=args.device, overrides=overrides, batch_size=args.batch
    )
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    names = unique_names(files)
    readable: list[int] = []
    for i, (found, image) in enumerate(
        predictor.stream(read_images(files, readable, predictor.image_options)), start=1
    ):
        place = readable[i - 1]
        file = files[place]
        images.append({"id": i, "file_name": str(file), "width": image.width, "height": image.height})
        for (x1, y1, x2, y2), score, label in zip(
            found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True
        ):
            results.append(
                {
                    "image_id": i,
                    "category_id": predictor.classes.ids[label],
                    "category_name": predictor.classes.names[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": score,
                }
            )
        if not args.no_draw:
            draw_detections(image, found, predictor.classes).save(output / names[place])
        print(f"{file}: {len(found)} detections", flush=True)
    (output / "predictions.json").write_text(json.dumps(results))
    (output / "images.json").write_text(json.dumps(images, indent=1))
    what = "predictions.json and images.json" if args.no_draw else "drawn images, predictions.json and images.json"
    print(f"{len(results)} detections in {len(images)} images; {what} in {output}")
    if unreadable := len(files) - len(readable):
        print(f"error: {unreadable} of {len(files)} files could not be read, see above", file=sys.stderr)
    return 1 if unreadable else 0


def read_images(files: list[Path], readable: list[int], options: ImageOptions) -> Iterator[Any]:
    """The images of those files that hold one, whose places are added to `readable`; ValueError if none does."""
    from detkit.data.datasets.images import read_image

    for place, file in enumerate(files):
        try:
            image = read_image(file, options)
        except (ValueError, OSError) as error:
            if len(files) == 1:
                raise
            print(f"warning: left out: {error}", file=sys.stderr, flush=True)
            continue
        readable.append(place)
        yield image
    if not readable:
        raise ValueError(f"none of the {len(files)} files is an image that can be read")


def find_images(paths: list[str]) -> Iterator[Path]:
    """Files, folders (all images in them, not deeper) and globs -> image files, each named error otherwise.

    What is left out of a folder is told.
    """
    import glob

    from detkit.data.datasets.images import describe_left_out, list_images

    for text in paths:
        path = Path(text)
        if path.is_file():
            yield path
            continue
        if path.is_dir():
            found, left_out = list_images(path)
            told = describe_left_out(text, left_out)
            reason = f"the folder {text} holds no image" + (f"; {told}" if told else "")
            if told and found:
                print(f"note: {told}", file=sys.stderr, flush=True)
        else:
            found = sorted(Path(p) for p in glob.glob(text, recursive=True) if Path(p).is_file())
            reason = f"no file, folder or glob match: {text}"
        if not found:
            raise FileNotFoundError(reason)
        yield from found


def unique_names(files: list[Path]) -> list[str]:
    """A PNG name for every file, told apart by a number where two folders hold the same name."""
    taken: set[str] = set()
    names = []
    for file in files:
        name, n = f"{file.stem}.png", 1
        while name in taken:
            n += 1
            name = f"{file.stem}-{n}.png"
        taken.add(name)
        names.append(name)
    return names
