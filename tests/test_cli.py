import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from detkit.cli import VERBS, main
from detkit.registry import BACKBONES
from tests.refusals import Refuses

ROOT = Path(__file__).resolve().parent.parent
QUICK = str(ROOT / "configs/quickstart/shapes.yaml")


def test_help_names_every_verb_and_imports_no_torch(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(verb in text for verb in VERBS)
    code = (
        "import sys, detkit.cli; detkit.cli.main(['--help']); "
        "assert not {'torch', 'omegaconf', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_without_torch(verb: Any) -> None:
    code = (
        f"import sys, detkit.cli\ntry: detkit.cli.main(['{verb}', '--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert f"usage: detkit {verb}" in done.stdout


def test_a_verb_that_is_not_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "unknown verb 'trian'; did you mean train?" in capsys.readouterr().err
    assert main([]) == 2
    assert main(["--version"]) == 0


@pytest.mark.parametrize(
    ("words", "hint"),
    [(["train", "x.yaml", "--ouptut=a"], "did you mean --output?"), (["train", "x.yaml", "--proc", "2"], "--procs?"),
     (["anchors", "fit", "x.yaml", "--per-cel", "2"], "--per-cell?"), (["doctor", "--biuld"], "--build?")],
)  # fmt: skip
def test_an_option_that_is_not_one(
    refuses: Refuses, words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with refuses(SystemExit):
        main(words)
    assert hint in capsys.readouterr().err


def test_user_errors_are_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["config", "show", "nothing.yaml"]) == 2
    assert (
        capsys.readouterr().err
        == "error: config file not found: nothing.yaml; `detkit list configs` prints the names\n"
    )
    monkeypatch.setenv("DETKIT_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError):
        main(["config", "show", "nothing.yaml"])


def test_every_error_of_a_config_has_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "wrong.yaml").write_text(f"_base_: {QUICK}\nbackbone: {{dept: 3}}\nneck: {{chanels: 3}}\n")
    assert main(["config", "show", str(tmp_path / "wrong.yaml")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"error: {tmp_path / 'wrong.yaml'}:") for line in lines)


def test_a_reader_that_leaves_early_gets_no_error() -> None:
    command = f"{sys.executable} -m detkit list | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_interrupt_is_no_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("detkit.config.cli.run_list", interrupted)
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_list_shows_names_origins_and_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "backbones"]) == 0
    text = capsys.readouterr().out
    assert "ResNet" in text
    assert "resnet.py:" in text
    assert str(BACKBONES.get("ResNet").__doc__).partition("\n")[0] in text
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    assert "class_losses" in text
    assert "SigmoidFocalLoss" in text
    assert main(["list", "backbons"]) == 2
    assert "did you mean backbones?" in capsys.readouterr().err


def test_list_shows_what_a_file_registers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from detkit.registry import BACKBONES

    (tmp_path / "mine.py").write_text(
        '"""A net."""\nfrom detkit.backbones.base import Backbone\nfrom detkit.registry import BACKBONES\n'
        '@BACKBONES.register()\nclass ListedNet(Backbone):\n    """Mine alone."""\n'
    )
    with BACKBONES.temporary():
        assert main(["list", "backbones", "--import", str(tmp_path / "mine.py")]) == 0
    assert "Mine alone." in capsys.readouterr().out


def test_config_show_with_origins(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", QUICK, "backbone.depth=34", "--origin"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "command line (backbone.depth=34)" in lines["backbone.depth"]
    assert "quickstart/shapes.yaml:" in lines["data.loader.batch_size"]
    assert "base/retinanet.yaml:" in lines["coder.type"]
    assert "default of ResNet" in lines["backbone.in_channels"]
    assert main(["config", "show", QUICK]) == 0
    assert "type: ShapesDataset" in capsys.readouterr().out


def test_config_check_tells_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(f"_base_: {QUICK}\nbackbone:\n  dept: 3\n")
    assert main(["config", "check", QUICK, str(wrong)]) == 1
    done = capsys.readouterr()
    assert f"{QUICK}: ok" in done.out
    assert f"{wrong}:3: backbone.dept: unknown key of ResNet; did you mean depth?" in done.err
    assert "1 of 2 configs are invalid" in done.err
    assert main(["config", "check", QUICK]) == 0


def test_data_check_names_images_that_can_not_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "make-shapes", str(tmp_path / "s"), "--train", "4", "--val", "3", "--size", "64"]) == 0
    sets = [
        f"data.{split}.dataset={{type: CocoDataset, annotations: {tmp_path}/s/annotations/instances_{split}.json, "
        f"images: {tmp_path}/s/{split}}}"
        for split in ("train", "val")
    ]
    assert main(["data", "check", QUICK, *sets]) == 0
    assert "every image and every object can be used" in capsys.readouterr().out
    (tmp_path / "s/val/val_000002.png").write_text("broken")
    assert main(["data", "check", QUICK, *sets]) == 1
    out = capsys.readouterr().out
    assert "val_000002.png" in out
    assert "1 image can't be used" in out
