"""Steps that all converters share: a config tree and tensors become a detector, and that a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from detkit.checkpoint import Checkpoint
from detkit.config import Config, load_config
from detkit.detectors.build import build_detector
from detkit.detectors.dense import DenseDetector
from detkit.interop.names import Rules, take_by_name
from detkit.structures import ClassMap

CONFIGS = Path(__file__).resolve().parent
NUM_ANCHORS = 9


@dataclass
class Converted:
    """A detector with foreign weights, the config that built it, its classes, and notes for the user."""

    detector: DenseDetector
    config: Config
    classes: ClassMap
    notes: list[str]


def count_class_columns(source: str, state: Mapping[str, Tensor], class_name: str, box_name: str) -> int:
    """The number of class columns, from the head's last two weights; ValueError if it is not a RetinaNet's head."""
    absent = [name for name in (class_name, box_name) if name not in state]
    if absent:
        raise ValueError(
            f"{source} is not a RetinaNet of this kind: {absent[0]} is not among its {len(state)} tensors "
            f"({', '.join(list(state)[:3])}, ...)"
        )
    anchors = state[box_name].shape[0] // 4
    if anchors != NUM_ANCHORS:
        raise ValueError(f"{source}: {anchors} anchors per cell; detkit converts only models with {NUM_ANCHORS}")
    return state[class_name].shape[0] // anchors


def count_blocks(source: str, state: Mapping[str, Tensor], template: str) -> int:
    """The depth of a ResNet, from the blocks of its third stage; `template` is the name of their first weight."""
    third = next((n for n in range(100) if template.format(n) not in state), 0)
    wide = template.replace("conv1", "conv3").format(0) in state
    depths = {(6, True): 50, (23, True): 101, (36, True): 152, (2, False): 18, (6, False): 34}
    if (third, wide) not in depths:
        raise ValueError(f"{source}: {third} blocks in the third stage: not a ResNet-18, -34, -50, -101 or -152")
    return depths[third, wide]


def assemble(
    source: str,
    state: Mapping[str, Tensor],
    tree: str,
    overrides: Sequence[str],
    classes: ClassMap,
    rules: Rules,
    notes: list[str],
) -> Converted:
    """Builds the detector of a config tree of detkit, changed by `overrides`, with the tensors of `state`."""
    config = load_config(CONFIGS / tree, list(overrides))
    detector = build_detector(config, len(classes))
    initial = detector.state_dict()  # a normaliser's memory is in no foreign file
    expected = {name: tensor for name, tensor in initial.items() if name.startswith(("backbone.", "neck.", "head."))}
    detector.load_state_dict({**initial, **take_by_name(source, state, expected, rules)})
    return Converted(detector.eval(), config, classes, notes)


def as_checkpoint(converted: Converted) -> Checkpoint:
    """A converted detector as a checkpoint of step 0."""
    weights = {name: tensor.contiguous() for name, tensor in converted.detector.state_dict().items()}
    return Checkpoint(step=0, seed=0, model=weights, config=converted.config.to_dict(), classes=converted.classes)
