"""Reproducible weights for the MMDetection reference models, numpy only.

    values(model, key, shape) -> array        one entry of the state dict
    state(model) -> {key: array}              all of it, shapes from <model>.json
    features(level, shape) -> array           feature maps for the head alone
    python make_weights.py MODEL OUT.npz      write it

Every number comes from numpy's frozen RandomState seeded with the CRC-32 of the key, so it does not depend on the
machine, on the order of the keys or on MMDetection. The rules below are tried from the top; the first whose pattern is
found in the key gives the distribution. `MODEL_RULES[model]` come before `RULES`.
"""

import json
import re
import sys
import zlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent

# (pattern, kind, a, b); kind: "uniform" low high | "normal" mean std | "conv" gain (std = gain / sqrt(fan in)) | "zero" | "arange"
RULES = [
    (r"num_batches_tracked$", "zero", 0, 0),
    (r"integral\.project$", "arange", 0, 0),  # a constant that happens to be in the checkpoint: 0, 1, .. reg_max
    (r"running_var$", "uniform", 0.5, 1.5),
    (r"running_mean$", "normal", 0.0, 0.1),
    (r"^backbone\.layer\d\.\d\.bn2\.weight$", "uniform", 0.2, 0.4),
    (r"\.scales(_refine)?\.\d\.scale$", "uniform", 0.8, 1.2),
    (r"^neck\.", "neck", 1.0, 0.05),
    (r"(retina_cls|conv_cls|atss_cls|gfl_cls|vfnet_cls)\.bias$", "normal", -3.0, 0.5),
    (r"(retina_cls|conv_cls|atss_cls|gfl_cls|vfnet_cls)\.weight$", "conv", 1.0, 0),
    (
        r"(retina_reg|conv_reg|atss_reg|vfnet_reg|vfnet_reg_refine|atss_iou|atss_centerness|conv_centerness)\.weight$",
        "conv",
        0.5,
        0,
    ),
]
STEM_UNIT_STD = [(r"^backbone\.(conv1|stem\.\d\.conv|features\.0)\.weight$", "conv", 0.02, 0)]  # inputs are 0..255
MODEL_RULES = {
    "retinanet_r18": [(r"retina_cls\.weight$", "conv", 0.5, 0), (r"retina_reg\.weight$", "conv", 0.15, 0)],
    "freeanchor_r18": [(r"retina_cls\.weight$", "conv", 0.5, 0), (r"retina_reg\.weight$", "conv", 0.15, 0)],
    "fcos_r18": STEM_UNIT_STD + [(r"conv_reg\.bias$", "normal", 2.8, 0.3)],
    "fcos_r18_center": STEM_UNIT_STD + [(r"conv_reg\.bias$", "normal", 2.0, 0.3)],
    "gfl_r18": [(r"gfl_reg\.weight$", "conv", 1.2, 0)],
    "tood_r18": [
        (r"(tood_cls|cls_prob_module\.2)\.bias$", "normal", -2.0, 0.3),
        (r"tood_cls\.weight$", "conv", 1.2, 0),
        (r"tood_reg\.weight$", "conv", 0.5, 0),
        (r"tood_reg\.bias$", "normal", 0.8, 0.2),
        (r"reg_offset_module\.2\.weight$", "conv", 0.7, 0),
    ],
    "vfnet_r18": [(r"vfnet_reg\.bias$", "normal", -1.0, 0.3)],
    "rtmdet_tiny": [
        (r"^neck\..*conv\.weight$", "conv", 1.22, 0),
        (r"rtm_cls\.\d\.bias$", "normal", -3.0, 0.5),
        (r"rtm_cls\.\d\.weight$", "conv", 1.2, 0),
        (r"rtm_reg\.\d\.bias$", "normal", 2.0, 0.3),
        (r"rtm_reg\.\d\.weight$", "conv", 0.6, 0),
    ],
    "yolox_tiny": [
        (r"^backbone\.stem\.conv\.conv\.weight$", "conv", 0.01, 0),
        (r"multi_level_conv_(cls|obj)\.\d\.bias$", "normal", -1.0, 0.5),
        (r"multi_level_conv_(cls|obj)\.\d\.weight$", "conv", 1.2, 0),
        (r"multi_level_conv_reg\.\d\.weight$", "conv", 0.2, 0),
        (r"multi_level_conv_reg\.\d\.bias$", "normal", 0.7, 0.3),
    ],
    "yolof_r18": STEM_UNIT_STD
    + [
        (r"(cls_score|object_pred)\.bias$", "normal", -1.0, 0.5),
        (r"(cls_score|object_pred)\.weight$", "conv", 0.8, 0),
        (r"bbox_pred\.weight$", "conv", 0.2, 0),
    ],
    "ssd300": [
        (r"^backbone\.features\.0\.weight$", "conv", 0.02, 0),
        (r"^neck\.l2_norm\.weight$", "uniform", 16, 24),
        (r"^neck\.extra_layers\..*weight$", "conv", 1.414, 0),
        (r"cls_convs\.\d\.0\.weight$", "conv", 1.0, 0),
        (r"reg_convs\.\d\.0\.weight$", "conv", 0.5, 0),
    ],
    "efficientdet_d0": [
        (r"cls_header\.pointwise_conv\.bias$", "normal", -3.0, 0.5),
        (r"cls_header\.pointwise_conv\.weight$", "conv", 2.0, 0),
        (r"reg_header\.pointwise_conv\.weight$", "conv", 0.5, 0),
    ],
}


def values(model: str, key: str, shape) -> np.ndarray:
    shape = tuple(int(n) for n in shape)
    if model == "rtmdet_tiny":  # the levels share these convolutions: three keys, one tensor, named after level 0
        key = re.sub(r"^(bbox_head\.(?:cls|reg)_convs)\.\d+(\.\d+\.conv\.)", r"\1.0\2", key)
    rng = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF)
    fan_in = max(int(np.prod(shape[1:])), 1)
    for pattern, kind, a, b in MODEL_RULES.get(model, []) + RULES + [("", "default", 1.4142135623730951, 0.05)]:
        if re.search(pattern, key):
            break
    if kind == "zero":
        return np.zeros(shape, np.int64)
    if kind == "arange":
        return np.arange(shape[0], dtype=np.float32)
    if kind in ("neck", "default"):  # a: gain of convolutions, b: std of biases
        if key.endswith("bias"):
            kind, a = "normal", 0.0
        elif len(shape) <= 1:
            kind, a, b = "uniform", 0.8, 1.2
        else:
            kind = "conv"
    if kind == "conv":
        out = rng.normal(0.0, a / np.sqrt(fan_in), shape)
    elif kind == "normal":
        out = rng.normal(a, b, shape)
    else:
        out = rng.uniform(a, b, shape)
    return np.asarray(out, np.float64).astype(np.float32)


def features(level: int, shape) -> np.ndarray:
    """Stand-in feature maps for the head-only outputs."""
    return np.random.RandomState(1000 + level).normal(0.0, 1.0, tuple(shape)).astype(np.float32)


def state(model: str) -> dict:
    shapes = json.loads((HERE / f"{model}.json").read_text())["state_dict"]
    return {key: values(model, key, shape) for key, shape in shapes.items()}


if __name__ == "__main__":
    np.savez(sys.argv[2], **state(sys.argv[1]))
