"""The commands of a day on a GPU, at a tiny size on the CPU, so that they work on the day."""

import json
from pathlib import Path

import pytest

from tools import gpu_day

# `build` compiles, `tests` and `suite` are pytest in itself; each is a command that `make` or the docs run as well.
REHEARSED = [name for name in gpu_day.STAGES if name not in ("build", "suite")]


def rehearse(folder: Path, *stages: str) -> dict[str, dict[str, object]]:
    words = ["--device", "cpu", "--tiny", "--output", str(folder), "--stages", *stages]
    assert gpu_day.main(words) == 0, "\n".join(path.read_text()[-2000:] for path in folder.glob("*.log"))
    record = json.loads((folder / "gpu_day.json").read_text())
    return {stage["stage"]: stage for stage in record["stages"]}


@pytest.mark.slow
def test_every_stage_works_at_a_tiny_size(tmp_path: Path) -> None:
    done = rehearse(tmp_path / "day", *REHEARSED)
    assert {name for name, stage in done.items() if stage["status"] == "skipped"} == {"bccd", "sanitize"}
    without_figures = {name for name, stage in done.items() if "figures" not in stage}
    assert without_figures == {"tests", "bccd", "sanitize"}


def test_a_stage_that_fails_is_named_and_the_next_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: gpu_day.Options) -> list[str]:
        return [*gpu_day.MODULE, "benchmarks.bench_nms", "--sizes", "many"]

    monkeypatch.setitem(gpu_day.STAGES, "broken", gpu_day.Stage("", broken))
    words = ["--device", "cpu", "--tiny", "--output", str(tmp_path / "day"), "--stages", "broken", "nms"]
    assert gpu_day.main(words) == 1
    broken_stage, nms = json.loads((tmp_path / "day/gpu_day.json").read_text())["stages"]
    assert broken_stage["status"] == "exit code 2"
    assert "invalid int value: 'many'" in broken_stage["said"]
    assert nms["status"] == "passed"
    assert nms["figures"]["rows"][0]["same"]


def test_a_stage_that_hangs_is_stopped(tmp_path: Path) -> None:
    def hangs(options: gpu_day.Options) -> list[str]:
        return [gpu_day.sys.executable, "-c", "import time; time.sleep(600)"]

    options = gpu_day.Options("cpu", True, tmp_path, None)
    assert gpu_day.run("hangs", gpu_day.Stage("", hangs, seconds=1), options)["status"] == "over 1 s"


def test_a_folder_that_holds_something_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old.json").touch()
    with pytest.raises(SystemExit):
        gpu_day.main(["--output", str(tmp_path)])
    assert "is not empty" in capsys.readouterr().err
