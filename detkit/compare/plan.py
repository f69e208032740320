"""The plan of a bench: variants and seeds, and its files.

DIR/plan.json                  the plan
DIR/variants/<name>.yaml       the effective config of each variant
DIR/cells/<name>/seed_<s>/     one run: an ordinary run folder, and the files that detkit.compare.cell adds
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from detkit.config import Config, find_config, load_config
from detkit.registry.arguments import nearest
from detkit.runs.folder import write_json, write_text
from detkit.runs.settings import differing_settings, flatten, with_defaults
from detkit.utils.outputs import Ledger, refuse_foreign
from detkit.utils.types import Tree

SCHEMA = 1
PLAN, VARIANTS, CELLS = "plan.json", "variants", "cells"
TUNING, TRIALS = "tuning.json", "tuning"
CONFIG_ITSELF = "config"
"""Name of the variant that is the config without an overlay."""

RunKey: TypeAlias = tuple[str, int]
"""(variant, seed)"""


def run_name(run: RunKey) -> str:
    return f"{run[0]}, seed {run[1]}"


@dataclass(frozen=True)
class Variant:
    name: str
    config: Config


@dataclass(frozen=True)
class Cell:
    """One run of the bench."""

    variant: str
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        return run_name((self.variant, self.seed))


@dataclass(frozen=True)
class Plan:
    """Variants in order, the name of the baseline among them, and the seeds. base: the config under all variants."""

    title: str
    variants: tuple[Variant, ...]
    baseline: str
    seeds: tuple[int, ...]
    base: Config

    def cells(self, folder: Path) -> Iterator[Cell]:
        """All runs, seed by seed: an interrupted bench has all variants of the seeds it got to."""
        for seed in self.seeds:
            for variant in self.variants:
                yield Cell(variant.name, seed, cell_folder(folder, variant.name, seed))


def cell_folder(folder: Path, variant: str, seed: int) -> Path:
    return folder / CELLS / variant / f"seed_{seed}"


def variant_file(folder: Path, variant: str) -> Path:
    return folder / VARIANTS / f"{variant}.yaml"


def make_plan(
    config: str | Path,
    files: Sequence[str | Path],
    *,
    grids: Sequence[str] = (),
    overrides: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    baseline: str | None = None,
    title: str | None = None,
) -> Plan:
    """Loads and checks every variant.

    config: a path or name (`find_config`). files: paths or names of overlays of `config`, a variant each; without any,
    `config` itself is varied by the grids. grids: `key=v1,v2,...`; several multiply. overrides: `key=value` for all
    variants. baseline: default the first variant; "config" adds the config itself. A single variant is compared with
    the config itself.
    """
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ValueError(f"--seeds: {list(seeds)} must be one or more different integers from 0 on")
    if any(text.partition("=")[0] == "seed" for text in overrides):
        raise ValueError("seed=...: use --seeds to set the seeds of a bench")
    base = load_config(config, overrides)
    variants = []
    each: list[Path | None] = [find_config(file) for file in files] or [None]
    for file, settings in itertools.product(each, list(itertools.product(*map(parse_grid, grids)))):
        extra = [f"{key}={value}" for key, value in settings]
        loaded = load_config(config, [*overrides, *extra], overlays=[file] if file else [])
        loaded.check()
        variants.append(Variant(variant_name(file, settings), loaded))
    names = [v.name for v in variants]
    if CONFIG_ITSELF not in names and (baseline == CONFIG_ITSELF or (len(variants) == 1 and baseline is None)):
        variants.insert(0, Variant(CONFIG_ITSELF, base))
    check_variants(variants)
    baseline, known = variants[0].name if baseline is None else baseline, [*names, CONFIG_ITSELF]
    if baseline not in known:
        raise ValueError(
            f"--baseline: {baseline!r} is not a variant{nearest(baseline, known)} One of {', '.join(known)}"
        )
    title = title or f"{find_config(config).stem}: {len(variants)} variants"
    return Plan(title, tuple(variants), baseline, tuple(seeds), base)


def parse_grid(text: str) -> list[tuple[str, str]]:
    """`losses.classification.gamma=0.5,1,2` -> (key, value) for each; commas inside brackets do not separate."""
    key, equals, values = text.partition("=")
    parts = [part.strip() for part in re.split(r",(?![^\[{(]*[\]})])", values)]
    if not equals or not key.strip() or not all(parts):
        raise ValueError(f"--grid: {text!r} is not key=value,value,...")
    if len(set(parts)) != len(parts):
        raise ValueError(f"--grid: {text!r} repeats a value")
    return [(key.strip(), part) for part in parts]


def variant_name(file: str | Path | None, settings: Sequence[tuple[str, str]]) -> str:
    """`focal.yaml` -> focal; gamma=0.5 -> gamma0.5; both -> focal-gamma0.5. A valid folder name."""
    parts = [] if file is None else [Path(file).stem]
    parts += [f"{key.rpartition('.')[2]}{value}" for key, value in settings]
    return re.sub(r"[^\w.+=-]+", "_", "-".join(parts) or CONFIG_ITSELF).strip(".")


def check_variants(variants: Sequence[Variant]) -> None:
    """Raises ValueError for two variants of one name, and for a single variant."""
    names = [variant.name for variant in variants]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two variants are named {name}: rename one of the files")
    if len(variants) < 2:
        raise ValueError(
            "nothing to compare: pass overlays, files or names such as focal and bce, or use "
            "--grid losses.classification.gamma=0.5,1,2"
        )


def save_plan(plan: Plan, folder: Path, command: str, threads: int | None = None) -> None:
    """Writes plan.json and the variants' configs; continues a bench that exists.

    threads: CPU threads of every run, also when the bench is continued. Variants and seeds may be added. A variant or
    seed that is left out keeps its runs but drops out of the report. Raises ValueError if the bench, or a variant of
    the same name in it, had another config.
    """
    check_continues(plan, folder)
    (folder / VARIANTS).mkdir(parents=True, exist_ok=True)
    for variant in plan.variants:
        write_text(variant_file(folder, variant.name), variant.config.to_yaml())
    content = {
        "schema": SCHEMA,
        "title": plan.title,
        "baseline": plan.baseline,
        "seeds": list(plan.seeds),
        "variants": {v.name: v.config.to_dict() for v in plan.variants},
        "base": plan.base.to_dict(),
        "command": command,
        "threads": threads,
    }
    write_json(folder / PLAN, content)


def check_output(plan: Plan, folder: Path, *more: str) -> None:
    """Raises ForeignFileError for files in the folder of a bench that detkit did not write and would replace.

    more: names of the files written besides plan and variants. The files of a bench of a detkit without ledgers count
    as detkit's if its plan is readable.
    """
    if PLAN not in Ledger(folder) and (folder / PLAN).is_file():
        read_plan_json(folder)
        Ledger(folder).adopt(more)
        Ledger(folder / VARIANTS).adopt(f"{variant.name}.yaml" for variant in plan.variants)
        return
    variants = [f"{VARIANTS}/{variant.name}.yaml" for variant in plan.variants]
    refuse_foreign("--output", folder, [PLAN, *variants, *more])


def check_continues(plan: Plan, folder: Path, *, tune: bool = False) -> None:
    """Raises ValueError with the differing keys if `folder` holds a bench of another config.

    tune: the variants have not chosen their values yet, so only the config under them is compared.
    """
    if not (folder / PLAN).exists():
        return
    content = read_plan_json(folder)
    check_same(folder, "all variants", content["base"], plan.base)
    for variant in () if tune else plan.variants:
        old = content["variants"].get(variant.name)
        if old is None and variant_file(folder, variant.name).exists():  # left out for a while
            old = load_config(variant_file(folder, variant.name)).to_dict()
        if old is not None:
            check_same(folder, variant.name, old, variant.config)


def check_same(folder: Path, who: str, old: Tree, config: Config) -> None:
    """Raises ValueError with the keys in which a config differs from the one in the bench."""
    changed = differing_settings(with_defaults(old), json.loads(json.dumps(config.to_dict())))
    if changed:
        lines = "\n".join(f"  {key}: {a!r} in the bench, {b!r} now" for key, (a, b) in sorted(changed.items()))
        raise ValueError(
            f"{folder} holds a bench with another config for {who}:\n{lines}\n"
            "Use the old values, rename the variant, or choose another folder with --output."
        )


def read_plan_json(folder: Path) -> Tree:
    """The checked content of plan.json."""
    path = folder / PLAN
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not the folder of a bench: {path} is missing")
    try:
        content: Tree = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: {error}") from None
    if content.get("schema") != SCHEMA:
        raise ValueError(f"{path}: schema {content.get('schema')!r} is not supported; this detkit reads {SCHEMA}")
    seeds, variants, baseline = content.get("seeds"), content.get("variants"), content.get("baseline")
    if not isinstance(seeds, list) or not seeds or len(set(map(str, seeds))) != len(seeds):
        raise ValueError(f"{path}: seeds: {seeds!r} must be one or more different integers")
    if not isinstance(variants, dict) or not variants:
        raise ValueError(f"{path}: variants: {variants!r} must map names to configs")
    if baseline not in variants:
        raise ValueError(f"{path}: baseline: {baseline!r} is not one of {', '.join(variants)}")
    return content


def read_plan(folder: Path) -> Plan:
    content = read_plan_json(folder)
    variants = tuple(
        Variant(name, Config.from_dict(values, name=str(variant_file(folder, name))))
        for name, values in content["variants"].items()
    )
    base = Config.from_dict(content["base"], name=str(folder / PLAN))
    return Plan(content["title"], variants, content["baseline"], tuple(content["seeds"]), base)


def differing_keys(configs: Mapping[str, Tree]) -> list[Tree]:
    """Keys without one value in all variants; a variant without the key is left out of `values`."""
    flat = {name: flatten(values) for name, values in configs.items()}
    differing = []
    for key in sorted({key for values in flat.values() for key in values}):
        values = {name: flat[name][key] for name in flat if key in flat[name]}
        if len(values) < len(flat) or len({json.dumps(v, sort_keys=True) for v in values.values()}) > 1:
            differing.append({"key": key, "values": values})
    return differing
