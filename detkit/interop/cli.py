"""The verb `detkit convert`."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from detkit.utils.console import printable
from detkit.utils.outputs import ForeignFileError, check_output_file, refuse_inputs

EPILOG = """examples:
  detkit convert torchvision retinanet_resnet50_fpn_v2 --output retinanet_v2.pt
  detkit convert torchvision my_state_dict.pth --classes cat,dog --output mine.pt
  detkit convert torchvision ssd300_vgg16 --output ssd300.pt
  detkit convert detectron2 model_final_bfca0b.pkl --output retinanet_d2.pt
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("toolkit", choices=("torchvision", "detectron2"), help="toolkit that wrote the weights")
    parser.add_argument(
        "source",
        help="a .pth/.pt state dict or a model zoo .pkl; for torchvision also retinanet_resnet50_fpn, "
        "retinanet_resnet50_fpn_v2, ssd300_vgg16 or ssdlite320_mobilenet_v3_large, which torchvision downloads",
    )
    parser.add_argument(
        "--output", required=True, metavar="OUT.pt", help="checkpoint to write; replaces only an earlier conversion"
    )
    parser.add_argument(
        "--key",
        metavar="NAME",
        help="name of the weights if a file holds several, e.g. model_ema (default: averaged weights first)",
    )
    parser.add_argument(
        "--classes",
        metavar="NAMES|JSON",
        help="class names, comma-separated in the order of the columns, or a COCO annotation file; "
        "not needed for COCO models",
    )
    parser.add_argument(
        "--keep-columns",
        action="store_true",
        help="torchvision: keep all 91 columns of a COCO model, not just the 80 with a class",
    )
    parser.add_argument(
        "--norm-eps",
        type=float,
        metavar="EPS",
        help="torchvision: epsilon of the backbone's frozen norms; give 0 for a model fine-tuned from the "
        "published retinanet_resnet50_fpn weights (default: 0 for those themselves, else 1e-5)",
    )


def run(args: argparse.Namespace) -> int:
    """Writes a detkit checkpoint that `detkit eval`, `detkit predict` and `--init-from` take."""
    output = Path(args.output)
    if args.toolkit == "detectron2" and (args.keep_columns or args.norm_eps is not None):
        raise ValueError("--keep-columns and --norm-eps are for torchvision models only")
    if args.norm_eps is not None and args.norm_eps < 0:
        raise ValueError(f"--norm-eps: {args.norm_eps} must be at least 0")
    from detkit.checkpoint import save_checkpoint
    from detkit.hub import local_path
    from detkit.interop.classes import read_classes
    from detkit.interop.files import as_checkpoint

    check_output(output, args.source)
    source = local_path(args.source)
    classes = read_classes(args.classes) if args.classes else None
    if args.toolkit == "torchvision":
        from detkit.interop.torchvision import convert_torchvision

        converted = convert_torchvision(
            source, classes=classes, keep_all_columns=args.keep_columns, norm_eps=args.norm_eps, key=args.key
        )
    else:
        from detkit.interop.detectron2 import convert_detectron2

        converted = convert_detectron2(source, classes=classes, key=args.key)
    save_checkpoint(output, as_checkpoint(converted))
    for note in converted.notes:
        print(f"note: {note}")
    count = sum(p.numel() for p in converted.detector.parameters()) / 1e6
    print(f"{output}: {count:.1f} M weights, {len(converted.classes)} classes, from {args.source}")
    return 0


def check_output(output: Path, source: str) -> None:
    """Raises ValueError unless `output` is unused or an earlier conversion."""
    from detkit.checkpoint import CheckpointError, read_checkpoint

    earlier = None
    with contextlib.suppress(CheckpointError, OSError):
        earlier = read_checkpoint(output) if output.is_file() else None
    if earlier is not None and (earlier.step or earlier.optimizer is not None or earlier.data):
        refuse_inputs("--output", [output], [source])
        raise ForeignFileError(f"--output: {printable(output)} is the checkpoint of a run: choose another name")
    check_output_file("--output", output, inputs=[source], owned=lambda path: earlier is not None)
