"""Randomness as a function: of the seed before training, of seed, step and rank in it.

A step does not depend on how many numbers earlier steps drew. A checkpoint therefore needs only the
seed and the step, evaluation can't disturb training, and the number of processes may change.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def seed_everything(*parts: int) -> None:
    """Seeds torch (all devices), numpy and random, each by its own bytes of a hash of the numbers."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "little"))
    np.random.seed(int.from_bytes(digest[8:12], "little"))
    random.seed(digest[12:])
