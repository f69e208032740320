"""Starting from another run's weights (`--init-from`): by name and shape, class columns by class name."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from detkit.structures import ClassMap
from detkit.train.meaning import Differences


class LoadedTensor(NamedTuple):
    """What happened to one tensor."""

    name: str
    status: Literal["loaded", "partly", "reinit", "unused"]
    note: str = ""


@torch.no_grad()
def init_from(
    model: nn.Module,
    weights: dict[str, Tensor],
    old: ClassMap,
    new: ClassMap,
    class_columns: tuple[int, int],
    changed: Differences | None = None,
) -> list[LoadedTensor]:
    """Copies into `model` what fits and reports what happened to every tensor.

    class_columns: class columns C of the old and of the new head. A tensor whose first axis is
    anchors x C is taken apart: the columns of a class keep their weights if the old run had a class of
    that name, the others stay as initialised. The same happens where the number of classes is equal
    and only names or order differ, because there the shapes alone would mislead. changed: where the numbers of the last
    layers mean something else in this config; these stay as initialised, and the towers before them are loaded.
    """
    rows, changed = [], changed or Differences()
    state = model.state_dict()
    per_cell = getattr(getattr(model, "anchors", None), "per_cell", None)
    class_tensors = last_layers(state, "class_out", class_columns[1], per_cell)
    box_tensors = last_layers(state, "box_out", 4, per_cell)
    for name, tensor in state.items():
        saved = weights.get(name)
        reason = changed.of_classes(class_tensors[name]) if name in class_tensors else ""
        if name in box_tensors:
            reason = changed.of_boxes(box_tensors[name])
        if saved is None:
            rows.append(LoadedTensor(name, "reinit", "not in the checkpoint"))
        elif reason:
            rows.append(LoadedTensor(name, "reinit", reason))
        elif name in class_tensors and (old.names != new.names or class_columns[0] != class_columns[1]):
            rows.append(_copy_classes(name, tensor, saved, old, new, class_columns))
        elif tensor.shape != saved.shape:
            rows.append(LoadedTensor(name, "reinit", f"{tuple(saved.shape)} there, {tuple(tensor.shape)} here"))
        else:
            tensor.copy_(saved)
            rows.append(LoadedTensor(name, "loaded"))
    rows += [LoadedTensor(name, "unused", "not in this model") for name in weights if name not in state]
    return rows


def last_layers(
    state: dict[str, Tensor], branch: str, columns: int, per_cell: tuple[int, ...] | None = None
) -> dict[str, int | None]:
    """Tensors of the last layer of a head's branch, `class_out` or `box_out` -> their level, None if they serve all.

    Their first axis is anchors x columns. per_cell: anchors a cell of each level, where it is known; a layer before the
    last may have a width that the columns divide by chance.
    """
    branches: dict[tuple[str, int | None], dict[str, list[str]]] = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if branch not in parts or tensor.ndim == 0:
            continue
        at = parts.index(branch) + 1
        level = int(parts[at]) if parts[at].isdigit() and len(parts) > at + 1 else None
        counts = per_cell and ({per_cell[level]} if level is not None and level < len(per_cell) else set(per_cell))
        fits = tensor.shape[0] % columns == 0 if not counts else tensor.shape[0] in {n * columns for n in counts}
        if fits:
            layers = branches.setdefault((".".join(parts[:at]), level), {})
            layers.setdefault(name.rpartition(".")[0], []).append(name)
    return {name: level for (_, level), layers in branches.items() for name in list(layers.values())[-1]}


def _copy_classes(
    name: str, tensor: Tensor, saved: Tensor, old: ClassMap, new: ClassMap, columns: tuple[int, int]
) -> LoadedTensor:
    per_cell = tensor.shape[0] // columns[1]
    if saved.shape[0] != per_cell * columns[0] or saved.shape[1:] != tensor.shape[1:]:
        return LoadedTensor(name, "reinit", f"{tuple(saved.shape)} there, {tuple(tensor.shape)} here")
    target = tensor.view(per_cell, columns[1], *tensor.shape[1:])
    source = saved.reshape(per_cell, columns[0], *saved.shape[1:])
    shared = [n for n in new.names if n in old.names]
    for class_name in shared:
        target[:, new.names.index(class_name)] = source[:, old.names.index(class_name)].to(tensor.dtype)
    return LoadedTensor(
        name, "partly" if shared else "reinit", f"{len(shared)} of {len(new)} classes have a namesake in the checkpoint"
    )


def format_rows(rows: list[LoadedTensor]) -> str:
    """A table: the tensors that were not simply loaded, each with the reason, and the counts."""
    lines = [f"  {r.status:7} {r.name:50} {r.note}" for r in rows if r.status != "loaded"]
    counts = {w: sum(r.status == w for r in rows) for w in ("loaded", "partly", "reinit", "unused")}
    return "\n".join([*lines, "  " + ", ".join(f"{n} {w}" for w, n in counts.items())])
