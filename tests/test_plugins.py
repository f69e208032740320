"""A part that comes in a package of its own, found by its entry point: built, installed, listed, trained."""

import os
import subprocess
import sys
from pathlib import Path

import detkit

PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "tiny-plugin"
version = "1.0"

[project.entry-points."detkit.plugins"]
tiny = "tiny_plugin.parts"

[tool.setuptools]
packages = ["tiny_plugin"]

[tool.setuptools.package-data]
tiny_plugin = ["*.yaml"]
"""
PART = '''
from torch import Tensor, nn

from detkit.backbones.base import Backbone
from detkit.registry import BACKBONES
from detkit.structures import FeatureShape


@BACKBONES.register()
class TinyPluginNet(Backbone):
    """A backbone out of another package."""

    def __init__(self, *, width: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.out_shapes = {"c3": FeatureShape(width, 8)}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"c3": self.patches(images)}
'''
SHORT = [
    "train.iterations=1",
    "schedule.warmup_iterations=0",
    "data.loader.batch_size=2",
    "data.train.dataset.num_images=2",
]


def test_a_package_with_an_entry_point_needs_no_import_line(tmp_path: Path) -> None:
    source, site, work = tmp_path / "source", tmp_path / "site", tmp_path / "work"
    (source / "tiny_plugin").mkdir(parents=True)
    (source / "pyproject.toml").write_text(PYPROJECT)
    (source / "tiny_plugin/__init__.py").write_text("")
    (source / "tiny_plugin/parts.py").write_text(PART)
    (source / "tiny_plugin/tiny.yaml").write_text(
        "_base_: detkit:scaffold/base.yaml\nbackbone: {type: TinyPluginNet}\ndata: {val: {dataset: {num_images: 1}}}\n"
    )
    work.mkdir()
    (work / "mine.yaml").write_text("_base_: tiny_plugin:tiny.yaml\nbackbone: {width: 12}\n")
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *offline, "--target", site, source], check=True)

    where = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(Path(detkit.__file__).parents[1])])}
    code = (
        "from detkit.cli import main; "
        f"assert main(['list', 'backbones']) == 0; assert main(['train', 'mine.yaml', *{SHORT!r}]) == 0"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=work, env=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "TinyPluginNet" in done.stdout
    assert "A backbone out of another package." in done.stdout
    config = (work / "runs/mine/config.yaml").read_text()
    assert "type: TinyPluginNet\n  width: 12" in config
    assert "imports: []" in config
    assert (work / "runs/mine/result.json").exists()
