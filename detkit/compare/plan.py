"""What a bench is asked to run: variants and seeds, and how both lie on disk.

DIR/plan.json                  this
DIR/variants/<name>.yaml       the effective config of each variant
DIR/cells/<name>/seed_<s>/     one run: an ordinary run folder, and what detkit.compare.cell adds to it
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detkit.config import Config, load_config
from detkit.runs.folder import write_json, write_text
from detkit.runs.settings import differing_settings, with_defaults
from detkit.utils.outputs import Ledger, refuse_foreign

SCHEMA = 1
PLAN, VARIANTS, CELLS = "plan.json", "variants", "cells"
CONFIG_ITSELF = "config"
"""The name of the variant that is the config without anything laid over it."""


@dataclass(frozen=True)
class Variant:
    """A config under the name that the reports give it."""

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
        """As the log names it."""
        return f"{self.variant}, seed {self.seed}"


@dataclass(frozen=True)
class Plan:
    """Variants in their order, the name of the baseline among them, and the seeds."""

    title: str
    variants: tuple[Variant, ...]
    baseline: str
    seeds: tuple[int, ...]
    base: Config

    def cells(self, folder: Path) -> Iterator[Cell]:
        """Seed by seed, so that a bench that is cut short has compared all variants on the seeds it did."""
        for seed in self.seeds:
            for variant in self.variants:
                yield Cell(variant.name, seed, cell_folder(folder, variant.name, seed))


def cell_folder(folder: Path, variant: str, seed: int) -> Path:
    """Where a cell's run lies."""
    return folder / CELLS / variant / f"seed_{seed}"


def variant_file(folder: Path, variant: str) -> Path:
    """Where a variant's effective config lies."""
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
    """Reads and checks every variant.

    files: each laid over `config`, or `config` itself where there are none. grids: `key=v1,v2,...`;
    several multiply. overrides: `key=value` for all variants. baseline: default the first; "config" adds
    the config itself. With one variant alone the config itself is what it is compared with.
    """
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise ValueError(f"--seeds: {list(seeds)} must be different numbers from 0 on, at least one")
    if any(text.partition("=")[0] == "seed" for text in overrides):
        raise ValueError("seed=...: the seeds of a bench are given by --seeds")
    base = load_config(config, overrides)
    variants = []
    each: list[str | Path | None] = list(files) or [None]
    for file in each:
        for settings in itertools.product(*map(parse_grid, grids)):
            name = variant_name(file, settings)
            extra = [f"{key}={value}" for key, value in settings]
            loaded = load_config(config, [*overrides, *extra], overlays=[file] if file else [])
            loaded.check_length()
            variants.append(Variant(name, loaded))
    names = [v.name for v in variants]
    if CONFIG_ITSELF not in names and (baseline == CONFIG_ITSELF or (len(variants) == 1 and baseline is None)):
        variants.insert(0, Variant(CONFIG_ITSELF, base))
    check_variants(variants)
    names = [v.name for v in variants]
    if baseline is not None and baseline not in names:
        raise ValueError(
            f"--baseline: {baseline!r} is none of the variants {', '.join(names)}, and not `{CONFIG_ITSELF}`"
        )
    title = title or f"{Path(config).stem}: {len(variants)} variants"
    return Plan(title, tuple(variants), baseline or names[0], tuple(seeds), base)


def parse_grid(text: str) -> list[tuple[str, str]]:
    """`losses.classification.gamma=0.5,1,2` -> (key, value) for each; commas inside brackets don't part."""
    key, equals, values = text.partition("=")
    parts = [part.strip() for part in re.split(r",(?![^\[{(]*[\]})])", values)]
    if not equals or not key.strip() or not all(parts):
        raise ValueError(f"--grid: {text!r} is not key=value,value,...")
    if len(set(parts)) != len(parts):
        raise ValueError(f"--grid: {text!r} has a value twice")
    return [(key.strip(), part) for part in parts]


def variant_name(file: str | Path | None, settings: Sequence[tuple[str, str]]) -> str:
    """`focal.yaml` -> focal; gamma=0.5 -> gamma0.5; both -> focal-gamma0.5. Safe as a folder's name."""
    parts = [] if file is None else [Path(file).stem]
    parts += [f"{key.rpartition('.')[2]}{value}" for key, value in settings]
    return re.sub(r"[^\w.+=-]+", "_", "-".join(parts) or CONFIG_ITSELF).strip(".")


def check_variants(variants: Sequence[Variant]) -> None:
    """Raises ValueError for names or configs that are there twice, and for a single variant."""
    seen: dict[str, str] = {}
    for variant in variants:
        if variant.name in seen:
            raise ValueError(f"two variants are called {variant.name}: give the files different names")
        seen[variant.name] = variant.config.hash()
    if len(variants) < 2:
        raise ValueError(
            "nothing to compare: name files to lay over the config, as configs/losses/*.yaml, or use "
            "--grid losses.classification.gamma=0.5,1,2"
        )


