"""RetinaNet weights of Detectron2 and its model zoo."""

from __future__ import annotations

from pathlib import Path

from detkit.interop.classes import detectron2_columns
from detkit.interop.files import Converted, assemble, count_blocks, count_class_columns
from detkit.interop.names import DETECTRON2
from detkit.interop.weights import find_weights, read_weights
from detkit.utils.pickle_arrays import load_arrays

# Older files carry these; the config tree says the same.
_CONSTANTS = ("pixel_mean", "pixel_std", "anchor_generator.")


def convert_detectron2(
    source: str | Path, *, classes: dict[int, str] | list[str] | None = None, key: str | None = None
) -> Converted:
    """Converts a RetinaNet with a ResNet-FPN, from a zoo .pkl or a .pth of Detectron2's own training.

    classes: names in the order of the columns, or category id -> name; None takes 80 columns for COCO. key: which
    weights of a file that holds several, see `find_weights`. Raises ValueError if the file is not such a model.
    """
    path = Path(source)
    if not path.is_file():
        raise ValueError(f"file not found: {path}")
    weights, notes = find_weights(path, load_arrays(path), key) if path.suffix == ".pkl" else read_weights(path, key)
    state = {name: tensor for name, tensor in weights.items() if not name.startswith(_CONSTANTS)}
    columns = count_class_columns(str(path), state, "head.cls_score.weight", "head.bbox_pred.weight")
    depth = count_blocks(str(path), state, "backbone.bottom_up.res4.{}.conv1.weight")
    kept = detectron2_columns(columns, classes)
    if classes is None and kept.classes.names[0] == "class-1":
        notes.append(f"{columns} classes have no names: set them with --classes")
    overrides = [] if depth == 50 else [f"backbone.depth={depth}"]
    if depth == 101:  # the only one of that depth in the zoo has the 3x schedule; tensors of the others don't show it
        overrides += ["schedule.milestones=[210000, 250000]", "train.iterations=270000"]
    return assemble(str(path), state, "detectron2_r50_fpn.yaml", overrides, kept.classes, DETECTRON2, notes)
