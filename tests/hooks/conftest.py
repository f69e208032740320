"""A small training with hooks, run as users run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from detkit.cli import main
from detkit.config import load_config


class Small:
    """Writes configs of a small training into a folder, and runs them."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def config(self, **more: Any) -> Path:
        """A config of 12 steps; `more` are sections that are laid over it."""
        data: dict[str, Any] = {
            split: {"dataset": {"type": "ShapesDataset", "split": split, "num_images": n, "size": 64}}
            for split, n in (("train", 8), ("val", 4))
        }
        content: dict[str, Any] = {
            "_base_": "detkit:scaffold/base.yaml",
            "imports": [str(Path(__file__).with_name("plugin") / "killer.py")],
            "backbone": {"type": "Quick"},
            "neck": {"channels": 8},
            "data": data | {"loader": {"batch_size": 4, "num_workers": 0}},
            "optimizer": {"type": "SGD", "lr": 0.01},
            "schedule": {"type": "Cosine", "warmup_iterations": 2},
            "train": {
                "iterations": 12, "eval_every": 3, "checkpoint_every": 4, "log_every": 2, "device": "cpu", "threads": 1,
            },
            "loggers": [],
        }  # fmt: skip
        for key, value in more.items():
            content[key] = content.get(key, {}) | value if isinstance(value, dict) else value
        path = self.root / "config.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    def run(self, name: str, *words: str, **more: Any) -> int:
        """`detkit train` into a folder of that name; returns the exit code."""
        return main(["train", str(self.config(**more)), "--output", str(self.root / name), *words])


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Small]:
    """See `Small`; torch's settings are as before after it."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield Small(tmp_path)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Any]:
    """Loads a config with these hooks."""

    def load_with(*hooks: Any, **more: Any) -> Any:
        return load_config(Small(tmp_path).config(hooks=list(hooks), **more))

    return load_with
