"""The verb `detkit demo`."""

from __future__ import annotations

import argparse
import socket

from detkit.registry.bounds import LARGEST_FLOAT
from detkit.utils.console import printable

LOWEST_SCORE = 0.05
"""Score from which on the page gets detections; its slider begins there."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="run folder, checkpoint, or the name or address of a model")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: 8000); 0 takes a free one")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--max-megabytes", type=float, default=20.0, metavar="N", help="largest upload (default: 20)")
    parser.add_argument(
        "--max-megapixels", type=float, default=50.0, metavar="N", help="largest image that is decoded (default: 50)"
    )


def run(args: argparse.Namespace) -> int:
    """Serves the page until Ctrl-C."""
    for option in ("max_megabytes", "max_megapixels"):
        if not 0 < getattr(args, option) < LARGEST_FLOAT:
            raise ValueError(f"--{option.replace('_', '-')}: {getattr(args, option)} must be a positive number")
    if not 0 <= args.port <= 65535:
        raise ValueError(f"--port: {args.port} must be between 0 and 65535")
    from PIL.Image import new as new_image

    from detkit.predict.demo.app import Limits, create_app, serve
    from detkit.predict.predictor import Predictor

    listening = listen(args.host, args.port)
    with listening:
        overrides = [f"postprocess.score_threshold={LOWEST_SCORE}"]
        predictor = Predictor.from_checkpoint(args.checkpoint, device=args.device, overrides=overrides)
        predictor(new_image("RGB", (64, 64)))  # loads what the first image would wait for
        app = create_app(predictor, Limits(args.max_megabytes, args.max_megapixels), title=args.checkpoint)
        port = listening.getsockname()[1]
        shown = f"[{args.host}]" if ":" in args.host else args.host
        print(f"http://{shown}:{port} shows what {printable(args.checkpoint)} finds; Ctrl-C ends it", flush=True)
        serve(app, listening)
    return 0


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; OSError that names the option for an address that can't be had."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        server = socket.socket(family, kind)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
        server.listen(128)
    except OSError as error:
        raise ValueError(
            f"--host {host} --port {port}: {error.strerror or error}: choose another port, or --port 0 for a free one"
        ) from None
    return server
