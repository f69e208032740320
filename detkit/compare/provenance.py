"""Whether one and the same code, on machines that are alike, made all runs of a bench: over all their starts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detkit.compare.evidence import Check, named
from detkit.compare.plan import Plan
from detkit.compare.tune import FOLDER as TUNING
from detkit.fingerprint import OWN, PLUGIN, Code, changes, digest
from detkit.runs.folder import ENVIRONMENT
from detkit.runs.starts import LIBRARIES, Start, read_starts
from detkit.utils.console import shorten_list

VERSIONS = ("detkit", *LIBRARIES, "python")
MACHINE = (
    "cpu", "capability", "instructions", "native_lanes", "device", "cuda", "cudnn", "deterministic", "matmul",
    "variables", "processes", "system",
)  # fmt: skip
FACTS = {"threads": ("threads",), "machine": MACHINE, "versions": VERSIONS}
NAMED = 6


@dataclass(frozen=True)
class Record:
    """What is known of how a run was made. git: the revision, of the newest start. problem: why nothing is known."""

    starts: Sequence[Start]
    git: str | None = None
    problem: str | None = None


Records = Mapping[tuple[str, int], Record]
"""(variant, seed) -> record, of the runs that are there."""


def read_record(folder: Path) -> Record:
    """Of a run folder."""
    try:
        starts = read_starts(folder)
        path = folder / ENVIRONMENT
        git = json.loads(path.read_text(encoding="utf-8")).get("git") if path.is_file() else None
    except ValueError as error:
        return Record([], None, str(error))
    return Record(starts, git)


# ---- the code


def check_code(
    plan: Plan, records: Records, allow: Sequence[str] = (), trials: Mapping[str, Sequence[Record]] | None = None
) -> Check:
    """One and the same code in every start of every run; a file that only some variants import is their own affair.

    trials: of `--tune`, by variant, which must have had the code of its runs.
    """
    known = {run: record for run, record in records.items() if record.starts and all(s.code for s in record.starts)}
    wrong = [f"{named(run)}: {record.problem}" for run, record in records.items() if record.problem]
    wrong += [f"{named(run)}, {line}" for run, record in known.items() for line in between_starts(record)]
    wrong += between_runs(plan, known)
    wrong += between_trials(trials or {}, known)
    others = [run for run in records if run not in known and not records[run].problem]
    if known and others:
        wrong.append(
            f"{short(map(named, others))}: an older detkit made at least a part of it and noted no code, so it was not "
            "the code of the others"
        )
    wrong += between_revisions({run: records[run] for run in others})
    answer: Check = {"name": "code", "ok": not wrong, "detail": "; ".join(wrong), "withholds": "code" not in allow}
    if not wrong and others:
        revisions = sorted({str(records[run].git) for run in others if records[run].git})
        detail = (
            f"not known file by file: an older detkit made the runs, of revision {', '.join(revisions) or 'unknown'}"
        )
        return answer | {"ok": None, "detail": detail}
    if not wrong:
        return answer | {"detail": code_in_words(known)}
    return answer


def code_in_words(known: Records) -> str:
    """What all runs have in common."""
    starts = [start for record in known.values() for start in record.starts]
    if not starts:
        return "no run yet"
    files = min(len(start.code) for start in starts)
    git = sorted({record.git for record in known.values() if record.git})
    said = [f"{files} files, the same in all {len(starts)} starts of {len(known)} runs"]
    return "; ".join([*said, *([f"revision {', '.join(git)}"] if git else []), *own_code(known)])


def between_starts(record: Record) -> list[str]:
    """Lines on what changed from one start of a run to the next."""
    found = []
    for before, after in zip(record.starts, record.starts[1:], strict=False):
        found += [f"resumed after step {after.step}: {line}" for line in changes(before.code, after.code)]
    return found


def between_runs(plan: Plan, known: Records) -> list[str]:
    """Lines on files that are not the same in the runs, with the runs that have each content."""
    imports = {v.name: {str(entry) for entry in v.config.to_dict().get("imports") or []} for v in plan.variants}
    holders: dict[tuple[str, Origin], dict[str, list[tuple[str, int]]]] = {}
    for run, record in known.items():
        for name, value in record.starts[-1].code.items():
            # Two variants may each import a file of their own that happens to have the other's name.
            origin = frozenset(entry for entry in imports.get(run[0], ()) if Path(entry).name == name)
            holders.setdefault((name, origin), {}).setdefault(value, []).append(run)
    lines = []
    for (name, _), found in sorted(holders.items(), key=lambda item: item[0][0]):
        having = {run for runs in found.values() for run in runs}
        if len(found) > 1:
            most = max(found.values(), key=len)
            others = [run for runs in found.values() if runs is not most for run in runs]
            lines.append(f"{name} is not the same: another one in {short(map(named, others))} than in {named(most[0])}")
        missing = [run for run in known if run not in having and name not in known[run].starts[-1].code]
        if missing and not may_lack(name, having, missing, imports) and not renamed(name, found, missing, known):
            fewer, word = (missing, "is not in") if len(missing) <= len(having) else (sorted(having), "is only in")
            lines.append(f"{name} {word} {short(map(named, fewer))}")
    return lines


Origin = frozenset[str]
"""Entries of a variant's `imports:` that may have brought a file."""


