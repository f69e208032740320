"""Faults against the checks that parts with weights share, and against copying, which all share."""

from __future__ import annotations

from itertools import count
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.testing.planted import SOUND, Fault, fault, vanishing

OWN_DICE = np.random.default_rng()
"""A generator that no seed reaches."""
CALLS = count()
"""A memory from call to call; of numbers up to 7, so that those of two forwards are never the same by chance."""
MEMORY = ("training_state_is_in_the_checkpoint", "evaluation_remembers_nothing")
"""What a part with a memory of its own breaks besides."""


def in_modules(check: str, seen: str, *, head_also: tuple[str, ...] = (), **change: Any) -> list[Fault]:
    """The same fault in a backbone, a neck and a head."""
    also = change.pop("also", ())
    return [
        fault(slot, check, seen, also=also + (head_also if slot == "heads" else ()), **change)
        for slot in ("backbones", "necks", "heads")
    ]


def keep_as(name: str, make: Any) -> Any:
    return lambda self: setattr(self, name, make())


UNCOPIED = ("datasets", "hooks", "loggers")
"""Slots whose parts are not copied, or have a check of their own."""
FAULTS = [
    *in_modules(
        "gradients_reach_every_parameter",
        r"no gradient reaches spare\.weight, spare\.bias",
        init=keep_as("spare", lambda: nn.Linear(2, 2)),
        head_also=("takes_other_numbers_of_levels", "serves_the_coder_and_the_quality_loss"),
    ),
    *in_modules(
        "gradients_reach_every_parameter",
        r"the gradient of \w+.* is not finite",
        outputs=lambda self, t: t + (t - t.detach()).abs().sqrt(),  # the slope of a root at 0
        head_also=("rows_run_over_cells_row_by_row",),
    ),
    *in_modules(
        "eval_is_deterministic",
        "the same input twice in eval mode: output 0 differs by",
        outputs=lambda self, t: t + 0.01 * (next(CALLS) % 7),
        also=("eval_looks_at_each_image_alone", "channels_last_gives_the_same", "state_dict_round_trip", *MEMORY),
    ),
    *in_modules(
        "eval_draws_no_random_numbers",
        "generator moved",
        outputs=lambda self, t: (torch.rand(1), t)[1],
    ),
    *in_modules(
        "same_seed_same_weights",
        "differs between two parts built with seed 1",
        init=lambda self: next(self.parameters()).data.add_(1e-3 * float(OWN_DICE.random())),
    ),
    *in_modules(
        "eval_looks_at_each_image_alone",
        "an image alone and in a batch of two: output 0 differs by",
        inputs=lambda self, t: t - t.mean(dim=0),
    ),
    *in_modules(
        "forward_keeps_the_mode",
        r"train\(False\) leaves training=True",
        outputs=lambda self, t: (self.train(), t)[1],
    ),
    *in_modules(
        "forward_keeps_the_mode",
        "forward in training=True changed a mode",
        outputs=lambda self, t: ([m.eval() for m in self.children()], t)[1],
    ),
    *in_modules(
        "channels_last_gives_the_same",
        "channels_last against contiguous: output 0 differs by",
        inputs=lambda self, t: t.as_strided(t.shape, torch.empty(t.shape, device="meta").stride()),
    ),
    *in_modules(
        "channels_last_gives_the_same",
        "a forward in channels_last raises RuntimeError: view",
        inputs=lambda self, t: (t.view(len(t), -1), t)[1],
    ),
    *in_modules(
        "autocast_is_finite",
        "output 0 is not finite under bfloat16",
        outputs=lambda self, t: t + vanishing(t),
    ),
    *in_modules(
        "autocast_is_finite",
        "a forward under bfloat16 autocast raises RuntimeError",
        outputs=lambda self, t: torch.zeros(t.shape).index_add(0, torch.arange(len(t)), t),
    ),
    *in_modules(
        "compiles_to_one_graph",
        r"torch\.compile\(fullgraph=True\) raises",
        outputs=lambda self, t: (torch._dynamo.graph_break(), t)[1],
    ),
    *in_modules(
        "compiles_to_one_graph",
        "compiled against not compiled: output 0 differs by",
        outputs=lambda self, t: 2 * t if torch.compiler.is_dynamo_compiling() else t,
    ),
    *in_modules(
        "exports",
        r"torch\.export raises",
        outputs=lambda self, t: 2 * t if t.sum() > 1e9 else t,
        also=("compiles_to_one_graph",),
    ),
    *in_modules(
        "exports",
        "exported against not exported: output 0 differs by",
        outputs=lambda self, t: 2 * t if torch.compiler.is_exporting() else t,
    ),
    *in_modules(
        "state_dict_round_trip",
        "a part with the loaded state against the first: output 0 differs by",
        init=lambda self: self.register_buffer("shift", 0.1 * torch.randn(1), persistent=False),
        outputs=lambda self, t: t + self.shift,
        also=MEMORY,
    ),
    *in_modules(
        "state_dict_round_trip",
        "loading the saved state into a new part raises RuntimeError: .*late",
        init=keep_as("late", lambda: None),
        outputs=lambda self, t: (self.__dict__.pop("late", 0), self.register_buffer("late", torch.ones(1)), t)[2],
        also=MEMORY,
    ),
    *in_modules(
        "copies_and_pickles",
        "a copy shares .* with the first",
        __deepcopy__=lambda self, original, memo: self,
    ),
    *(
        fault(slot, "copies_and_pickles", "pickling it raises .*lambda", init=keep_as("later", lambda: lambda: 0))
        for slot in SOUND
        if slot not in UNCOPIED
    ),
    *(
        fault(slot, "copies_and_pickles", "copying it raises TypeError: .*lock", init=keep_as("lock", Lock))
        for slot in SOUND
        if slot not in UNCOPIED
    ),
]
