"""Finds the weights of a detector in what a file holds, however they are wrapped."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from detkit.registry.arguments import nearest
from detkit.utils.pickles import Unread, load_torch, tensors_by_name

WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
"""What DDP, torch.compile, FSDP and checkpointing put between the parts of a name."""
ROOTS = ("backbone", "head")
"""Beginnings of the names of a detector, in torchvision and Detectron2 alike."""
COUNTERS = ("n_averaged", "num_updates", "decay")
"""What an average keeps beside weights."""
AVERAGED = re.compile(r"(^|[._])(ema|swa|averaged?|avg|shadow)([._]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Found:
    """Tensors by name. notes: what was chosen and what was left, for the user."""

    state: dict[str, Tensor]
    notes: list[str]


def read_weights(path: Path, key: str | None = None) -> Found:
    """A file of `torch.save` -> the state dict of a detector in it; see `find_weights`."""
    content, unread = load_torch(path)
    if isinstance(content, dict) and {"format", "classes", "config", "model"} <= set(content):
        raise ValueError(f"{path} is a checkpoint of detkit already: use it as it is")
    found = find_weights(path, content, key)
    if unread:
        some = ", ".join(unread[:4]) + (", ..." if len(unread) > 4 else "")
        found.notes.append(f"{path} asks for classes that are not read, and nothing of them was run: {some}")
    return found


def find_weights(path: Path, content: Any, key: str | None = None) -> Found:
    """The state dict within what a file holds: under any keys, with any prefix, without the names of wrappers.

    key: which of several to take. Without it averaged weights (ema, swa, average or shadow in the name) come before
    others, then the name with the fewest parts, then the first in the file. Where averaged weights lack tensors that
    the others have (an average of the parameters alone), these come from there. Raises ValueError if there is none.
    """
    if not isinstance(content, (dict, list, tuple)) or not content:
        raise ValueError(f"{path} holds {type(content).__name__}, not names with tensors")
    try:
        entries = tensors_by_name(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    states = _states(entries, content if isinstance(content, dict) else ())
    tensors = [name for name, value in entries.items() if isinstance(value, Tensor)]
    if not tensors:
        kind = "an object" if isinstance(content, Unread) else type(content).__name__
        raise ValueError(f"{path} holds {kind}, not names with tensors: save the state_dict() of the model")
    if not states:
        raise ValueError(
            f"{path} is not a RetinaNet or SSD: no names that begin with backbone and head among its {len(tensors)} "
            f"tensors ({', '.join(tensors[:3])}, ...); {_inside(content)}"
        )
    name = _choose(path, list(states), key)
    others = [other for other in states if other != name]
    state, added = _completed(name, states)
    notes = _told(name, others, content) + added
    wrong = [f"{k} ({type(v).__name__})" for k, v in state.items() if not isinstance(v, Tensor)]
    if wrong:
        raise ValueError(f"{path}: {len(wrong)} entries are not tensors: {', '.join(wrong[:4])}")
    return Found(state, notes)


def _states(entries: dict[str, Any], top: Collection[str]) -> dict[str, dict[str, Any]]:
    """Prefix -> what is below it, where both roots are; names without wrappers. top: the keys of the file itself."""
    cleaned = {full: [part for part in full.split(".") if part not in WRAPPERS] for full in entries}
    below: dict[str, dict[str, Any]] = {}
    for full, parts in cleaned.items():
        at = next((i for i, part in enumerate(parts) if part in ROOTS), None)
        if at is not None:
            below.setdefault(".".join(parts[:at]), {})[".".join(parts[at:])] = entries[full]
    states = {prefix: state for prefix, state in below.items() if all(_has(state, root) for root in ROOTS)}
    for prefix, state in states.items():
        for full, parts in cleaned.items():  # what belongs to neither root is for the converter to refuse
            name = ".".join(parts).removeprefix(f"{prefix}." if prefix else "")
            beside = name != ".".join(parts) if prefix else full in top and isinstance(entries[full], Tensor)
            if beside and not {*ROOTS, *COUNTERS} & set(parts):
                state[name] = entries[full]
    return states


def _has(state: dict[str, Any], root: str) -> bool:
    return any(name.startswith(f"{root}.") and isinstance(value, Tensor) for name, value in state.items())


def _choose(path: Path, names: list[str], key: str | None) -> str:
    if key is not None:
        fits = [n for n in names if n == key] or [n for n in names if n.startswith(f"{key}.")]
        if not fits:
            known = ", ".join(n or "(the top)" for n in names)
            raise ValueError(f"--key {key!r}: {path} has no weights there{nearest(key, names)} It has: {known}")
        names = fits
    return min(names, key=lambda n: (not AVERAGED.search(n), len(n.split(".")) if n else 0))


def _completed(name: str, states: dict[str, dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """A state, with what averaged weights lack of the others, and a remark on that."""
    state = states[name]
    for other, theirs in states.items():
        if AVERAGED.search(name) and not AVERAGED.search(other) and set(theirs) > set(state):
            missing = [k for k in theirs if k not in state]
            note = f"{len(missing)} tensors that `{name}` lacks are from `{other}`: {missing[0]}, ..."
            return {**theirs, **state}, [note]
    return dict(state), []


def _told(name: str, others: list[str], content: Any) -> list[str]:
    """What was taken, unless the file is a plain state dict."""
    if not name and not others:
        return []
    what = (f"`{name}`" if name else "those at the top") + (" (averaged)" if AVERAGED.search(name) else "")
    left = ", ".join(f"`{other}`" if other else "the top" for other in others)
    rest = f"also in the file: {left} (--key takes another)" if others else _inside(content)
    return [f"weights taken: {what}; {rest}"]


def _inside(content: Any) -> str:
    """The keys of a file, for a message."""
    if not isinstance(content, dict):
        return f"the file holds a {type(content).__name__} of {len(content)}"
    keys = [str(k) for k in content]
    return f"the file holds {', '.join(keys[:6])}{', ...' if len(keys) > 6 else ''}"


def as_tensors(content: Any) -> Any:
    """The same mapping with tensors instead of arrays of numpy."""
    import numpy as np
    import torch

    if isinstance(content, dict):
        return {k: as_tensors(v) for k, v in content.items()}
    return torch.from_numpy(content) if isinstance(content, np.ndarray) else content