def may_lack(
    name: str, having: Iterable[tuple[str, int]], missing: Iterable[tuple[str, int]], imports: Mapping[str, set[str]]
) -> bool:
    """Whether a file may be missing in some runs: it comes by `imports:`, which are others in those variants."""
    if name.startswith((OWN, PLUGIN)):
        return False
    with_it, without = {variant for variant, _ in having}, {variant for variant, _ in missing}
    return not with_it & without and all(imports.get(a) != imports.get(b) for a in with_it for b in without)


def renamed(name: str, found: Mapping[str, Any], missing: Iterable[tuple[str, int]], known: Records) -> bool:
    """Whether every run that lacks the name has the same content under another one."""
    (value, *more) = found
    return (
        not more and not name.startswith(OWN) and all(value in known[run].starts[-1].code.values() for run in missing)
    )


def trial_records(folders: Iterable[Path], plan: Plan) -> dict[str, list[Record]]:
    """What is known of the runs by which `--tune` chose, by variant."""
    return {
        variant.name: [read_record(trial) for trial in trials_of(folders, variant.name)] for variant in plan.variants
    }


def trials_of(folders: Iterable[Path], variant: str) -> list[Path]:
    """Folders of the runs by which a variant chose."""
    return [path.parent for folder in folders for path in sorted((folder / TUNING / variant).glob(f"*/{ENVIRONMENT}"))]


def between_trials(trials: Mapping[str, Sequence[Record]], known: Records) -> list[str]:
    """Lines on code that changed between the trials of a variant and its runs."""
    found: dict[str, None] = {}
    for (variant, _), record in known.items():
        for trial in trials.get(variant, ()):
            for line in changes(trial.starts[-1].code, record.starts[0].code) if trial.starts else []:
                found[f"{variant} was tuned with other code: {line}"] = None
    return list(found)


def between_revisions(others: Records) -> list[str]:
    """Lines on runs of older detkits, of which only the revision is known, if they have several."""
    found: dict[str, list[str]] = {}
    for run, record in others.items():
        if record.git:
            found.setdefault(record.git, []).append(named(run))
    if len(found) < 2:
        return []
    return [f"{revision}: {', '.join(runs)}" for revision, runs in found.items()]


def own_code(records: Records) -> Iterator[str]:
    """A sentence for every variant on files that some variants do not have at all."""
    codes = {run: record.starts[-1].code for run, record in records.items() if record.starts and record.starts[-1].code}
    common = set.intersection(*(set(code) for code in codes.values())) if codes else set()
    told: set[str] = set()
    for (variant, _), code in codes.items():
        own = sorted(code.keys() - common)
        if own and variant not in told:
            told.add(variant)
            yield f"{variant} imports code of its own: {short(own)}"


def code_now(now: Mapping[str, Code], records: Records) -> list[str]:
    """Lines on runs that are done and were made with another code than the files have now. now: by variant."""
    lines: dict[str, list[str]] = {}
    for run, record in records.items():
        if record.starts and record.starts[-1].code and run[0] in now:
            # Nothing is built here, so a module that a part imports while it is built is missing.
            for line in changes(record.starts[-1].code, now[run[0]], gone=False):
                lines.setdefault(line, []).append(named(run))
    return [f"{line} since {short(runs)} ran" for line, runs in sorted(lines.items())]


# ---- threads, machine, libraries


def check_facts(records: Records) -> Iterator[Check]:
    """Threads, machine and versions: equal, or a difference that may matter, which every start is asked for."""
    for check_name, keys in FACTS.items():
        wrong, unknown = [], set()
        for key in keys:
            found = values_of(key, records)
            if len(found) > 1:
                wrong.append(f"{key}: " + ", ".join(f"{value} in {short(runs)}" for value, runs in found.items()))
        for run, record in records.items():
            if not record.starts or any(key not in start.facts for start in record.starts for key in keys[:1]):
                unknown.add(named(run))
        equal = {key: next(iter(found)) for key in keys if (found := values_of(key, records))}
        answer: Check = {
            "name": check_name,
            "ok": not wrong,
            "detail": "; ".join(wrong) or ", ".join(f"{key} {value}" for key, value in equal.items()),
            "withholds": False,
        }
        if wrong:
            answer["detail"] += ": sums may come out in another order there, which may matter"
        elif unknown:
            answer |= {"ok": None, "detail": f"not known of {short(sorted(unknown))}: an older detkit made them"}
        yield answer


def values_of(key: str, records: Records) -> dict[str, list[str]]:
    """Value of a fact -> the runs with a start that has it; runs of which it is not known are left out."""
    found: dict[str, dict[str, None]] = {}
    for run, record in records.items():
        for start in record.starts:
            if key in start.facts and start.facts[key] is not None:
                found.setdefault(str(start.facts[key]), {})[named(run)] = None
    return {value: list(runs) for value, runs in found.items()}


def in_words(keys: Iterable[str], records: Records) -> dict[str, str]:
    """Facts for the report, as the runs noted them: one value, or each with the number of its runs."""
    said = {}
    for key in keys:
        found = values_of(key, records)
        if len(found) == 1:
            said[key] = next(iter(found))
        elif found:
            said[key] = ", ".join(f"{value} ({len(runs)} runs)" for value, runs in found.items())
    return said


def revisions(records: Records) -> str | None:
    """Fingerprints and revisions of all runs, for the report."""
    codes = {digest(start.code) for record in records.values() for start in record.starts if start.code}
    parts = [*sorted(codes), *sorted({record.git for record in records.values() if record.git})]
    return ", ".join(parts) or None


def short(runs: Iterable[str]) -> str:
    """The first few, and how many more there are."""
    return shorten_list(list(runs), NAMED)
