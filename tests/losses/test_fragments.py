"""configs/losses: every fragment must change the losses of a whole config and nothing else."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from detkit.cli import main
from detkit.config import ConfigError, load_config
from detkit.detectors.build import build_detector
from detkit.registry import BOX_LOSSES, CLASS_LOSSES
from detkit.structures import Targets
from tests.refusals import Refuses

CONFIGS = Path(__file__).parents[2] / "configs"
FRAGMENTS = sorted((CONFIGS / "losses").glob("*.yaml"))
QUICK = CONFIGS / "quickstart" / "shapes.yaml"
SSD = CONFIGS / "ssd" / "ssd_shapes.yaml"


@cache
def loaded(whole: Any, *fragments: Any) -> Any:
    return load_config(whole, overlays=fragments)


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda f: f.stem)
def test_a_fragment_changes_the_losses_alone(fragment: Any) -> None:
    changed = set()
    for whole in (QUICK, CONFIGS / "base" / "retinanet.yaml"):
        before, after = loaded(whole), loaded(whole, fragment)
        changed |= {path.rpartition(".")[0] for path, value in set_of(after) ^ set_of(before)}
        assert CLASS_LOSSES.build(after.losses.classification).num_columns(5) >= 5
    parts = {f"losses.classification{inner}" for inner in ("", ".first", ".then")}
    assert changed <= parts | {"losses.box", "losses.box.base"}
    assert changed or fragment.stem == "focal"  # which is the default of both


@pytest.mark.parametrize("whole", [QUICK, pytest.param(SSD, marks=pytest.mark.slow)], ids=lambda f: f.stem)
@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda f: f.stem)
def test_a_fragment_builds_and_a_step_lowers_its_loss(fragment: Any, whole: Any) -> None:
    torch.manual_seed(0)
    detector = build_detector(loaded(whole, fragment), 3)
    images = torch.randint(0, 256, (2, 3, 64, 64)).float()
    some = Targets(torch.tensor([[4.0, 6, 30, 31], [20, 30, 60, 62]]), torch.tensor([0, 2]))
    none = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))

    # Better boxes are better targets for a class loss that learns their quality, so the targets stay what they are.
    match = detector.match(detector(images), [some, none])
    detector.match = lambda pred, targets, assigner=None: match  # type: ignore[method-assign]

    def losses() -> Any:
        return detector.loss(detector(images), [some, none])

    detector.end_step(losses().normalizers, detector.take_accumulated())  # losses with a memory have one from here on
    before = losses().mean()
    before.backward()
    gradients = {name: p.grad for name, p in detector.named_parameters()}
    assert all(g is not None and g.isfinite().all() for g in gradients.values())
    if whole is QUICK:  # SSD has a head for each level, positives or not
        assert all(gradients[name].any() for name in gradients if name.startswith("head."))
    norm = torch.stack([g.norm() for g in gradients.values()]).norm()
    with torch.no_grad():
        for name, p in detector.named_parameters():
            p -= 0.01 / norm * gradients[name]  # type: ignore[misc]
        assert losses().mean() < before


@pytest.fixture(scope="module")
def found() -> Any:
    return [loaded(QUICK, fragment).losses for fragment in FRAGMENTS]


def test_there_is_a_fragment_for_every_loss(found: Any) -> None:
    alone = {name for name in own(CLASS_LOSSES) if not CLASS_LOSSES.get(name).positives_only} - {"WarmupLoss"}
    assert {losses.classification.type for losses in found} >= alone
    assert {losses.box.type for losses in found} >= set(own(BOX_LOSSES))
    wise = {losses.box.version for losses in found if losses.box.type == "WiseIoULoss"}
    assert wise == {"v1", "v2", "v3"}
    assert {losses.box.version for losses in found if losses.box.type == "PIoULoss"} == {"v1", "v2"}


def own(registry: Any) -> Any:
    """Names of detkit's own parts; other tests may have registered theirs."""
    return [name for name in registry.names() if registry.get(name).__module__.startswith("detkit.")]


def test_the_grid_of_the_focal_loss_paper_is_there(found: Any) -> None:
    found = [losses.classification for losses in found]
    balanced = {loss.alpha for loss in found if loss.type == "BalancedBCELoss"}
    assert balanced == {0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999}  # 1708.02002, table 1a
    focal = {(loss.gamma, loss.alpha) for loss in found if loss.type == "SigmoidFocalLoss"}
    # Table 1b, whose gamma 0 is balanced cross-entropy at 0.75, and from the text alpha 0.5 at gamma 2.
    assert focal == {(0.1, 0.75), (0.2, 0.75), (0.5, 0.5), (1.0, 0.25), (2.0, 0.25), (5.0, 0.25), (2.0, 0.5)}


@pytest.mark.parametrize(
    ("whole", "side"),
    [("quickstart/shapes", 128), ("ssd/ssd_shapes", 128), ("retinanet/r18_fpn_small", 256), ("base/retinanet", 640)],
)
def test_ohem_leaves_most_anchors_out(whole: str, side: int) -> None:
    config = load_config(CONFIGS / f"{whole}.yaml", overlays=[CONFIGS / "losses" / "ohem.yaml"])
    detector = build_detector(config, 3)
    shapes = [(-(-side // s.stride),) * 2 for s in detector.neck.out_shapes.values()]
    anchors = len(torch.cat(detector.anchors(shapes, (side, side), torch.device("cpu"))))
    loss = detector.class_loss
    assert loss.count <= anchors / 4
    logits = torch.randn(1, anchors, 3, requires_grad=True)
    loss(logits, torch.full((1, anchors), -1)).backward()
    assert logits.grad.any(dim=-1).sum() == loss.count


def set_of(config: Any) -> Any:
    return {(path, str(value)) for path, value in config.leaves()}


def test_the_focal_fragment_is_the_default_written_out() -> None:
    assert load_config(QUICK, overlays=[CONFIGS / "losses" / "focal.yaml"]) == load_config(QUICK)


def test_a_base_list_takes_a_fragment_too(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"_base_: [{QUICK}, {CONFIGS / 'losses' / 'ghm.yaml'}]\n")
    assert load_config(mine).losses.classification.type == "GHMCLoss"


def test_overlays_go_in_turn_and_overrides_last() -> None:
    files = [CONFIGS / "losses" / "focal_gamma1.yaml", CONFIGS / "losses" / "poly_focal.yaml"]
    config = load_config(QUICK, ["losses.classification.epsilon=0.5"], overlays=files)
    assert config.losses.classification.type == "PolyFocalLoss"
    assert config.losses.classification.gamma == 2.0  # of a part that was replaced nothing stays
    assert config.losses.classification.epsilon == 0.5


def test_a_wrong_key_in_an_overlay_names_that_file(refuses: Refuses, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("losses:\n  classification:\n    gama: 1\n")
    with refuses(ConfigError):
        load_config(QUICK, overlays=[wrong])


def test_train_takes_an_overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "detkit.train.run.train", lambda config, folder, **_: seen.update(config=config, folder=folder) or 0
    )
    assert main(["train", str(QUICK), "--overlay", str(CONFIGS / "losses" / "ohem.yaml")]) == 0
    assert seen["config"].losses.classification.type == "OHEMLoss"
    assert seen["folder"] == Path("runs/shapes-ohem")
