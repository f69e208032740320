"""The verb `detkit data check`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from detkit.registry import PositiveInt
from detkit.registry.arguments import checked
from detkit.utils.console import plural, printable
from detkit.utils.outputs import check_output_file, write_marked_json

if TYPE_CHECKING:
    from detkit.config import Config
    from detkit.data.datasets.base import DetectionDataset
    from detkit.data.doctor.findings import Findings
    from detkit.data.doctor.page import Table
    from detkit.data.doctor.subject import Split, Subject
    from detkit.data.reading import Source

ALL_WELL = "every image and every object can be used"
IN_SPLIT = frozenset({
    "unreadable", "left-out", "repaired", "unusable-box", "over-the-edge", "repeated-box", "reader-error",
    "reader-warning", "reader-note",
})  # fmt: skip
"""Kinds of findings that the report of a split names already."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    text = "folder or file of a data set of any known format, or a config (detkit list configs)"
    parser.add_argument("data", metavar="DATA|CONFIG", help=text)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="overrides of a config, as for detkit train")
    parser.add_argument("--html", metavar="FILE", help="write the findings with pictures to FILE")
    parser.add_argument("--json", metavar="FILE", help="write all findings to FILE")
    parser.add_argument("--fix", metavar="FOLDER", help="write a clean copy as COCO JSON into a new folder")
    text = "also rank suspected label errors, by the detector of a run (or what detkit predict takes)"
    parser.add_argument("--with", dest="run", metavar="RUN", help=text)
    text = "most suspected label errors of a split (default 100)"
    parser.add_argument("--suspects", type=int, default=100, metavar="N", help=text)
    parser.add_argument("--no-cache", action="store_true", help="decode images whose content was checked before, too")


@dataclass
class Outcome:
    """What is wrong in words that the last line counts, and what was found."""

    bad: int = 0
    skipped: int = 0
    lost: int = 0
    dropped: int = 0
    left_out: int = 0
    tables: list[Table] = field(default_factory=list)

    def verdict(self) -> tuple[str, bool]:
        """The last line, and whether something can't be used."""
        wrong = [f"{plural(self.bad, 'image')} can't be used"] * bool(self.bad)
        wrong += [f"{plural(self.dropped, 'box', 'boxes')} can't be used"] * bool(self.dropped)
        wrong += [f"{plural(self.lost, 'object')} can't reach the network"] * bool(self.lost)
        configured = self.skipped + self.left_out - self.dropped
        left_out = plural(configured, "image or object is", "images or objects are")
        well = f"{left_out} left out as configured; all others can be used" if configured else ALL_WELL
        return "; ".join(wrong) or well, bool(wrong)


def run(args: argparse.Namespace) -> int:
    """Reads every image and box; prints what can't be used, then what is odd. 1 if anything is an error."""
    from detkit.data.doctor.checkup import examine, unread_splits
    from detkit.data.doctor.findings import text_lines, verdict

    check_outputs(args)
    with log_on_stdout():
        config, source, notes = read(args.data, args.overrides)
        print("\n".join(notes), end="\n" if notes else "")
        predictor = None
        if args.run is not None:
            from detkit.show.suspects import check_labels, open_detector

            predictor = open_detector(args.run, source.splits.values())
        subject = subject_of(args, source.splits)
        outcome = Outcome()
        for split in subject:
            check_split(config, split, outcome)
        place = Path(args.data)
        findings = unread_splits(source.unread)
        findings.merge(examine(subject, place if config is None and place.exists() else None))
        if config is None:
            show_sizes(next(iter(subject)), outcome)
        else:
            findings.merge(check_network(config, source.splits["train"], outcome))
        if predictor is not None:
            findings.merge(check_labels(subject, predictor, most=args.suspects))
    lines = text_lines(without(findings, IN_SPLIT))
    if findings.cases:
        print("\n".join(["", *lines, f"found: {verdict(findings)}"]))
    write_outputs(args, subject, findings, notes, outcome)
    text, wrong = outcome.verdict()
    errors = findings.count("error")
    text += f", but {plural(errors, 'finding is an error', 'findings are errors')}" if errors and not wrong else ""
    print(text)
    return 1 if wrong or errors else 0


