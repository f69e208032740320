"""Compares the code, machine and library versions of all runs of a bench, over all their starts."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

from detkit.compare.checks import Check, check, grouped, listed
from detkit.compare.plan import TRIALS, Plan, RunKey, run_name
from detkit.fingerprint import OWN, PLUGIN, Code, changes, digest
from detkit.runs.folder import ENVIRONMENT
from detkit.runs.starts import LIBRARIES, Start, read_starts

VERSIONS = ("detkit", *LIBRARIES, "python")
MACHINE = (
    "cpu", "capability", "instructions", "native_lanes", "device", "cuda", "cudnn", "deterministic", "matmul",
    "variables", "processes", "system",
)  # fmt: skip
FACTS = {"threads": ("threads",), "machine": MACHINE, "versions": VERSIONS}


@dataclass(frozen=True)
class Provenance:
    """How a run was made. git: revision of the newest start. problem: why nothing is known."""

    starts: Sequence[Start]
    git: str | None = None
    problem: str | None = None


Provenances: TypeAlias = Mapping[RunKey, Provenance]


def read_provenance(folder: Path) -> Provenance:
    try:
        starts = read_starts(folder)
        path = folder / ENVIRONMENT
        git = json.loads(path.read_text(encoding="utf-8")).get("git") if path.is_file() else None
    except ValueError as error:
        return Provenance([], None, str(error))
    return Provenance(starts, git)


def check_code(
    plan: Plan, records: Provenances, trials: Mapping[str, Sequence[Provenance]], allow: Sequence[str] = ()
) -> Check:
    """Every start of every run had the same code, apart from files that only some variants import.

    trials: the runs of `--tune` by variant, which must have had the code of the variant's runs.
    """
    known = {run: record for run, record in records.items() if record.starts and all(s.code for s in record.starts)}
    wrong = [f"{run_name(run)}: {record.problem}" for run, record in records.items() if record.problem]
    wrong += [
        f"{run_name(run)}, resumed after step {after.step}: {line}"
        for run, record in known.items()
        for before, after in pairwise(record.starts)
        for line in changes(before.code, after.code)
    ]
    wrong += between_runs(plan, known) + between_trials(trials, known)
    others = [run for run in records if run not in known and not records[run].problem]
    if known and others:
        wrong.append(
            f"{listed(map(run_name, others))}: an older detkit made at least a part of it and recorded no code, "
            "so it counts as other code"
        )
    runs_of = grouped((str(records[run].git), run_name(run)) for run in others if records[run].git)
    if len(runs_of) > 1:  # of older detkits, only the revision is known
        wrong += [f"{revision}: {', '.join(runs)}" for revision, runs in runs_of.items()]
    answer = check("code", wrong, code_summary(known)) | {"withholds": "code" not in allow}
    if others and not wrong:
        detail = "not known file by file: an older detkit made the runs, revision "
        answer |= {"ok": None, "detail": detail + (", ".join(runs_of) or "unknown")}
    return answer


def code_summary(known: Provenances) -> str:
    """The detail of a code check that passes: number of files and starts, revisions, files of single variants."""
    starts = [start for record in known.values() for start in record.starts]
    if not starts:
        return "no run yet"
    files = min(len(start.code) for start in starts)
    git = sorted({record.git for record in known.values() if record.git})
    parts = [f"{files} files, the same in all {len(starts)} starts of {len(known)} runs"]
    if git:
        parts.append(f"revision {', '.join(git)}")
    return "; ".join([*parts, *variant_code(known)])


def between_runs(plan: Plan, known: Provenances) -> list[str]:
    """Lines on files that differ between runs, with the runs that have each content."""
    imports = {v.name: {str(entry) for entry in v.config.to_dict().get("imports") or []} for v in plan.variants}
    holders: dict[tuple[str, frozenset[str]], dict[str, list[RunKey]]] = {}
    for run, record in known.items():
        for name, content in record.starts[-1].code.items():
            # Two variants may each import another file that happens to have the same name.
            origin = frozenset(entry for entry in imports.get(run[0], ()) if Path(entry).name == name)
            holders.setdefault((name, origin), {}).setdefault(content, []).append(run)
    lines = []
    for (name, _), runs_of in sorted(holders.items(), key=lambda item: item[0][0]):
        holding = {run for runs in runs_of.values() for run in runs}
        if len(runs_of) > 1:
            most = max(runs_of.values(), key=len)
            others = [run for runs in runs_of.values() if runs is not most for run in runs]
            lines.append(
                f"{name} differs: one version in {listed(map(run_name, others))}, another in {run_name(most[0])}"
            )
        missing = [run for run in known if run not in holding and name not in known[run].starts[-1].code]
        if missing and not may_lack(name, holding, missing, imports) and not renamed(name, runs_of, missing, known):
            fewer, verb = (missing, "is not in") if len(missing) <= len(holding) else (sorted(holding), "is only in")
            lines.append(f"{name} {verb} {listed(map(run_name, fewer))}")
    return lines


def may_lack(name: str, holding: Iterable[RunKey], missing: Iterable[RunKey], imports: Mapping[str, set[str]]) -> bool:
    """Whether a file may be missing in some runs: `imports:` brings it, and differs in the variants without it."""
    if name.startswith((OWN, PLUGIN)):
        return False
    having, lacking = {variant for variant, _ in holding}, {variant for variant, _ in missing}
    return not having & lacking and all(imports.get(a) != imports.get(b) for a in having for b in lacking)


def renamed(name: str, contents: Collection[str], missing: Iterable[RunKey], known: Provenances) -> bool:
    """Whether every run without the file has its only content under another name."""
    content, *more = contents
    return (
        not more and not name.startswith(OWN) and all(content in known[run].starts[-1].code.values() for run in missing)
    )


def read_trials(folders: Iterable[Path], plan: Plan) -> dict[str, list[Provenance]]:
    """Variant -> provenance of the trials in which `--tune` chose its settings."""
    return {
        variant.name: [
            read_provenance(path.parent)
            for folder in folders
            for path in sorted((folder / TRIALS / variant.name).glob(f"*/{ENVIRONMENT}"))
        ]
        for variant in plan.variants
    }


def between_trials(trials: Mapping[str, Sequence[Provenance]], known: Provenances) -> list[str]:
    """Lines on code that changed between the trials of a variant and its runs, each once."""
    lines = [
        f"{variant} was tuned with other code: {line}"
        for (variant, _), record in known.items()
        for trial in trials.get(variant, ())
        if trial.starts
        for line in changes(trial.starts[-1].code, record.starts[0].code)
    ]
    return list(dict.fromkeys(lines))


def variant_code(records: Provenances) -> Iterator[str]:
    """A sentence for every variant with files that other variants do not have."""
    codes = {run: record.starts[-1].code for run, record in records.items() if record.starts and record.starts[-1].code}
    common = set.intersection(*(set(code) for code in codes.values())) if codes else set()
    extra = grouped(
        (run[0], listed(sorted(code.keys() - common))) for run, code in codes.items() if code.keys() - common
    )
    for variant, (names, *_) in extra.items():
        yield f"{variant} imports its own code: {names}"


def code_now(now: Mapping[str, Code], records: Provenances) -> list[str]:
    """Lines on runs that were made with other code than the files have now. now: variant -> code."""
    lines = grouped(
        (line, run_name(run))
        for run, record in records.items()
        if record.starts and record.starts[-1].code and run[0] in now
        # Nothing is built here, so a module that a part imports while it is built is missing.
        for line in changes(record.starts[-1].code, now[run[0]], gone=False)
    )
    return [f"{line} since {listed(runs)} ran" for line, runs in sorted(lines.items())]


def check_facts(records: Provenances) -> Iterator[Check]:
    """Every start had the same threads, machine and versions; a difference may matter, but withholds nothing."""
    for check_name, keys in FACTS.items():
        values = {key: runs_by_value(key, records) for key in keys}
        wrong = [
            f"{key}: " + ", ".join(f"{value} in {listed(runs)}" for value, runs in runs_of.items())
            for key, runs_of in values.items()
            if len(runs_of) > 1
        ]
        unknown = sorted(
            run_name(run)
            for run, record in records.items()
            if not record.starts or any(keys[0] not in start.facts for start in record.starts)
        )
        equal = ", ".join(f"{key} {next(iter(runs_of))}" for key, runs_of in values.items() if runs_of)
        answer = check(check_name, wrong, equal) | {"withholds": False}
        if wrong:
            answer["detail"] += ": the order of sums may differ, which may matter"
        elif unknown:
            answer |= {"ok": None, "detail": f"not known for {listed(unknown)}: an older detkit made them"}
        yield answer


def runs_by_value(key: str, records: Provenances) -> dict[str, list[str]]:
    """Value of a fact -> names of the runs with a start that has it."""
    return grouped(
        (str(start.facts[key]), run_name(run))
        for run, record in records.items()
        for start in record.starts
        if start.facts.get(key) is not None
    )


def summarise_facts(keys: Iterable[str], records: Provenances) -> dict[str, str]:
    """Fact -> its value in all runs, or every value with the number of its runs."""
    facts = {}
    for key in keys:
        if runs_of := runs_by_value(key, records):
            several = [f"{value} ({len(runs)} runs)" for value, runs in runs_of.items()]
            facts[key] = ", ".join(several if len(runs_of) > 1 else runs_of)
    return facts


def revisions(records: Provenances) -> str | None:
    """Fingerprints and git revisions of all runs."""
    codes = {digest(start.code) for record in records.values() for start in record.starts if start.code}
    parts = [*sorted(codes), *sorted({record.git for record in records.values() if record.git})]
    return ", ".join(parts) or None
