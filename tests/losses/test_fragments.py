"""configs/losses: every fragment must change the losses of a whole config and nothing else."""

from pathlib import Path

import pytest

from detkit.cli import main
from detkit.config import ConfigError, load_config
from detkit.registry import CLASS_LOSSES

CONFIGS = Path(__file__).parents[2] / "configs"
FRAGMENTS = sorted((CONFIGS / "losses").glob("*.yaml"))
QUICK = CONFIGS / "quickstart" / "shapes.yaml"


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda f: f.stem)
def test_a_fragment_changes_the_losses_alone(fragment):
    changed = set()
    for whole in (QUICK, CONFIGS / "base" / "retinanet.yaml"):
        before, after = load_config(whole), load_config(whole, overlays=[fragment])
        changed |= {path.rpartition(".")[0] for path, value in set_of(after) ^ set_of(before)}
        assert CLASS_LOSSES.build(after.losses.classification).num_columns(5) >= 5
    assert changed <= {"losses.classification", "losses.box"}
    assert changed or fragment.stem == "focal"  # which is the default of both


def set_of(config):
    return {(path, str(value)) for path, value in config.leaves()}


def test_the_focal_fragment_is_the_default_written_out():
    assert load_config(QUICK, overlays=[CONFIGS / "losses" / "focal.yaml"]) == load_config(QUICK)


def test_a_base_list_takes_a_fragment_too(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"_base_: [{QUICK}, {CONFIGS / 'losses' / 'ghm.yaml'}]\n")
    assert load_config(mine).losses.classification.type == "GHMCLoss"


def test_overlays_go_in_turn_and_overrides_last():
    files = [CONFIGS / "losses" / "focal_gamma1.yaml", CONFIGS / "losses" / "poly_focal.yaml"]
    config = load_config(QUICK, ["losses.classification.epsilon=0.5"], overlays=files)
    assert config.losses.classification.type == "PolyFocalLoss"
    assert config.losses.classification.gamma == 2.0  # of a part that was replaced nothing stays
    assert config.losses.classification.epsilon == 0.5


def test_a_wrong_key_in_an_overlay_names_that_file(tmp_path):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("losses:\n  classification:\n    gama: 1\n")
    with pytest.raises(ConfigError, match=r"wrong\.yaml:3: losses.classification.gama"):
        load_config(QUICK, overlays=[wrong])


def test_train_takes_an_overlay(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "detkit.train.session.train", lambda config, folder, **_: seen.update(config=config, folder=folder) or 0
    )
    assert main(["train", str(QUICK), "--overlay", str(CONFIGS / "losses" / "ohem.yaml")]) == 0
    assert seen["config"].losses.classification.type == "OHEMLoss"
    assert seen["folder"] == Path("runs/shapes-ohem")
