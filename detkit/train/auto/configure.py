"""From a data set to the config that `detkit train DATA` trains."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from detkit.analyze.anchor_coverage import read_samples
from detkit.analyze.anchor_fit import fit
from detkit.config import Config
from detkit.data.build import build_datasets, build_transforms
from detkit.data.datasets.base import DetectionDataset
from detkit.data.datasets.splits import SplitOptions, split_lists
from detkit.data.scan import apply_bad_images, scan_images
from detkit.detectors.build import build_pyramid
from detkit.registry import ASSIGNERS, DATASETS
from detkit.train.auto import rules
from detkit.train.auto.backbones import choose_start
from detkit.train.auto.choices import Choices, to_yaml
from detkit.train.auto.facts import Facts, read_facts
from detkit.train.auto.source import find_splits
from detkit.train.auto.timing import step_seconds
from detkit.train.torch_setup import uses_gpu
from detkit.utils.cores import usable_cores
from detkit.utils.types import Tree

log = logging.getLogger("detkit")

PER_CELL = 3
SPLITS = "splits"
"""Folder, in the run folder, of the lists of a split that was made."""
FITTED_IMAGES = 500
"""Images whose objects anchors are fitted to."""
OPENED_SECONDS = 5.0
"""Time for decoding the images of a split; of those that are left, only headers are read."""
BF16_GAIN = 1.15
"""How much faster a step must be for bfloat16 to be chosen."""


def usable(dataset: DetectionDataset) -> DetectionDataset:
    """The data set as `data.images.bad_images` says; BadImagesError that names images and the way out."""
    decode_all = dataset.image_options.bad_images != "error"
    result = scan_images(dataset, range(len(dataset)), seconds=None if decode_all else OPENED_SECONDS)
    return apply_bad_images(dataset, result)


class Configurator:
    """Chooses a config step by step; each step sees the choices before it, and what the command line gives.

    place: file or folder of the data. overrides: `key=value` of the command line. minutes: time for all of it.
    folder: of the run, where lists of splits are written that are made.
    """

    def __init__(self, place: str, overrides: Sequence[str], minutes: float, folder: Path) -> None:
        self.place, self.minutes, self.folder = place, minutes, folder
        self.choices, self.started = Choices(rules.BASE, overrides), time.monotonic()
        self.notes: list[str] = []

    def run(self) -> Config:
        """Makes all choices; returns the config."""
        choices = self.choices
        self.choose_data()
        choices.choose("train.iterations", 100)
        config = choices.config()
        on_gpu = uses_gpu(config.options("train").device)
        train_set, val_set = map(usable, build_datasets(config))
        facts = read_facts(train_set)
        given = config.to_dict()["backbone"].get("weights") if choices.is_given("backbone.weights") else None
        start = choose_start(given, on_gpu=on_gpu)
        rules.choose_network(choices, start, on_gpu=on_gpu)
        rules.choose_batch(choices, facts, usable_cores(), on_gpu=on_gpu)
        rules.choose_detections(choices, facts)
        batch = choices.config().options("data.loader").batch_size
        rules.choose_optimizer(choices, batch, pretrained=start.weights is not None)
        choices.choose("train.clip_norm", 10.0)
        choices.choose("train.channels_last", True, "faster convolutions")
        side, why = rules.choose_side(facts, on_gpu=on_gpu)
        size = rules.size_of(side, facts, why)
        self.choose_size(facts, size, train_set)
        step = self.choose_precision(train_set)
        seconds = 60 * self.minutes * rules.TRAINING_PART
        possible = rules.passes(seconds, step, batch, facts.images)
        if (smaller := rules.shrink(side, possible)) < 0.9 * side:
            why = f"{why}; then less, as {self.minutes:g} minutes would only be enough for {possible:.2g} passes"
            size = rules.size_of(smaller, facts, why)
            self.choose_size(facts, size, train_set)
            step = step_seconds(choices.config(), train_set)
            possible = rules.passes(seconds, step, batch, facts.images)
        if possible >= rules.STRONG_FROM:
            self.choose_size(facts, size, train_set, strong=True)
        spent = time.monotonic() - self.started
        rules.choose_length(choices, facts, batch, step, self.minutes, len(val_set), spent=spent)
        if choices.is_given("train.iterations"):
            rules.follow_length(choices, choices.config().options("train").iterations, 4)
        return choices.config()

    def choose_data(self) -> None:
        """The splits."""
        splits = find_splits(self.place)
        self.notes += splits.notes
        nodes = {"train": splits.train, "val": splits.val} if splits.val is not None else self.make_split(splits.train)
        for name in ("train", "val"):
            self.choices.choose(f"data.{name}.dataset", nodes[name], splits.notes[0] if name == "train" else "")
            self.choices.choose(f"data.{name}.transforms", [])

    def make_split(self, node: Tree) -> dict[str, Tree]:
        """Puts a part of the images aside for validation; the lists are in the run folder, so that the split stays."""
        folder = (self.folder / SPLITS).absolute()
        node = {**node, **self.choices.take("data.train.dataset")}  # of the reader, not of the subset that it becomes
        dataset: DetectionDataset = DATASETS.build(node)
        lists = split_lists(dataset, SplitOptions(file=str(folder)))
        self.notes.append(
            f"{len(lists['val'])} of {len(dataset)} images are put aside for validation: {folder}/val.txt"
        )
        return {
            name: {"type": "SubsetDataset", "dataset": node, "images": str(folder / f"{name}.txt")} for name in lists
        }

    def choose_size(self, facts: Facts, size: rules.Size, dataset: DetectionDataset, *, strong: bool = False) -> None:
        """Size, transforms, levels and anchors."""
        rules.choose_transforms(self.choices, facts, size, strong=strong)
        rules.choose_levels(self.choices, facts, size)
        self.choose_anchors(dataset)

    def choose_anchors(self, dataset: DetectionDataset) -> None:
        """Anchors that fit the objects as the network sees them."""
        self.choices.forget("anchors")  # those of other levels
        config = self.choices.config()
        assigner = ASSIGNERS.build(config.assigner)
        strides = [shape.stride for shape in build_pyramid(config)[1].out_shapes.values()]
        loader, transforms = config.options("data.loader"), build_transforms(config, "train")
        samples = list(read_samples(dataset, transforms, loader, seed=0, limit=FITTED_IMAGES, read_images=True))
        positive = assigner.positive_iou or 0.5
        sizes, coverage = fit(samples, strides, PER_CELL, positive)
        reached = f"{100 * coverage.recall(positive):.1f} % of the objects have an anchor of IoU >= {positive:g}"
        anchors = {"type": "ExplicitAnchors", "sizes": [[list(shape) for shape in level] for level in sizes]}
        self.choices.choose("anchors", anchors, f"fitted to the objects: {reached}")

    def choose_precision(self, dataset: DetectionDataset) -> float:
        """The faster of float32 and bfloat16; returns the seconds of a step."""
        full = step_seconds(self.choices.config(), dataset)
        if self.choices.is_given("train.precision"):
            return full
        self.choices.choose("train.precision", "bf16")
        half = step_seconds(self.choices.config(), dataset)
        measured = f"measured: {half:.3g} s a step in bf16, {full:.3g} s in fp32"
        if full > BF16_GAIN * half:
            self.choices.choose("train.precision", "bf16", measured)
            return half
        self.choices.choose("train.precision", "fp32", measured)
        return full

    def text(self, config: Config, command: str) -> str:
        """The file: the complete config, with the reasons as comments."""
        head = [f"Written by `{command}`.", "Train it again by `detkit train` and the name of this file.", *self.notes]
        return to_yaml(config.to_dict(), self.choices.comments(config), head)
