"""Finds the weights of a detector in a file, however they are wrapped."""

from __future__ import annotations

import re
from collections.abc import Collection, Sized
from pathlib import Path

from torch import Tensor

from detkit.registry.arguments import nearest
from detkit.utils.console import shorten_list
from detkit.utils.pickles import Unread, load_torch, tensors_by_name

WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
"""Parts that DDP, torch.compile, FSDP and checkpointing add to a name."""
ROOTS = ("backbone", "head")
"""First parts of the names of a detector, in torchvision and Detectron2 alike."""
COUNTERS = ("n_averaged", "num_updates", "decay")
"""Entries of averaged weights that are not weights."""
AVERAGED = re.compile(r"(^|[._])(ema|swa|averaged?|avg|shadow)([._]|$)", re.IGNORECASE)


def read_weights(path: Path, key: str | None = None) -> tuple[dict[str, Tensor], list[str]]:
    """Reads the state dict of a detector from a file of `torch.save`; see `find_weights`."""
    content, unread = load_torch(path)
    if isinstance(content, dict) and {"format", "classes", "config", "model"} <= set(content):
        raise ValueError(f"{path} is already a detkit checkpoint: use it directly")
    state, notes = find_weights(path, content, key)
    if unread:
        notes.append(f"{path} names classes that detkit does not read or run: {shorten_list(unread, 4)}")
    return state, notes


def find_weights(path: Path, content: Sized, key: str | None = None) -> tuple[dict[str, Tensor], list[str]]:
    """Finds the state dict in the content of a file, under any keys and prefix; wrappers are cut from its names.

    Returns also notes for the user: which weights were chosen, and what else the file holds.
    key: which of several to take. Without it averaged weights (ema, swa, average or shadow in the name) come before
    others, then the name with the fewest parts, then the first in the file. Tensors that averaged weights
    lack (an average of the parameters alone) come from the others. Raises ValueError if there is none.
    """
    try:
        entries = tensors_by_name(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    states = _states(entries, content if isinstance(content, dict) else ())
    tensors = [name for name, value in entries.items() if isinstance(value, Tensor)]
    if not tensors or isinstance(content, Tensor):
        kind = "an object" if isinstance(content, Unread) else type(content).__name__
        raise ValueError(f"{path} holds {kind}, not names with tensors: save the state_dict() of the model")
    if not states:
        raise ValueError(
            f"{path} is not a RetinaNet or SSD: no names that begin with backbone and head among its {len(tensors)} "
            f"tensors ({', '.join(tensors[:3])}, ...); {_describe_content(content)}"
        )
    name = _choose(path, list(states), key)
    others = [other for other in states if other != name]
    state, added = _completed(name, states)
    weights = {k: v for k, v in state.items() if isinstance(v, Tensor)}
    if wrong := [f"{k} ({type(v).__name__})" for k, v in state.items() if k not in weights]:
        raise ValueError(f"{path}: {len(wrong)} entries are not tensors: {shorten_list(wrong, 4)}")
    return weights, _describe_choice(name, others, content) + added


def _states(entries: dict[str, object], top: Collection[str]) -> dict[str, dict[str, object]]:
    """State dicts by prefix, of the prefixes below which both roots are; top: the keys of the file itself."""
    cleaned = {full: [part for part in full.split(".") if part not in WRAPPERS] for full in entries}
    below: dict[str, dict[str, object]] = {}
    for full, parts in cleaned.items():
        at = next((i for i, part in enumerate(parts) if part in ROOTS), None)
        if at is not None:
            below.setdefault(".".join(parts[:at]), {})[".".join(parts[at:])] = entries[full]
    states = {prefix: state for prefix, state in below.items() if all(_has(state, root) for root in ROOTS)}
    for prefix, state in states.items():
        for full, parts in cleaned.items():  # the converter refuses what belongs to neither root
            name = ".".join(parts).removeprefix(f"{prefix}." if prefix else "")
            is_beside = name != ".".join(parts) if prefix else full in top and isinstance(entries[full], Tensor)
            if is_beside and not {*ROOTS, *COUNTERS} & set(parts):
                state[name] = entries[full]
    return states


def _has(state: dict[str, object], root: str) -> bool:
    return any(name.startswith(f"{root}.") and isinstance(value, Tensor) for name, value in state.items())


def _choose(path: Path, names: list[str], key: str | None) -> str:
    if key is not None:
        fits = [n for n in names if n == key] or [n for n in names if n.startswith(f"{key}.")]
        if not fits:
            known = ", ".join(n or "(the top level)" for n in names)
            raise ValueError(f"--key {key!r}: {path} has no weights of that name{nearest(key, names)} It has: {known}")
        names = fits
    return min(names, key=lambda n: (not AVERAGED.search(n), len(n.split(".")) if n else 0))


def _completed(name: str, states: dict[str, dict[str, object]]) -> tuple[dict[str, object], list[str]]:
    """A state dict, completed by the tensors that averaged weights lack, and a note on these."""
    state = states[name]
    for other, tensors in states.items():
        if AVERAGED.search(name) and not AVERAGED.search(other) and set(tensors) > set(state):
            missing = [k for k in tensors if k not in state]
            note = f"{len(missing)} tensors that are missing in `{name}` come from `{other}`: {missing[0]}, ..."
            return {**tensors, **state}, [note]
    return dict(state), []


def _describe_choice(name: str, others: list[str], content: Sized) -> list[str]:
    """Notes on which weights were taken; none for a plain state dict."""
    if not name and not others:
        return []
    what = (f"`{name}`" if name else "the top level") + (" (averaged)" if AVERAGED.search(name) else "")
    left = ", ".join(f"`{other}`" if other else "the top level" for other in others)
    rest = f"also in the file: {left} (--key takes another)" if others else _describe_content(content)
    return [f"weights taken: {what}; {rest}"]


def _describe_content(content: Sized) -> str:
    """The keys of a file, for a message."""
    if not isinstance(content, dict):
        return f"the file holds a {type(content).__name__} of {len(content)}"
    return f"the file holds {shorten_list(list(content), 6)}"