def check_outputs(args: argparse.Namespace) -> None:
    """Refuses, before anything is read, files and folders that can't be written."""
    checked("--suspects", args.suspects, PositiveInt)
    from detkit.data.writers.target import check_target
    from detkit.visualize.page import is_page

    if args.json is not None:
        check_output_file("--json", args.json, inputs=[args.data])
    if args.html is not None:
        check_output_file("--html", args.html, inputs=[args.data], owned=is_page)
    if args.fix is not None:
        check_target("--fix", Path(args.fix))


def read(place: str, overrides: Sequence[str]) -> tuple[Config | None, Source, list[str]]:
    """The config, if it is one, the data sets, and what was found in words."""
    from detkit.config import load_config
    from detkit.data.build import SPLITS, build_datasets
    from detkit.data.reading import Source, is_config, read_source
    from detkit.hub import is_remote

    if is_config(Path(place)):
        config = load_config(place, overrides)
        return config, Source(dict(zip(SPLITS, build_datasets(config), strict=True)), ""), []
    if not is_remote(place) and not Path(place).exists():
        try:
            load_config(place)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"no data set {printable(place)} is there, and no config: {error}") from None
    if overrides:
        raise ValueError(f"{printable(place)} is no config, so there is nothing that {overrides[0]!r} could override")
    source = read_source(place).choose([])
    return None, source, [f"{printable(place)}: {source.text}", *(f"note: {note}" for note in source.notes)]


def subject_of(args: argparse.Namespace, datasets: dict[str, DetectionDataset]) -> Subject:
    """Opens every image."""
    from detkit.data.doctor.subject import Subject
    from detkit.data.writers.convert import check_apart

    if args.fix is not None:
        check_apart(Path(args.fix), Path(args.data), datasets)
    return Subject.of(args.data, datasets, cached=not args.no_cache)


@contextmanager
def log_on_stdout() -> Iterator[None]:
    """Prints the log as notes of the report, but for what readers count, which is printed below its split."""
    log, problems = logging.getLogger("detkit"), logging.getLogger("detkit.problems")
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("note: %(message)s"))
    log.addHandler(handler)
    problems.disabled = True
    try:
        yield
    finally:
        log.removeHandler(handler)
        problems.disabled = False


def check_split(config: Config | None, split: Split, outcome: Outcome) -> None:
    """Prints the problems of a split, and counts what can't be used, is left out, and never reaches the network."""
    from detkit.data.datasets.base import describe_differences
    from detkit.data.datasets.problems import DROPPED
    from detkit.data.scan import WithoutBadImages

    dataset, scan = split.dataset, split.gathered.scan
    outcome.dropped += dataset.problems.count(DROPPED)
    outcome.left_out += dataset.problems.lost_count
    skips = dataset.image_options.bad_images == "skip"
    failures = [f"left out: {why}" if skips else why for why in scan.bad.values()]
    if len(scan.bad) == len(dataset):
        print_split(split.name, [f"{dataset.name}: none of the {len(dataset)} images can be used", *failures])
        outcome.bad += len(scan.bad)
        return
    readable = WithoutBadImages(dataset, scan.bad) if scan.bad else dataset
    lines = [f"{dataset.name}: {(readable if skips else dataset).counts()}", *failures]
    if scan.repaired:
        lines.append(f"{plural(len(scan.repaired), 'damaged image')} repaired:")
        lines += [f"  {why}" for why in scan.repaired.values()]
    if config is not None:
        lines += audit(config, split.name, readable, outcome)
    print_split(split.name, lines + dataset.problems.lines() + describe_differences(dataset.records))
    outcome.skipped += len(scan.bad) if skips else 0
    outcome.bad += 0 if skips else len(scan.bad)