def save_plan(plan: Plan, folder: Path, command: str, threads: int | None = None) -> None:
    """Writes plan.json and the variants' configs; a bench that is there already is continued.

    threads: of every run, now and whenever the bench is continued. Variants and seeds may be added. A variant or seed
    that is left out keeps its runs but drops out of the report. Raises ValueError if the bench, or a variant of the
    same name in it, had another config.
    """
    check_goes_on(plan, folder)
    (folder / VARIANTS).mkdir(parents=True, exist_ok=True)
    for variant in plan.variants:
        write_text(variant_file(folder, variant.name), variant.config.to_yaml())
    write_json(
        folder / PLAN,
        {
            "schema": SCHEMA,
            "title": plan.title,
            "baseline": plan.baseline,
            "seeds": list(plan.seeds),
            "variants": {v.name: v.config.to_dict() for v in plan.variants},
            "base": plan.base.to_dict(),
            "command": command,
            "threads": threads,
        },
    )


def check_output(plan: Plan, folder: Path, *more: str) -> None:
    """Raises ForeignFileError for files in the folder of a bench that detkit did not write and would replace.

    more: names of what is written besides plan and variants. A bench from before there were ledgers is taken as
    detkit's where its plan can be read.
    """
    if PLAN not in Ledger(folder) and (folder / PLAN).is_file():
        saved(folder)
        Ledger(folder).adopt(more)
        Ledger(folder / VARIANTS).adopt(f"{variant.name}.yaml" for variant in plan.variants)
        return
    variants = [f"{VARIANTS}/{variant.name}.yaml" for variant in plan.variants]
    refuse_foreign("--output", folder, [PLAN, *variants, *more])


def check_goes_on(plan: Plan, folder: Path, *, tune: bool = False) -> None:
    """Raises ValueError with the differing keys if the bench in `folder`, if any, had another config.

    tune: the variants are still to choose some of their values, so that only what they are laid over is compared.
    """
    if not (folder / PLAN).exists():
        return
    content = saved(folder)
    check_same(folder, "variants are laid over", content["base"], plan.base)
    for variant in () if tune else plan.variants:
        old = content["variants"].get(variant.name)
        if old is None and variant_file(folder, variant.name).exists():  # left out for a while
            old = load_config(variant_file(folder, variant.name)).to_dict()
        if old is not None:
            check_same(folder, f"{variant.name} has", old, variant.config)


def check_same(folder: Path, who: str, old: dict[str, Any], config: Config) -> None:
    """Raises ValueError with the keys in which a config differs from the old one."""
    changed = differing_settings(with_defaults(old), json.loads(json.dumps(config.to_dict())))
    if changed:
        lines = "\n".join(f"  {key}: {a!r} in the bench, {b!r} now" for key, (a, b) in sorted(changed.items()))
        raise ValueError(
            f"{folder} holds a bench in which {who} another config:\n{lines}\n"
            "Use the old values, another name for a variant, or another folder by --output."
        )


def saved(folder: Path) -> dict[str, Any]:
    """The content of plan.json."""
    path = folder / PLAN
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no bench: there is no {path}")
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: {error}") from None
    if content.get("schema") != SCHEMA:
        raise ValueError(f"{path}: schema {content.get('schema')!r}; this detkit reads {SCHEMA}")
    check_content(content, path)
    return content


def check_content(content: dict[str, Any], path: Path) -> None:
    """Raises ValueError for seeds, variants or a baseline that no bench has, as after an edit by hand."""
    seeds, variants = content.get("seeds"), content.get("variants")
    if not isinstance(seeds, list) or not seeds or len(set(map(str, seeds))) != len(seeds):
        raise ValueError(f"{path}: seeds: {seeds!r} must be different numbers, at least one")
    if not isinstance(variants, dict) or not variants:
        raise ValueError(f"{path}: variants: {variants!r} must map names to configs")
    if content.get("baseline") not in variants:
        raise ValueError(f"{path}: baseline: {content.get('baseline')!r} is none of {', '.join(variants)}")


def read_plan(folder: Path) -> Plan:
    """The plan of a bench on disk."""
    content = saved(folder)
    variants = tuple(
        Variant(name, Config.from_dict(values, name=str(variant_file(folder, name))))
        for name, values in content["variants"].items()
    )
    base = Config.from_dict(content["base"], name=str(folder / PLAN))
    return Plan(content["title"], variants, content["baseline"], tuple(content["seeds"]), base)
