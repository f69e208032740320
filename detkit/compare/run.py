"""A whole bench: plan, runs, results, reports. It may be cut off anywhere and started again."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from detkit.compare.cell_folder import last_words, state
from detkit.compare.launchers import CONSOLE, Job, launch_local, python, share_of_cores
from detkit.compare.plan import PLAN, Cell, Plan, check_goes_on, check_output, save_plan, saved, variant_file
from detkit.compare.provenance import code_now, read_record
from detkit.fingerprint import fingerprint
from detkit.utils.outputs import check_can_write

log = logging.getLogger("detkit")

Launcher = Callable[..., None]


def run_bench(
    plan: Plan, folder: Path, *, jobs: int, command: str, launcher: Launcher = launch_local, tune: Sequence[str] = (),
    share: Callable[[int], int] = share_of_cores, allow: Sequence[str] = (),
) -> int:  # fmt: skip
    """Runs what isn't done, then writes the reports; 0 if every run has ended and no verdict is withheld, else 1.

    tune: of `weight` and `lr`, what each variant first chooses for itself, see `detkit.compare.tune`. share: threads
    of one of `jobs` runs, where neither the bench nor the user has a number. allow: `code`, which may have changed.
    """
    from detkit.compare.report import REPORTS
    from detkit.compare.tune import tuned

    check_can_write("--output", folder)
    check_output(plan, folder, *REPORTS)
    check_goes_on(plan, folder, tune=bool(tune))
    threads = threads_of(plan, folder, jobs, share)
    folder.mkdir(parents=True, exist_ok=True)
    plan = tuned(plan, folder, tune, jobs=jobs, threads=threads, launcher=launcher)
    save_plan(plan, folder, command, threads)
    warn_of_changed_code(plan, folder)
    cells = list(plan.cells(folder))
    todo = [cell for cell in cells if state(cell) is None]
    log.info("%d variants x %d seeds = %d runs, %d of them done, %d threads each: %s", len(plan.variants),
             len(plan.seeds), len(cells), len(cells) - len(todo), threads, folder)  # fmt: skip
    progress = Progress(len(cells), len(cells) - len(todo))
    try:
        launcher(
            [job_of(cell, folder, allow) for cell in todo], at_once=jobs, threads=threads, finished=progress.finished,
            started=progress.started,
        )  # fmt: skip
    except KeyboardInterrupt:
        log.warning("stopped; what is done is kept, the same command continues it")
        raise
    return report([folder], folder, allow)


def report(folders: Sequence[Path], output: Path, allow: Sequence[str] = ()) -> int:
    """Writes the reports of one bench or several and says the verdicts; 1 where one is withheld, else 0."""
    from detkit.compare.collect import collect_results
    from detkit.compare.report import write_reports
    from detkit.compare.report.words import conclusions

    results = collect_results(folders, allow=allow)
    for path in write_reports(results, output):
        log.info("%s", path)
    for _, sentence in conclusions(results):
        log.info("%s", sentence)
    return 1 if results["withheld"] else 0


def threads_of(plan: Plan, folder: Path, jobs: int, share: Callable[[int], int]) -> int:
    """Threads of every run of a bench: decided once, as another number gives other bits.

    The number with which the bench began holds; for a new one, the user's OMP_NUM_THREADS, else an equal share of the
    cores. Raises ValueError where the user asks for another number than the bench began with.
    """
    asked, began = asked_threads(), begun_threads(plan, folder)
    if began is None:
        return asked or share(jobs)
    fixed = all(variant.config.options("train").threads is not None for variant in plan.variants)
    if asked is not None and asked != began and not fixed and any(state(cell) is None for cell in plan.cells(folder)):
        raise ValueError(
            f"OMP_NUM_THREADS is {asked}, but {folder} was begun with {began} threads a run, and another number gives "
            f"other bits: unset it or set it to {began}, whatever --jobs is; or begin another bench by --output"
        )
    return began


def asked_threads() -> int | None:
    """What OMP_NUM_THREADS says; None where it says nothing."""
    text = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(
            f"OMP_NUM_THREADS={text}: must be a number from 1 on; unset it for an equal share of the cores"
        )
    return int(text)


def begun_threads(plan: Plan, folder: Path) -> int | None:
    """Threads of the runs of a bench that is there; None for a new one, or where an older detkit mixed them."""
    if not (folder / PLAN).exists():
        return None
    if (noted := saved(folder).get("threads")) is not None:
        return int(noted)
    records = (read_record(cell.folder) for cell in plan.cells(folder) if state(cell) is not None)
    found = {start.facts.get("threads") for record in records for start in record.starts}
    return int(found.pop() or 0) or None if len(found) == 1 else None


def warn_of_changed_code(plan: Plan, folder: Path) -> None:
    """Says, before hours of training, that the runs to come will not have the code of those that are done."""
    cells = list(plan.cells(folder))
    done = {(c.variant, c.seed): read_record(c.folder) for c in cells if state(c) is not None}
    if done and len(done) < len(cells):
        for line in code_now({v.name: fingerprint(v.config) for v in plan.variants}, done):
            log.warning("the code has changed: %s; the verdict will be withheld, unless their folders are deleted or "
                        "the old files brought back", line)  # fmt: skip


def job_of(cell: Cell, folder: Path, allow: Sequence[str] = ()) -> Job:
    """The process that makes a run."""
    arguments = [str(variant_file(folder, cell.variant)), "--seed", str(cell.seed), "--output", str(cell.folder)]
    arguments += [word for what in allow for word in ("--allow", what)]
    return Job(cell.name, python("detkit.compare.cell", *arguments), cell.folder)


class Progress:
    """A line for every run that starts and ends, with the time that is left."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done, self.ran = total, done, 0
        self.began = time.monotonic()

    def started(self, job: Job) -> None:
        """Says which run begins."""
        log.info("%s: started (%s)", job.name, job.folder / CONSOLE)

    def finished(self, job: Job, code: int) -> None:
        """Says how it ended."""
        self.done, self.ran = self.done + 1, self.ran + 1
        left = (time.monotonic() - self.began) / self.ran * (self.total - self.done)
        end = {0: "finished", 3: "diverged"}.get(code)
        if end is None:
            log.error("%s: failed with exit code %d:\n%s", job.name, code, last_words(job.folder))
        log.info("%s: %s, %d of %d done, %s left", job.name, end or "failed", self.done, self.total, duration(left))