def audit(config: Config, split: str, dataset: DetectionDataset, outcome: Outcome) -> list[str]:
    """Sentences on the objects that never reach the network."""
    from detkit.data.audit import DRAWS, audit_objects
    from detkit.data.build import build_transforms

    is_train = split == "train"
    transforms = build_transforms(config, split)
    lost = audit_objects(dataset, transforms, seed=config.seed if is_train else 0, draws=DRAWS if is_train else 1)
    outcome.lost += len(lost.never)
    return [text for text in (lost.describe(dataset), lost.describe_chance()) if text]


def check_network(config: Config, dataset: DetectionDataset, outcome: Outcome) -> Findings:
    """Prints how the network sees the objects of each class."""
    from detkit.analyze.class_fit import HEAD, check_fit, fit_by_class
    from detkit.data.doctor.findings import Findings
    from detkit.data.doctor.page import Table

    if "backbone" not in config:
        return Findings()
    fits = fit_by_class(config, dataset)
    text = "training objects after the transforms, as the network sees them"
    outcome.tables.append(Table("At the network's size", HEAD, [fit.row() for fit in fits], text))
    print_table(text, HEAD, outcome.tables[-1].rows)
    return check_fit(fits)


def show_sizes(split: Split, outcome: Outcome) -> None:
    """Prints how large the objects of each class are in networks of a few sizes."""
    from detkit.data.doctor.checks.sizes import SIZE_HEAD, size_rows
    from detkit.data.doctor.page import Table

    text = (
        f"objects of {split.name}: medians of height : width, and of the side where the image's longer side is resized"
    )
    outcome.tables.append(Table(f"Sizes in {split.name}", SIZE_HEAD, size_rows(split), text))
    print_table(text, SIZE_HEAD, outcome.tables[-1].rows)


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    columns = list(zip(head, *rows, strict=True))
    padded = [[cell.rjust(max(map(len, column))) for cell in column] for column in columns[1:]]
    names = [printable(cell).ljust(max(map(len, columns[0]))) for cell in columns[0]]
    print(f"{title}:")
    print("\n".join("  " + "  ".join(cells) for cells in zip(names, *padded, strict=True)))


def without(findings: Findings, names: frozenset[str]) -> Findings:
    """The findings without some kinds."""
    from detkit.data.doctor.findings import Findings

    return Findings({kind: cases for kind, cases in findings.cases.items() if kind.name not in names})


def print_split(split: str, lines: list[str]) -> None:
    print(f"{split}: " + "\n".join(lines).replace("\n", "\n  "))


def write_outputs(
    args: argparse.Namespace, subject: Subject, findings: Findings, notes: Sequence[str], outcome: Outcome
) -> None:
    """Writes the files that were asked for."""
    from detkit.data.doctor.findings import SEVERITIES
    from detkit.data.doctor.page import write_page

    if args.json is not None:
        counts = {severity: findings.count(severity) for severity in SEVERITIES}
        splits = {split.name: split.dataset.counts() for split in subject}
        content = {"data": str(args.data), "splits": splits, "counts": counts, "findings": findings.to_json()}
        write_marked_json(args.json, content)
    if args.html is not None:
        write_page(Path(args.html), subject, findings, notes, outcome.tables)
        print(f"findings with pictures: {args.html}")
    if args.fix is not None:
        write_fixed(args.fix, subject)


def write_fixed(folder: str, subject: Subject) -> None:
    """Writes the clean copy, and prints what was put right and how a config reads it."""
    from detkit.data.doctor.fix import write_clean
    from detkit.data.verbs.convert import describe_config

    written, fixes = write_clean(subject, Path(folder))
    write_marked_json(Path(folder) / "fixes.json", fixes.to_json())
    changes = [f"  {line}" for line in fixes.lines()]
    losses = [f"  {line}" for line in written.problems.lines()]
    print("\n".join([f"clean copy in {printable(folder)} (fixes.json names each change):", *changes, *losses]))
    print("\n".join(describe_config(written)))
