"""Names of published weights -> their addresses."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from detkit.hub.cache import cache_folder, place_of
from detkit.hub.download import check, fetch
from detkit.hub.prefixes import DETECTRON2, TORCHVISION
from detkit.utils.console import nearest

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

DETECTRON2_SERVER = "https://dl.fbaipublicfiles.com/detectron2/"
DETECTRON2_ZOO = {
    "COCO-Detection/retinanet_R_50_FPN_1x": "190397773/model_final_bfca0b.pkl",
    "COCO-Detection/retinanet_R_50_FPN_3x": "190397829/model_final_5bd44e.pkl",
    "COCO-Detection/retinanet_R_101_FPN_3x": "190397697/model_final_971ab9.pkl",
}
"""Detectron2's RetinaNets: name -> model id and file, from its MODEL_ZOO.md, which publishes no hashes."""


class Published(NamedTuple):
    """Where published weights are: address, and the first digits of their SHA-256 where the publisher gives them."""

    url: str
    sha256: str = ""


def torchvision_weights(name: str) -> WeightsEnum:
    """`retinanet_resnet50_fpn_v2` or `resnet50:IMAGENET1K_V2` -> torchvision's entry; by default its best weights."""
    from torchvision.models import get_model_weights, list_models

    model, _, version = name.removeprefix(TORCHVISION).strip("/").partition(":")
    try:
        known = get_model_weights(model)
    except ValueError as error:
        raise ValueError(
            f"{TORCHVISION}{model}: torchvision has no model {model!r}{nearest(model, list_models())}"
        ) from error
    version = version.upper() or "DEFAULT"
    if version not in known.__members__:
        raise ValueError(
            f"{TORCHVISION}{model}: torchvision has no weights {version}, only {', '.join(known.__members__)}"
        )
    return known[version]


def torchvision_source(weights: WeightsEnum) -> Published:
    """Address of torchvision weights; their file is named after the first digits of its SHA-256."""
    digits = re.search(r"-([0-9a-f]{8,64})\.\w+$", weights.url)
    return Published(weights.url, digits[1] if digits else "")


def torchvision_file(weights: WeightsEnum) -> Path:
    """The file of torchvision weights: from torch.hub's folder if it is there, else from the cache."""
    source = torchvision_source(weights)
    name = source.url.rpartition("/")[2]
    earlier = torch_hub_folder() / name
    if source.sha256 and earlier.is_file():
        check(earlier, source.url, source.sha256)
        return earlier
    return fetch(source.url, cache_folder() / "torchvision" / "checkpoints" / name, source.sha256)


def torch_hub_folder() -> Path:
    """Where torch.hub, and so torchvision itself, keeps weights."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or os.path.join(cache, "torch")
    return Path(home).expanduser() / "hub" / "checkpoints"


def detectron2_source(name: str) -> Published:
    """`COCO-Detection/retinanet_R_50_FPN_1x`, or a path below Detectron2's server, -> address."""
    path = name.removeprefix(DETECTRON2).strip("/")
    stem = re.sub(r"\.(yaml|py)$", "", path)
    if stem in DETECTRON2_ZOO:
        return Published(f"{DETECTRON2_SERVER}{stem}/{DETECTRON2_ZOO[stem]}")
    if path.endswith(".pkl"):
        return Published(DETECTRON2_SERVER + path)
    raise ValueError(
        f"{DETECTRON2}{path}: no such model{nearest(path, list(DETECTRON2_ZOO))} detkit knows the RetinaNets of the "
        f"zoo: {', '.join(DETECTRON2_ZOO)}; of others give the path of the .pkl on Detectron2's server"
    )


def detectron2_file(name: str) -> Path:
    """The file of a model of Detectron2's zoo."""
    source = detectron2_source(name)
    return fetch(source.url, place_of(source.url, "detectron2"), source.sha256)
