"""Runs a bench: plan, runs, results, reports. It may be stopped anywhere and continued."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from detkit.compare.cell_folder import FAILED, STATUS_OF_EXIT_CODE, console_tail, ended_status
from detkit.compare.launchers import CONSOLE, LOCAL, Job, LauncherChoice, python
from detkit.compare.plan import PLAN, Cell, Plan, check_continues, check_output, read_plan_json, save_plan, variant_file
from detkit.compare.provenance import Provenances, code_now, read_provenance
from detkit.compare.report import REPORTS, write_reports
from detkit.compare.report.words import conclusions
from detkit.compare.results import collect_results
from detkit.compare.tune import SHORTENING, candidates, tune_variants
from detkit.fingerprint import fingerprint
from detkit.utils.outputs import check_can_write

log = logging.getLogger("detkit")


def run_bench(
    plan: Plan, folder: Path, *, jobs: int, command: str, launcher: LauncherChoice = LOCAL, tune: Sequence[str] = (),
    allow: Sequence[str] = (),
) -> int:  # fmt: skip
    """Makes the missing runs, then writes the reports; 0 if every run ended and no verdict is withheld, else 1.

    tune: of `weight` and `lr`, the settings that each variant first chooses, see `detkit.compare.tune`. allow: `code`,
    which may have changed.
    """
    check_can_write("--output", folder)
    check_output(plan, folder, *REPORTS)
    check_continues(plan, folder, tune=bool(tune))
    threads = threads_of(plan, folder, jobs, launcher)
    folder.mkdir(parents=True, exist_ok=True)
    plan = tune_variants(plan, folder, tune, jobs=jobs, threads=threads, launcher=launcher.launch)
    save_plan(plan, folder, command, threads)
    warn_of_changed_code(plan, folder)
    todo = missing_runs(plan, folder)
    total = len(plan.variants) * len(plan.seeds)
    progress = Progress(total, total - len(todo))
    size = f"{len(plan.variants)} variants x {len(plan.seeds)} seeds = {total} runs"
    log.info("%s, %d of them done, %d threads each: %s", size, progress.done, threads, folder)
    todo_jobs = [job_of(cell, folder, allow) for cell in todo]
    try:
        launcher.launch(todo_jobs, at_once=jobs, threads=threads, finished=progress.finished, started=progress.started)
    except KeyboardInterrupt:
        log.warning("stopped; finished runs are kept. Rerun the same command to continue")
        raise
    return report([folder], folder, allow)


def missing_runs(plan: Plan, folder: Path) -> list[Cell]:
    return [cell for cell in plan.cells(folder) if ended_status(cell.folder) is None]


def report(folders: Sequence[Path], output: Path, allow: Sequence[str] = ()) -> int:
    """Writes the reports of one bench or several and prints the verdicts; 1 if one is withheld, else 0."""
    results = collect_results(folders, allow=allow)
    for path in write_reports(results, output):
        log.info("%s", path)
    for _, sentence in conclusions(results):
        log.info("%s", sentence)
    return 1 if results["withheld"] else 0


def threads_of(plan: Plan, folder: Path, jobs: int, launcher: LauncherChoice) -> int:
    """Threads of every run of a bench: decided once, as another number gives other bits.

    A bench keeps the number it began with; a new one takes OMP_NUM_THREADS, else an equal share of the cores. Raises
    ValueError where OMP_NUM_THREADS is another number than the bench began with.
    """
    asked, began = threads_from_environment(), threads_of_bench(plan, folder)
    if began is None:
        return asked or launcher.default_threads(jobs)
    fixed = all(variant.config.options("train").threads is not None for variant in plan.variants)
    if asked is not None and asked != began and not fixed and missing_runs(plan, folder):
        raise ValueError(
            f"OMP_NUM_THREADS is {asked}, but {folder} began with {began} threads per run, and another number gives "
            f"other bits: unset it, set it to {began}, or start another bench with --output"
        )
    return began


def threads_from_environment() -> int | None:
    """The value of OMP_NUM_THREADS; None if it is not set."""
    text = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"OMP_NUM_THREADS={text}: must be an integer from 1 on; unset it to share the cores equally")
    return int(text)


def threads_of_bench(plan: Plan, folder: Path) -> int | None:
    """Threads of the runs of an existing bench; None for a new one, or where an older detkit mixed them."""
    if not (folder / PLAN).exists():
        return None
    if (recorded := read_plan_json(folder).get("threads")) is not None:
        return int(recorded)
    records = provenance_of_ended(plan, folder).values()
    threads = {start.facts.get("threads") for record in records for start in record.starts}
    return int(threads.pop() or 0) or None if len(threads) == 1 else None


def provenance_of_ended(plan: Plan, folder: Path) -> Provenances:
    """How the runs that need not be made again were made."""
    ended = [cell for cell in plan.cells(folder) if ended_status(cell.folder) is not None]
    return {(cell.variant, cell.seed): read_provenance(cell.folder) for cell in ended}


def warn_of_changed_code(plan: Plan, folder: Path) -> None:
    """Warns, before hours of training, that the missing runs will not have the code of the finished ones."""
    done = provenance_of_ended(plan, folder)
    if done and missing_runs(plan, folder):
        for line in code_now({v.name: fingerprint(v.config) for v in plan.variants}, done):
            way_out = "the verdict will be withheld unless you delete their folders or restore the files"
            log.warning("the code has changed: %s; %s", line, way_out)


def job_of(cell: Cell, folder: Path, allow: Sequence[str] = ()) -> Job:
    arguments = [str(variant_file(folder, cell.variant)), "--seed", str(cell.seed), "--output", str(cell.folder)]
    arguments += [word for name in allow for word in ("--allow", name)]
    return Job(cell.name, python("detkit.compare.cell", *arguments), cell.folder)


class Progress:
    """Logs a line for every run that starts or ends, with the time left."""

    def __init__(self, total: int, done: int) -> None:
        self.total, self.done, self.ran = total, done, 0
        self.began = time.monotonic()

    def started(self, job: Job) -> None:
        log.info("%s: started (%s)", job.name, job.folder / CONSOLE)

    def finished(self, job: Job, code: int) -> None:
        self.done, self.ran = self.done + 1, self.ran + 1
        left = (time.monotonic() - self.began) / self.ran * (self.total - self.done)
        status = STATUS_OF_EXIT_CODE.get(code, FAILED)
        if status == FAILED:
            log.error("%s: failed with exit code %d:\n%s", job.name, code, console_tail(job.folder))
        log.info("%s: %s, %d of %d done, %s left", job.name, status, self.done, self.total, duration(left))


def duration(seconds: float) -> str:
    """`42 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def describe(plan: Plan, folder: Path, *, jobs: int, tune: Sequence[str] = (), launcher: LauncherChoice = LOCAL) -> str:
    """The text of --dry-run: variants, runs, and their estimated time from a few measured steps of each variant.

    tune: of `weight` and `lr`. Raises ValueError where the runs themselves would be refused.
    """
    check_continues(plan, folder, tune=bool(tune))
    lines = [f"{plan.title}; baseline {plan.baseline}; seeds {', '.join(map(str, plan.seeds))}; in {folder}"]
    total, threads = 0.0, threads_of(plan, folder, jobs, launcher)
    todo = missing_runs(plan, folder)
    with tempfile.TemporaryDirectory() as scratch:
        for variant in plan.variants:
            missing = sum(cell.variant == variant.name for cell in todo)
            file = Path(scratch) / f"{variant.name}.yaml"
            file.write_text(variant.config.to_yaml(), encoding="utf-8")
            seconds = measure_in_process(file, Path(scratch) / variant.name, plan.seeds[0], threads)
            options = variant.config.options("train")
            evaluations = 2 + (options.iterations - 1) // options.eval_every if options.eval_every else 2
            each = options.iterations * seconds["step"] + evaluations * seconds["evaluation"]
            total += each * missing
            if tune:
                trials = len(list(candidates(plan, variant, tune)))
                short = options.iterations / SHORTENING * seconds["step"] + seconds["evaluation"]
                total += trials * short
                lines.append(f"  {variant.name}: {trials} trials for {', '.join(tune)}: about {duration(short)} each")
            lines.append(
                f"  {variant.name}: {missing} of {len(plan.seeds)} runs to do, {options.iterations} steps of "
                f"{seconds['step']:.3g} s and {evaluations} evaluations of {seconds['evaluation']:.2g} s: "
                f"about {duration(each)} each"
            )
    together = f"about {duration(total / jobs)} with --jobs {jobs} (measured one at a time)"
    return "\n".join([*lines, f"{len(todo)} runs of {threads} threads, {together}"])


def measure_in_process(config: Path, folder: Path, seed: int, threads: int) -> dict[str, float]:
    """Seconds of a step and of an evaluation, measured in a separate process. Raises ValueError if that fails."""
    arguments = python("detkit.compare.cell", str(config), "--seed", str(seed), "--output", str(folder), "--measure")
    environ = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(arguments, capture_output=True, encoding="utf-8", errors="replace", check=False, env=environ)
    if done.returncode != 0:
        raise ValueError(f"{config.stem} fails to run:\n" + "\n".join(done.stderr.splitlines()[-12:]))
    seconds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return seconds