def duration(seconds: float) -> str:
    """`42 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def describe(
    plan: Plan, folder: Path, *, jobs: int, tune: Sequence[str] = (), share: Callable[[int], int] = share_of_cores
) -> str:
    """What --dry-run prints: variants, runs, and the time they will take by a few measured steps of each.

    tune: of `weight` and `lr`. Raises ValueError where the runs themselves would be refused.
    """
    from detkit.compare.tune import SHARE, candidates

    check_goes_on(plan, folder, tune=bool(tune))
    lines = [f"{plan.title}; baseline {plan.baseline}; seeds {', '.join(map(str, plan.seeds))}; in {folder}"]
    total, threads = 0.0, threads_of(plan, folder, jobs, share)
    todo = [cell for cell in plan.cells(folder) if state(cell) is None]
    with tempfile.TemporaryDirectory() as scratch:
        for variant in plan.variants:
            own = [cell for cell in todo if cell.variant == variant.name]
            file = Path(scratch) / f"{variant.name}.yaml"
            file.write_text(variant.config.to_yaml(), encoding="utf-8")
            seconds = measured(file, Path(scratch) / variant.name, plan.seeds[0], threads)
            options = variant.config.options("train")
            evaluations = 2 + (options.iterations - 1) // options.eval_every if options.eval_every else 2
            each = options.iterations * seconds["step"] + evaluations * seconds["evaluation"]
            total += each * len(own)
            if tune:
                trials = len(list(candidates(plan, variant, tune)))
                short = options.iterations / SHARE * seconds["step"] + seconds["evaluation"]
                total += trials * short
                lines.append(f"  {variant.name}: {trials} trials for {', '.join(tune)}: about {duration(short)} each")
            lines.append(
                f"  {variant.name}: {len(own)} of {len(plan.seeds)} runs to do, {options.iterations} steps of "
                f"{seconds['step']:.3g} s and {evaluations} evaluations of {seconds['evaluation']:.2g} s: "
                f"about {duration(each)} each"
            )
    lines.append(
        f"{len(todo)} runs of {threads} threads, about {duration(total / jobs)} with --jobs {jobs} "
        "(measured one at a time)"
    )
    return "\n".join(lines)


def measured(config: Path, folder: Path, seed: int, threads: int) -> dict[str, float]:
    """Seconds of a step and an evaluation, from a process of its own. Raises ValueError with its last words."""
    arguments: Sequence[str] = python(
        "detkit.compare.cell", str(config), "--seed", str(seed), "--output", str(folder), "--measure"
    )
    environ = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(arguments, capture_output=True, encoding="utf-8", errors="replace", check=False, env=environ)
    if done.returncode != 0:
        raise ValueError(f"{config.stem} does not run:\n" + "\n".join(done.stderr.splitlines()[-12:]))
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found
