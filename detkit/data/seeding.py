"""Random numbers as a function of their seed: order by (seed, epoch), augmentation by (seed, epoch, image id)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from detkit.utils.types import Ints

ORDER, AUGMENTATION = 1, 2
"""First number of a seed sequence, so that the two never share a stream."""


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, length: int) -> Ints:
    """The order of the images in an epoch."""
    return np.random.default_rng(_key(ORDER, seed, epoch)).permutation(length)


@dataclass(frozen=True)
class Layout:
    """Which images lie near each other in a file, for an order that reads each group of them once.

    group (B,) number of the group of each image, group_bytes (G,) their sizes, window: bytes of the groups whose images
    are shuffled among each other.
    """

    group: Ints
    group_bytes: Ints
    window: int

    def permutation(self, seed: int, epoch: int) -> Ints:
        """The order of the images in an epoch; that of `permutation` if all groups fit into the window."""
        if self.group_bytes.sum() <= self.window:
            return permutation(seed, epoch, len(self.group))
        rng = np.random.default_rng(_key(ORDER, seed, epoch))
        order = rng.permutation(len(self.group_bytes))
        filled = np.cumsum(self.group_bytes[order])
        window_of_group = np.empty(len(order), np.int64)
        window_of_group[order] = (filled - self.group_bytes[order]) // self.window
        # Shuffled within each window: sorted by window, then by random numbers.
        result: Ints = np.lexsort((rng.permutation(len(self.group)), window_of_group[self.group]))
        return result


@contextmanager
def seeded(seed: int, epoch: int, image_id: int) -> Iterator[None]:
    """Seeds torch's, numpy's and Python's generators inside the context by the arguments; restores them after it."""
    state = _key(AUGMENTATION, seed, epoch, image_id).generate_state(4)
    saved = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        random.seed(int(state[0]))
        np.random.seed(int(state[1]))
        torch.default_generator.manual_seed(int(state[2]) << 32 | int(state[3]))
        yield
    finally:
        random.setstate(saved[0])
        np.random.set_state(saved[1])
        torch.set_rng_state(saved[2])


def generator_states() -> dict[str, object]:
    """The states of the global generators by name, to see whether something has drawn from them."""
    numbers = np.random.get_state()
    return {
        "torch's generator": bytes(torch.get_rng_state().numpy().data),
        "numpy.random": (bytes(numbers[1].data), numbers[2]),  # type: ignore[index]  # numbers, and the next one's place
        "random": random.getstate(),
    }


def _key(*numbers: int) -> np.random.SeedSequence:
    return np.random.SeedSequence([number & 0xFFFFFFFFFFFFFFFF for number in numbers])
