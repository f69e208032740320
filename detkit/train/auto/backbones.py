"""The backbone, and the ImageNet weights that it starts from where they can be had."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from detkit.backbones.pretrained import published
from detkit.hub.cache import VARIABLE, cache_folder
from detkit.hub.names import torch_hub_folder, torchvision_file, torchvision_source
from detkit.utils.console import printable

SMALL, LARGE = "mobilenet_v2", "resnet50"
"""Networks of torchvision, without and with a GPU."""
VERSION = "IMAGENET1K_V1"
COST = (
    "no ImageNet weights: expect far less from the same time, and train longer (--minutes). "
    "Give a file by backbone.weights=FILE: "
)


@dataclass(frozen=True)
class Start:
    """A network of torchvision and its weights. weights: a file or a name; None for random ones. why: of both."""

    network: str
    weights: str | None
    why: str


def choose_start(given: str | None, *, on_gpu: bool) -> Start:
    """The network for this machine; its weights as given, of the cache, of torch's cache, or downloaded."""
    if given is not None:
        return Start(network_of(given) or (LARGE if on_gpu else SMALL), given, "given on the command line")
    network = LARGE if on_gpu else SMALL
    known = published(network, VERSION)
    name = torchvision_source(known).url.rpartition("/")[2]
    if (file := cache_folder() / name).is_file():
        return Start(network, str(file), f"ImageNet weights found in {VARIABLE}")
    folders = torch_hub_folder(), cache_folder() / "torchvision" / "checkpoints"
    there = [folder for folder in folders if (folder / name).is_file()]
    try:
        torchvision_file(known)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        return Start(network, None, f"{COST}{torchvision_source(known).url} can't be had ({reason})")
    why = f"ImageNet weights found in {printable(there[0])}" if there else "ImageNet weights, downloaded"
    return Start(network, VERSION, why)


def network_of(weights: str) -> str | None:
    """The network of a file that is named as torchvision names them, like mobilenet_v2-b0353104.pth."""
    from torchvision.models import list_models

    match = re.match(r"(.+)-[0-9a-f]{8}\.\w+$", Path(weights).name)
    return match[1] if match and match[1] in list_models() else None
