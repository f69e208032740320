"""Models of published size: their numbers of parameters, and every tensor of MMDetection's checkpoints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from detkit.config import load_config
from detkit.detectors.build import build_detector
from detkit.detectors.dense import DenseDetector
from tests.family import reference as ref
from tests.family import test_rtmdet, test_yolof, test_yolox

LAYOUTS = "golden/mmdet/public_layouts.json"
"""In ../shared."""
COUNTERS = "num_batches_tracked"
MILLIONS = {
    "yolox/yolox_tiny": 5.06, "yolox/yolox_s": 8.97, "yolox/yolox_l": 54.21,
    "rtmdet/rtmdet_tiny": 4.90, "rtmdet/rtmdet_l": 52.32, "yolof/yolof": 44.11,
}  # fmt: skip
"""With 80 classes; the papers round them (YOLOX, table 3; RTMDet, table 2; YOLOF, table 1)."""


def build(config: str) -> DenseDetector:
    with torch.device("meta"):
        return build_detector(load_config(f"configs/{config}.yaml"), 80)


@pytest.mark.parametrize("config", MILLIONS)
def test_number_of_parameters(config: str) -> None:
    count = sum(p.numel() for p in build(config).parameters())
    assert round(count / 1e6, 2) == MILLIONS[config]


@pytest.mark.parametrize(
    ("config", "name", "rules", "copies"),
    [
        ("yolof/yolof", "yolof/yolof_r50-c5_8xb8-1x_coco.py", test_yolof.RULES, []),
        ("yolox/yolox_tiny", "yolox/yolox_tiny_8xb8-300e_coco.py", test_yolox.RULES, []),
        ("rtmdet/rtmdet_tiny", "rtmdet/rtmdet_tiny_8xb32-300e_coco.py", test_rtmdet.RULES, test_rtmdet.SHARED),
    ],
)
def test_every_published_tensor_has_its_place(
    shared_dir: Path, config: str, name: str, rules: ref.Rules, copies: list[str]
) -> None:
    if not (shared_dir / LAYOUTS).is_file():
        pytest.skip("../shared has no layouts of published checkpoints")
    layout = json.loads((shared_dir / LAYOUTS).read_text())[name]
    wanted = {k: shape for k, shape in layout.items() if not k.endswith(COUNTERS) and k not in copies}
    state = build(config).state_dict()
    mine = {ref.foreign(k, [*ref.BODY, *rules]): list(v.shape) for k, v in state.items() if not k.endswith(COUNTERS)}
    assert mine == wanted
