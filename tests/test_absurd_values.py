"""Values that make no sense are refused by name before anything is built, with the place they were written at."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.backbones.base import Backbone
from detkit.config import Config, load_config
from detkit.data.loader import LoaderOptions
from detkit.data.worker import check_workers
from detkit.predict.detector import resolve_device
from detkit.registry import ANCHORS, BACKBONES, BOX_LOSSES, DATASETS, HEADS, NECKS, REGISTRIES, TRANSFORMS
from detkit.structures import FeatureShape
from detkit.train.options import TrainOptions
from detkit.train.run import train
from detkit.train.torch_setup import set_up_torch
from tests.refusals import Refuses

ROOT = Path(__file__).resolve().parent.parent
QUICK = ROOT / "configs/quickstart/shapes.yaml"
IN_SHAPES = {"c3": FeatureShape(channels=8, stride=8), "c4": FeatureShape(channels=8, stride=16)}


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(QUICK)


TABLE = """
seed=-1                               seed: -1 must be a 63-bit integer, 0 or more
seed=1e23                             seed: 1e+23 is not an int
seed=100000000000000000000000         seed: 100000000000000000000000 must be a 63-bit integer, 0 or more
seed=1.0                              seed: 1.0 is not an int: write 1
seed=true                             seed: true is not an int
seed=null                             seed: null is not an int
seed=                                 seed: null is not an int
seed.x=1                              seed: {'x': 1} is not an int
optmizer.lr=1                         optmizer: unknown key at the top level; did you mean optimizer?
optimizer.lrr=1                       optimizer.lrr: unknown key of AdamW; did you mean lr?
optimizer.type=SGD                    optimizer.lr: missing: SGD requires it
optimizer.lr=.inf                     optimizer.lr: inf must be a finite 32-bit number
optimizer.lr=.nan                     optimizer.lr: nan must be a finite 32-bit number
optimizer.lr=1e300                    optimizer.lr: 1e+300 must be a finite 32-bit number
optimizer.eps=-1                      optimizer.eps: -1 must be at least 0
optimizer.norm_weight_decay=-5        optimizer.norm_weight_decay: -5 must be at least 0
optimizer.bias_lr_factor=-1           optimizer.bias_lr_factor: -1 must be at least 0
optimizer.backbone_lr_factor=-1       optimizer.backbone_lr_factor: -1 must be at least 0
optimizer.betas=[]                    optimizer.betas: [] is not a list of 2: float, float
train.iterations=1e3                  train.iterations: 1000.0 is not an int: write 1000
train.iterations=0                    train.iterations: 0 must be at least 1
train.hang_timeout=-1                 train.hang_timeout: -1 must be greater than 0, or null
backbone.out_features=[]              backbone.out_features: [] must be a list of one level or more
train.compile=1                       train.compile: 1 is not a bool
train.lr_batch_size=0                 train.lr_batch_size: 0 must be at least 1, or null
data.loader.batch_size=0              data.loader.batch_size: 0 must be between 1 and 1000000
data.loader.batch_size=10000000       data.loader.batch_size: 10000000 must be between 1 and 1000000
data.loader.num_workers=1000000       data.loader.num_workers: 1000000 must be between 0 and 10000
data.loader.size_divisor=1000000      data.loader.size_divisor: 1000000 must be between 1 and 4096
data.loader.pad_to=[100000,64]        data.loader.pad_to.0: 100000 must be between 1 and 16384
data.loader.pad_to=[64]               data.loader.pad_to: [64] is not a list of 2: int, int or null
pixels.std=[1e30,1,1]                 pixels.std.0: 1e+30 must be greater than 0 and at most 1e+06
evaluator.max_detections=[1,2,10000000]   evaluator.max_detections.2: 10000000 must be between 1 and 100000
losses.box.weight=-1                  losses.box.weight: -1 must be at least 0
assigner.positive=5                   assigner.positive: 5 must be between 0 and 1
data.train.transforms.-1.p=2          data.train.transforms.-1: the list has 2 entries, 0 to 1
data.train.transforms.99.p=2          data.train.transforms.99: the list has 2 entries, 0 to 1
data.train.dataset.split=yes          data.train.dataset.split: true is not one of
backbone.weights=yes                  backbone.weights: true is not a path or a name or null
"""


@pytest.mark.parametrize("line", TABLE.strip().splitlines(), ids=lambda line: line.split()[0])
def test_the_message_names_the_override_and_the_key(line: str) -> None:
    word, _, text = line.partition(" ")
    with pytest.raises(ValueError) as caught:
        load_config(QUICK, [word])
    said = str(caught.value)
    assert any(part in said for part in text.strip().split("|")), said
    assert word in said


def test_no_limit_by_infinity_is_null() -> None:
    loaded = load_config(QUICK, ["train.clip_norm=.inf", "train.max_minutes=.inf"])
    assert loaded.train.clip_norm is None
    assert loaded.train.max_minutes is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("my #1 folder", "my #1 folder"), ("#1", "#1"), ("a#b", "a#b"), ("'a #b'", "a #b"), ("a=b", "a=b"),
     ("\u732b 1", "\u732b 1"), ("'yes'", "yes"), (" spaces in it ", "spaces in it")],
)  # fmt: skip
def test_the_value_of_an_override_is_whole(text: str, value: str) -> None:
    coco = f"data.train.dataset={{type: CocoDataset, annotations: a.json, images: {'x'}}}"
    loaded = load_config(QUICK, [coco, f"data.train.dataset.images={text}"])
    assert Path(loaded.data.train.dataset.images).name == value


@pytest.mark.parametrize("text", ["[a, b] # c", "{a: 1} #c", "'a' # b", "[a #b]"])
def test_what_yaml_would_cut_off_is_told(refuses: Refuses, text: str) -> None:
    with refuses(ValueError):
        load_config(QUICK, [f"data.train.transforms={text}"])


def test_a_warm_up_longer_than_the_training_names_both(refuses: Refuses, config: Config) -> None:
    with refuses(ValueError):
        load_config(QUICK, ["train.iterations=4"]).check_length()
    load_config(QUICK, ["train.iterations=4", "schedule.warmup_iterations=4"]).check_length()
    config.check_length()


PARTS = """
backbone.out_features=[c9]               backbone: ResNet: out_features: ['c9']; ResNet-18 has c2
backbone.stride_in_1x1=true              backbone: ResNet: stride_in_1x1: ResNet-18 has no
backbone={type: MobileNetV3, weights: default}    backbone: MobileNetV3: weights: published weights need reduced_tail
backbone={type: TorchvisionBackbone, name: vgg11, out_features: [c9]}  backbone: TorchvisionBackbone: out_features:
backbone={type: TorchvisionBackbone, name: resnet19}  backbone: TorchvisionBackbone: name: 'resnet19' is not a
neck={type: SSDExtraLevels, channels: [8], strides: [2, 2]}    neck: SSDExtraLevels: channels: [8] must have
neck={type: NoNeck}                      head: SharedTowerHead: all levels share the towers, but their channels differ
anchors={type: SSDAnchors, min_scale: 0.9, max_scale: 0.2}     anchors: SSDAnchors: min_scale: 0.9 must not exceed
anchors={type: SSDAnchors, steps: [8]}   anchors: SSDAnchors: steps: 1 given, but
anchors={type: ExplicitAnchors, sizes: [[[8, 8]]]}             anchors: ExplicitAnchors: sizes: 1 list for
head={type: PerLevelHead, norm: gn}      head: PerLevelHead: norm: gn requires lite: true
backbone.out_features=[c3,c4,c3]         backbone.out_features: c3 is listed more than once
data.classes.class_names=[a,b,a]         data.classes.class_names: a is listed more than once
data.classes.ignore_classes=[a,a]        data.classes.ignore_classes: a is listed more than once
data.classes={class_names: [a], ignore_classes: [a]}  data.classes: a is in both class_names and ignore_classes
anchors.aspect_ratios=[1,2,1]            anchors.aspect_ratios: 1.0 is listed more than once
anchors={type: SSDAnchors, aspect_ratios: [[2], [3, 3]]}  anchors.aspect_ratios.1: 3.0 is listed more than once
hooks=[{type: Freeze, parts: [neck, neck]}]  hooks.0.parts: neck is listed more than once
"""


@pytest.mark.parametrize("line", PARTS.strip().splitlines(), ids=lambda line: line.split()[0])
def test_settings_that_no_training_could_use_are_refused_before_any_data_is_read(line: str) -> None:
    word, text = re.split(r"  +", line)
    with pytest.raises(ValueError) as caught:
        load_config(QUICK, [word]).check()
    assert text in str(caught.value)
    assert text.startswith("head: SharedTowerHead") or f"command line ({word}): {text}" in str(caught.value)


def test_a_batch_that_its_micro_batches_cannot_divide_names_both_settings(refuses: Refuses) -> None:
    config = load_config(QUICK, ["train.accumulate=2", "data.loader.batch_size=3"])
    with refuses(ValueError):
        config.check()


@pytest.mark.parametrize(
    "override", ["seed=yes", "seed=", "neck=null", "backbone=resnet", "loggers=[null]", "moved=yes"]
)
def test_values_are_shown_in_the_words_of_yaml(refuses: Refuses, override: str) -> None:
    with refuses(ValueError):
        load_config(QUICK, [override])


def test_arguments_of_a_transform_are_held_against_each_other() -> None:
    crop = "data.train.transforms.0={type: RandomIoUCrop, min_scale: 0.9, max_scale: 0.5}"
    with pytest.raises(ValueError) as caught:
        load_config(QUICK, [crop])
    assert f"({crop}): data.train.transforms.0.min_scale: 0.9 must not exceed max_scale: 0.5" in str(caught.value)


def test_a_part_that_computes_with_its_weights_is_left_to_the_building() -> None:
    with BACKBONES.temporary():
        BACKBONES.add(Whitened, "Whitened")
        load_config(QUICK, ["backbone={type: Whitened}", "anchors={type: SSDAnchors, steps: [8]}"]).check()


class Whitened(Backbone):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 1 / float(torch.ones(3).std() + 1)
        self.out_shapes = IN_SHAPES


HEAVY: list[tuple[Any, dict[str, Any], str]] = [
    (NECKS, {"type": "FPN", "channels": 10**11}, "channels: 100000000000 must be between 1 and 65536"),
    (NECKS, {"type": "FPN", "channels": -1}, "channels: -1 must be between"),
    (NECKS, {"type": "PAFPN", "extra_levels": 10**9}, "extra_levels: 1000000000 must be between 0 and 10"),
    (NECKS, {"type": "BiFPN", "layers": 10**9}, "layers: 1000000000 must be between 1 and 1000"),
    (NECKS, {"type": "SSDExtraLevels", "channels": [10**9], "strides": [2]}, "channels.0: 1000000000 must be between"),
    (HEADS, {"type": "SharedTowerHead", "num_convs": 10**6}, "num_convs: 1000000 must be between 0 and 1000"),
    (ANCHORS, {"type": "OctaveAnchors", "scales_per_octave": 10**9}, "scales_per_octave: 1000000000 must be between"),
    (ANCHORS, {"type": "OctaveAnchors", "base_scale": 0.0}, "base_scale: 0 must be between"),
    (ANCHORS, {"type": "OctaveAnchors", "aspect_ratios": []}, "aspect_ratios: [] must be a list of at least 1"),
    (ANCHORS, {"type": "TorchvisionAnchors", "aspect_ratios": [-1.0]}, "aspect_ratios.0: -1 must be between"),
    (BACKBONES, {"type": "VGG", "width": 1e5}, "width: 100000 must be between 0.015625 and 16"),
    (BACKBONES, {"type": "ResNet", "depth": 18, "in_channels": -1}, "in_channels: -1 must be between"),
    (TRANSFORMS, {"type": "Resize", "height": 64, "width": 100_000}, "width: 100000 must be between 1 and 16384"),
    (TRANSFORMS, {"type": "ResizeShortestEdge", "short": 10**9}, "short: 1000000000 must be between 1 and 16384"),
    (TRANSFORMS, {"type": "RandomCrop", "height": 0, "width": 64}, "height: 0 must be between"),
    (TRANSFORMS, {"type": "RandomIoUCrop", "trials": -1}, "trials: -1 must be between"),
    (TRANSFORMS, {"type": "RandomIoUCrop", "min_scale": 0.0}, "min_scale: 0 must be between"),
    (TRANSFORMS, {"type": "RandomZoomOut", "side_range": [1.0, 1e9]}, "side_range.1: 1000000000 must be between"),
    (TRANSFORMS, {"type": "ColorJitter", "hue": 3.0}, "hue: 3 must be between"),
    (
        TRANSFORMS,
        {"type": "RandomPhotometricDistort", "contrast": [2.0, 1.0]},
        "contrast: [2, 1] must be in ascending order",
    ),
    (DATASETS, {"type": "ShapesDataset", "num_images": 10**12}, "num_images: 1000000000000 must be between"),
    (DATASETS, {"type": "ShapesDataset", "seed": -1}, "seed: -1 must be a 63-bit integer"),
    (BOX_LOSSES, {"type": "L1Loss", "weight": -1.0}, "weight: -1 must be at least 0"),
]


@pytest.mark.parametrize(
    ("registry", "node", "text"), HEAVY, ids=lambda x: x.get("type") if isinstance(x, dict) else ""
)
def test_a_part_of_absurd_size_is_refused_by_name(registry: Any, node: dict[str, Any], text: str) -> None:
    handed: dict[str, Any] = {"in_shapes": IN_SHAPES, "strides": (8, 16), "in_channels": (8, 8)}
    handed |= {"anchors_per_cell": (1, 1), "num_columns": 2, "class_bias": None}
    with pytest.raises(ValueError) as caught:
        registry.build(node, **{key: value for key, value in handed.items() if key in registry.derived})
    assert f"{node['type']}: {text}" in str(caught.value)


def test_a_part_that_memory_can_not_hold_is_named_with_its_sizes(refuses: Refuses) -> None:
    import torch

    from detkit.backbones.base import Backbone

    with BACKBONES.temporary():

        class HugeNet(Backbone):
            """Fills the memory."""

            def __init__(self, *, width: int = 64) -> None:
                super().__init__()
                self.weight = torch.empty(width, 10**9, 10**9)

        BACKBONES.add(HugeNet, "HugeNet")
        with refuses(ValueError):
            BACKBONES.build({"type": "HugeNet", "width": 7})


def test_an_error_of_a_data_set_s_own_has_class_line_and_key(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from detkit.data.datasets.base import DetectionDataset\n"
        "from detkit.registry import DATASETS\n"
        "@DATASETS.register()\n"
        "class MissingFiles(DetectionDataset):\n"
        '    """Reads a file that is not there."""\n'
        "    def __init__(self, *, root: str) -> None:\n"
        "        open(root)\n",
        encoding="utf-8",
    )
    (tmp_path / "c.yaml").write_text(
        f"_base_: {QUICK}\nimports: [./mine.py]\ndata:\n  train:\n    dataset: {{type: MissingFiles, root: gone}}\n",
        encoding="utf-8",
    )
    with DATASETS.temporary():
        loaded = load_config(tmp_path / "c.yaml")
        with pytest.raises(FileNotFoundError) as caught:
            loaded.build(DATASETS, "data.train.dataset")
    assert str(caught.value).startswith(f"{tmp_path / 'c.yaml'}:5: data.train.dataset: MissingFiles (mine.py:7): gone")


def test_what_a_machine_can_not_do_is_refused(refuses: Refuses) -> None:
    with refuses(ValueError):
        check_workers(9999)
    check_workers(LoaderOptions().num_workers)
    with refuses(ValueError):
        set_up_torch(TrainOptions(iterations=1, threads=99_999))
    for name in ("gpu", "meta", "cuda:99", "cpu:cpu"):
        with refuses(ValueError):
            resolve_device(name)


def test_defaults_of_every_part_are_numbers_that_a_config_may_hold() -> None:
    for registry in REGISTRIES:
        for name in registry.names():
            assert registry.arguments(name) is not None


def test_too_many_loader_processes_are_told_with_their_place_before_data_are_read(
    refuses: Refuses, tmp_path: Path
) -> None:
    config = load_config(QUICK, ["data.loader.num_workers=9999", "data.train.dataset.num_images=1000000"])
    with refuses(ValueError):
        train(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_an_override_below_a_plain_value_is_an_error() -> None:
    with pytest.raises(ValueError) as caught:
        load_config(QUICK, ["pixels.mean=[1,2,3]", "pixels.mean.0.x=1"])
    assert str(caught.value) == "override 'pixels.mean.0.x=1': pixels.mean.0 is 1, which has no keys"
