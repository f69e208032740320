"""The verb `detkit predict`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from detkit.predict.sources import find_images, split_videos, unique_names
from detkit.predict.video import open_library, video_name
from detkit.registry.bounds import LARGEST_FLOAT
from detkit.utils.console import nearest, printable

if TYPE_CHECKING:
    from detkit.predict.predictor import Predictor
    from detkit.predict.views import Views

FORMATS = ("coco", "yolo", "csv", "voc", "fiftyone", "crops")
"""What `--save` takes. Each has a folder of its name, but coco, whose files are in the output folder itself."""
LOWEST = 0.05
"""Score from which on boxes take part in a fusion, which lowers scores; --score selects afterwards."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", help="run folder, checkpoint, .safetensors file, or the name or address of a model"
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="image files, folders, globs or addresses; video files, addresses of streams, or numbers of cameras",
    )
    parser.add_argument("--recursive", action="store_true", help="read folders with those below them")
    parser.add_argument(
        "--output",
        default="predictions",
        metavar="DIR",
        help="output folder (default: ./predictions); only results of an earlier `detkit predict` are replaced",
    )
    parser.add_argument(
        "--save",
        default="coco",
        metavar="FORMATS",
        help=f"what to write, separated by commas: {', '.join(FORMATS)} (default: coco)",
    )
    parser.add_argument("--no-draw", action="store_true", help="write no images with boxes")
    parser.add_argument("--score", type=float, default=0.5, help="lowest score that is drawn and written")
    parser.add_argument("--batch", type=int, default=8, help="images per forward pass")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--max-megapixels",
        type=float,
        metavar="N",
        help="refuse images with more pixels than this; default: as trained",
    )
    parser.add_argument("--frames", type=int, metavar="N", help="stop after N frames of a video")
    views = parser.add_argument_group("views", "look at every image several times and merge what is found")
    views.add_argument("--tile", type=int, metavar="PIXELS", help="look at tiles with sides of so many pixels as well")
    views.add_argument("--overlap", type=float, default=0.2, help="fraction of a tile that the next one shares")
    views.add_argument("--tiles-only", action="store_true", help="look at the tiles, not at the whole image")
    views.add_argument("--flip", action="store_true", help="look at the mirrored image as well")
    views.add_argument("--scales", metavar="A,B,...", help="look at the image at several sizes, as factors: 0.75,1,1.5")
    views.add_argument(
        "--merge",
        default="nms",
        choices=("nms", "wbf"),
        help="how detections of several views become one: the model's suppression, or weighted boxes fusion",
    )


def run(args: argparse.Namespace) -> int:
    """Draws each image and video into the output folder and writes the detections in the formats of --save.

    Files that are not images are skipped with a warning, as are drawings that can't be written; then the exit code
    is 1, as it is for a damaged video. The results so far are written whatever ends the command.
    """
    check_numbers(args)
    formats, output = chosen_formats(args.save), Path(args.output)
    videos, paths = split_videos(args.paths)
    files = list(find_images(paths, recursive=args.recursive, output=output))
    names, clips = unique_names(files), unique_names(map(Path, map(video_name, videos)), "")
    from detkit.predict.results import IMAGES, RESULTS, Results, check_output, predict_images

    targets = [*([RESULTS, IMAGES] if files and "coco" in formats else []), *(f"{clip}.jsonl" for clip in clips)]
    targets += [] if args.no_draw else [*names, *(f"{clip}.mp4" for clip in clips)]
    check_output(output, targets, [*files, *videos, args.checkpoint], formats if files else [])
    if videos:
        open_library()
    predictor = open_predictor(args, chosen_views(args))
    output.mkdir(parents=True, exist_ok=True)
    code = 0
    if files:
        results = Results(output, predictor.classes, formats, draws=not args.no_draw)
        code = predict_images(predictor, files, names, results, args.score)
    return max(code, predict_videos(predictor, videos, clips, args, alone=not files and len(videos) == 1))


def predict_videos(
    predictor: Predictor, videos: list[str], clips: list[str], args: argparse.Namespace, *, alone: bool
) -> int:
    """Runs a predictor on videos; returns the exit code. clips: names of the results. alone: nothing else is read."""
    from detkit.predict.video_run import VideoJob, predict_video
    from detkit.utils.outputs import Ledger

    code, output = 0, Path(args.output)
    ledger = Ledger(output)
    for video, clip in zip(videos, clips, strict=True):
        drawn = None if args.no_draw else output / f"{clip}.mp4"
        job = VideoJob(video, output / f"{clip}.jsonl", drawn, args.score, args.frames)
        try:
            code = max(code, predict_video(predictor, job, ledger))
        except ValueError as error:
            if alone:
                raise
            print(f"error: skipped: {error}", file=sys.stderr, flush=True)
            code = 1
    if videos:
        what = "a JSONL file" if args.no_draw else "a video with boxes and a JSONL file"
        print(f"{what} of each in {printable(output)}")
    return code


def check_numbers(args: argparse.Namespace) -> None:
    """Raises ValueError for numbers that make no sense."""
    if not 0 <= args.score < 1:
        raise ValueError(f"--score: {args.score} must be at least 0 and less than 1")
    if args.batch < 1:
        raise ValueError(f"--batch: {args.batch} must be at least 1")
    if args.frames is not None and args.frames < 1:
        raise ValueError(f"--frames: {args.frames} must be at least 1")
    if args.max_megapixels is not None and not 0 < args.max_megapixels < LARGEST_FLOAT:
        raise ValueError(f"--max-megapixels: {args.max_megapixels} must be a positive number")


def chosen_formats(text: str) -> list[str]:
    """The formats of `--save`, each once; ValueError for an unknown one."""
    formats = list(dict.fromkeys(word.strip().lower() for word in text.split(",") if word.strip()))
    for name in formats:
        if name not in FORMATS:
            raise ValueError(f"--save: unknown format {name!r}{nearest(name, FORMATS)} Formats: {', '.join(FORMATS)}")
    return formats


def chosen_views(args: argparse.Namespace) -> Views:
    """The views that the options describe; ValueError names a wrong one."""
    from detkit.predict.views import Views

    scales = (1.0,) if args.scales is None else parse_scales(args.scales)
    if args.tiles_only and args.tile is None:
        raise ValueError("--tiles-only needs --tile PIXELS")
    try:
        return Views(
            tile=args.tile, overlap=args.overlap, whole=not args.tiles_only, flip=args.flip, scales=scales,
            merge=args.merge,
        )  # fmt: skip
    except ValueError as error:
        raise ValueError(f"--{error}") from None


def parse_scales(text: str) -> tuple[float, ...]:
    """The factors of `--scales`."""
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise ValueError(f"--scales: {text!r} must be numbers separated by commas, as in 0.75,1,1.5") from None


def open_predictor(args: argparse.Namespace, views: Views) -> Predictor:
    """The predictor that the options describe."""
    from detkit.predict.predictor import Predictor

    threshold = min(args.score, LOWEST if views.merge == "wbf" else 0.999)
    overrides = [f"postprocess.score_threshold={threshold}"]
    if args.max_megapixels is not None:
        overrides.append(f"data.images.max_megapixels={args.max_megapixels}")
    return Predictor.from_checkpoint(
        args.checkpoint, device=args.device, overrides=overrides, batch_size=args.batch, views=views
    )
