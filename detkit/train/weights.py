"""Starting from another run's weights (`--init-from`): by name and shape, class columns by class name."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from detkit.structures import ClassMap


class Row(NamedTuple):
    """What became of one tensor: `what` is loaded, partly, reinit or unused."""

    name: str
    what: str
    note: str = ""


@torch.no_grad()
def init_from(
    model: nn.Module, weights: dict[str, Tensor], old: ClassMap, new: ClassMap, class_columns: tuple[int, int]
) -> list[Row]:
    """Copies into `model` what fits and tells of every tensor what became of it.

    class_columns: class columns C of the old and of the new head. A tensor whose first axis is
    anchors x C is taken apart: the columns of a class keep their weights if the old run had a class of
    that name, the others stay as initialised. The same happens where the number of classes is equal
    and only names or order differ, because there the shapes alone would mislead.
    """
    rows = []
    state = model.state_dict()
    class_tensors = class_dependent(state, class_columns[1])
    for name, mine in state.items():
        theirs = weights.get(name)
        if theirs is None:
            rows.append(Row(name, "reinit", "not in the checkpoint"))
        elif name in class_tensors and (old.names != new.names or class_columns[0] != class_columns[1]):
            rows.append(_copy_classes(name, mine, theirs, old, new, class_columns))
        elif mine.shape != theirs.shape:
            rows.append(Row(name, "reinit", f"{tuple(theirs.shape)} there, {tuple(mine.shape)} here"))
        else:
            mine.copy_(theirs)
            rows.append(Row(name, "loaded"))
    rows += [Row(name, "unused", "not in this model") for name in weights if name not in state]
    return rows


def class_dependent(state: dict[str, Tensor], columns: int) -> set[str]:
    """Names of the tensors whose first axis runs over class columns: the head's `class_out`."""
    return {
        name
        for name, tensor in state.items()
        if "class_out" in name.split(".") and tensor.ndim > 0 and tensor.shape[0] % columns == 0
    }


def _copy_classes(
    name: str, mine: Tensor, theirs: Tensor, old: ClassMap, new: ClassMap, columns: tuple[int, int]
) -> Row:
    per_cell = mine.shape[0] // columns[1]
    if theirs.shape[0] != per_cell * columns[0] or theirs.shape[1:] != mine.shape[1:]:
        return Row(name, "reinit", f"{tuple(theirs.shape)} there, {tuple(mine.shape)} here")
    target = mine.view(per_cell, columns[1], *mine.shape[1:])
    source = theirs.reshape(per_cell, columns[0], *theirs.shape[1:])
    shared = [n for n in new.names if n in old.names]
    for class_name in shared:
        target[:, new.names.index(class_name)] = source[:, old.names.index(class_name)].to(mine.dtype)
    what = "partly" if shared else "reinit"
    return Row(name, what, f"{len(shared)} of {len(new)} classes have a namesake in the checkpoint")


def format_rows(rows: list[Row]) -> str:
    """A table: the tensors that were not simply loaded, each with the reason, and the counts."""
    lines = [f"  {r.what:7} {r.name:50} {r.note}" for r in rows if r.what != "loaded"]
    counts = {w: sum(r.what == w for r in rows) for w in ("loaded", "partly", "reinit", "unused")}
    return "\n".join([*lines, "  " + ", ".join(f"{n} {w}" for w, n in counts.items())])
