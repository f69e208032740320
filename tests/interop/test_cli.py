"""`detkit convert` from the command line to a checkpoint that the other verbs take."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from detkit.cli import main


@pytest.fixture(scope="module")
def state_file(tmp_path_factory: Any, torchvision_models: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("cli") / "model.pth"
    torch.save(torchvision_models.random_model("retinanet_resnet50_fpn", 4).state_dict(), path)
    return path


def test_a_converted_checkpoint_predicts(state_file: Path, tmp_path: Path, capsys: Any) -> None:
    from PIL import Image

    from detkit.predict.predictor import Predictor

    output = tmp_path / "new" / "model.pt"
    assert main(["convert", "torchvision", str(state_file), "--classes", "a,b,c", "--output", str(output)]) == 0
    text = capsys.readouterr().out
    assert "3 of 4 class columns kept" in text
    assert re.search(r"model\.pt: \d+\.\d M weights, 3 classes, from .*model\.pth", text)
    predictor = Predictor.from_checkpoint(output, device="cpu", overrides=["postprocess.max_detections=7"])
    assert predictor.classes.names == ("a", "b", "c")
    noise = np.random.RandomState(0).randint(0, 256, (40, 60, 3), dtype=np.uint8)
    (found,) = predictor([noise])
    assert len(found) == 7
    assert found.boxes[:, 2].max() <= 60
    Image.fromarray(noise).save(tmp_path / "noise.png")
    folder = tmp_path / "out"
    assert main(["predict", str(output), str(tmp_path / "noise.png"), "--output", str(folder), "--score", "0.05"]) == 0
    results = json.loads((folder / "predictions.json").read_text())
    assert {r["category_name"] for r in results} <= {"a", "b", "c"}
    assert results


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["detectron2", "none.pkl"], "file not found: none.pkl"),
        (["torchvision", "none.pth"], "must be a file or one of"),
        (["torchvision", "x", "--classes", "a,,b"], "must be NAME,NAME"),
        (["torchvision", "x", "--classes", "none.json"], "file not found: none.json"),
        (["torchvision", "x", "--norm-eps", "-1"], "--norm-eps: -1.0 must be at least 0"),
        (["detectron2", "x.pkl", "--keep-columns"], "are for torchvision models only"),
    ],
)
def test_user_errors_are_one_line(arguments: list[str], text: str, capsys: Any, tmp_path: Path) -> None:
    assert main(["convert", *arguments, "--output", str(tmp_path / "o.pt")]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "o.pt").exists()


def test_a_malicious_pickle_is_refused_by_the_command(tmp_path: Path, capsys: Any) -> None:
    proof, path = tmp_path / "it_ran", tmp_path / "evil.pkl"

    class Evil:
        def __reduce__(self) -> Any:
            import os

            return os.system, (f"touch {proof}",)

    path.write_bytes(pickle.dumps({"model": Evil()}))
    assert main(["convert", "detectron2", str(path), "--output", str(tmp_path / "o.pt")]) == 2
    assert "system" in capsys.readouterr().err
    assert not proof.exists()


def test_help_needs_no_torch() -> None:
    code = (
        "import sys, argparse, detkit.interop.cli as c; p = argparse.ArgumentParser(); c.add_arguments(p);"
        "p.format_help(); assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
