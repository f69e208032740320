"""Code, threads, machine and libraries over all starts of all runs of a bench."""

import json
from pathlib import Path
from typing import Any

import pytest

from detkit.cli import main
from detkit.compare.fairness import setup_flags
from detkit.compare.plan import make_plan
from detkit.compare.provenance import Provenance, check_code, check_facts, code_now
from detkit.compare.results import collect_results
from detkit.runs.folder import ENVIRONMENT
from detkit.runs.starts import Start, read_starts, with_starts
from tests.compare.made_up import BCE, FACTS, FOCAL, checks, copied, failed, made_up, restart, sign, verdicts
from tests.compare.simulate import Skill

FILE = "detkit/losses/focal.py"


pytestmark = pytest.mark.usefixtures("few_resamples")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return made_up(tmp_path_factory.mktemp("bench"), seeds=[0, 1], skill={"bce": Skill(recall=0.1)})


def began_with(folder: Any, **more: Any) -> None:
    """As if the run had begun with other code or facts."""
    (start,) = read_starts(folder)
    start = Start(code=more.get("code", start.code), facts={**start.facts, **more.get("facts", {})})
    (folder / ENVIRONMENT).write_text(json.dumps(with_starts({"git": "abc"}, [start])))
    sign(folder)


def test_one_code_is_said_with_its_files_starts_and_revision(bench: Any) -> None:
    check = checks(collect_results([bench]))["code"]
    assert check["ok"] is True
    assert check["detail"] == "2 files, the same in all 4 starts of 4 runs; revision abc"


def test_another_code_withholds_the_verdict_and_names_file_and_run(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(bench, tmp_path)
    began_with(folder / "cells/bce/seed_1", code={FILE: "edited", "detkit/_C": "n"})
    said = f"{FILE} differs: one version in bce, seed 1, another in focal, seed 0"
    assert main(["compare", "report", str(folder)]) == 1
    out = capsys.readouterr().out
    assert f"No verdict: not fair: code ({said}" in out
    assert "is worse" not in out
    assert main(["compare", "report", str(folder), "--allow", "code"]) == 0
    out = capsys.readouterr().out
    assert "bce is worse than focal" in out
    assert f"code differs: {said}" in out
    assert f"code differs: {said}" in (folder / "table.tex").read_text()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ({"detkit/_C": "rebuilt"}, "detkit/_C differs: one version in b, seed 1, another in a, seed 0"),
        ({"detkit/_C": None}, "detkit/_C is not in b, seed 1"),
        ({"detkit/new.py": "1"}, "detkit/new.py is only in b, seed 1"),
        ({"plugin p/x.py": "1"}, "plugin p/x.py is only in b, seed 1"),
        ({"helper.py": "1"}, "helper.py is only in b, seed 1"),
        ({"installed einops": "1"}, "installed einops is only in b, seed 1"),
    ],
)
def test_every_kind_of_code_is_compared(tmp_path: Path, code: dict[str, Any], said: str) -> None:
    whole = {"detkit/_C": "n"}
    other = {name: value for name, value in {**whole, **code}.items() if value is not None}
    runs = {("a", 0): whole, ("a", 1): whole, ("b", 0): whole, ("b", 1): other}
    found = judged(tmp_path, {"a": [], "b": []}, runs)
    assert not found["ok"]
    assert said in found["detail"]


def test_a_run_that_was_resumed_with_another_code_is_named_with_its_step(bench: Any, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    restart(folder / "cells/bce/seed_1", code={FILE: "edited"})
    (check,) = failed(collect_results([folder]))
    assert f"bce, seed 1, resumed after step 1: {FILE} has changed" in check["detail"]
    # Brought back in a third start, it took part all the same.
    path = folder / "cells/bce/seed_1"
    starts = read_starts(path)
    (path / ENVIRONMENT).write_text(json.dumps(with_starts({"git": "abc"}, [*starts, starts[0]])))
    sign(path)
    assert len(failed(collect_results([folder]))[0]["detail"].split("; ")) == 2


def test_a_run_of_an_older_detkit_among_others_was_of_another_code(bench: Any, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    path = folder / "cells/bce/seed_1" / ENVIRONMENT
    path.write_text(json.dumps({"git": "abc", "machine": {"threads": 1}}))
    sign(path.parent)
    (check,) = failed(collect_results([folder]))
    assert check["name"] == "code"
    assert check["detail"].startswith("bce, seed 1: an older detkit made at least a part of it")


def test_revisions_of_older_detkits_that_differ_withhold(tmp_path: Path) -> None:
    folder = made_up(tmp_path, old="1234", seeds=[0, 1])
    path = folder / "cells/bce/seed_1" / ENVIRONMENT
    path.write_text(json.dumps({"git": "5678"}))
    results = collect_results([folder])
    assert "5678: bce, seed 1" in failed(results)[0]["detail"]
    assert verdicts(results)["bce"] is None


def test_a_damaged_record_is_said(bench: Any, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    path = folder / "cells/bce/seed_1" / ENVIRONMENT
    path.write_text("{")
    sign(path.parent)
    (check,) = failed(collect_results([folder]))
    assert f"bce, seed 1: {path} is damaged" in check["detail"]


def test_a_run_from_another_machine_is_shown_as_a_difference_that_may_matter(
    bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied(bench, tmp_path)
    restart(folder / "cells/bce/seed_1", facts={"threads": 2, "torch": "2.10.0"})
    results = collect_results([folder])
    assert [(found["name"], found["withholds"]) for found in failed(results)] == [
        ("threads", False),
        ("versions", False),
    ]
    assert verdicts(results)["bce"] == "worse"
    assert results["machine"]["threads"] == "1 (4 runs), 2 (1 runs)"
    assert results["versions"]["torch"] == "2.11.0 (4 runs), 2.10.0 (1 runs)"
    assert main(["compare", "report", str(folder)]) == 0
    assert ", 2 in bce, seed 1: the order of sums may differ, which may matter" in capsys.readouterr().out
    assert "| threads | differs | " in (folder / "report.md").read_text()


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("threads", 2, "threads"), ("cpu", "another CPU", "machine"), ("capability", "DEFAULT", "machine"),
        ("instructions", "avx2", "machine"), ("device", "NVIDIA X", "machine"), ("deterministic", False, "machine"),
        ("processes", 2, "machine"), ("torch", "2.10.0", "versions"), ("torchvision", "0.2", "versions"),
        ("numpy", "1.26", "versions"), ("pillow", "9", "versions"), ("detkit", "0.0.9", "versions"),
    ],
)  # fmt: skip
def test_every_fact_is_compared_over_all_starts(key: str, value: int | str, name: str) -> None:
    facts = {**FACTS, "instructions": "avx512_f"}
    usual, other = Start(facts=facts), Start(facts={**facts, key: value})
    records = {("a", 0): Provenance([usual]), ("b", 0): Provenance([usual, other])}
    (found,) = [check for check in check_facts(records) if not check["ok"]]
    assert (found["name"], found["withholds"]) == (name, False)
    assert f"{key}: {facts[key]} in a, seed 0, b, seed 0, {value} in b, seed 0" in found["detail"]


def test_the_report_prints_the_machine_of_the_runs_not_its_own(bench: Any) -> None:
    results = collect_results([bench])
    assert results["machine"]["cpu"] == "a CPU"
    assert results["machine"]["threads"] == "1"
    assert results["versions"] == {name: FACTS[name] for name in ("detkit", "torch", "torchvision", "numpy", "pillow")}


# ---- variants with code of their own


def importing(tmp_path: Any, name: Any, *entries: Any) -> Any:
    """A variant that imports these files."""
    for entry in entries:
        path = tmp_path / entry
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    file = tmp_path / f"{name}.yaml"
    file.write_text("imports: [" + ", ".join(str(tmp_path / entry) for entry in entries) + "]\n" if entries else "{}\n")
    return file


def judged(tmp_path: Any, variants: Any, codes: Any) -> Any:
    """check_code of a bench. variants: name -> imports; codes: (variant, seed) -> files of their own."""
    files = [importing(tmp_path, name, *entries) for name, entries in variants.items()]
    plan = make_plan("configs/quickstart/shapes.yaml", files)
    records = {run: Provenance([Start(code={FILE: "f", **code})]) for run, code in codes.items()}
    return check_code(plan, records, {})


def test_a_variant_may_import_code_that_others_lack(tmp_path: Path) -> None:
    found = judged(tmp_path, {"a": ["p_a.py"], "b": []}, {("a", 0): {"p_a.py": "1", "helper.py": "2"}, ("b", 0): {}})
    assert found["ok"], found
    assert "a imports its own code: helper.py, p_a.py" in found["detail"]


def test_an_edited_part_that_a_copied_variant_imports_is_named(tmp_path: Path) -> None:
    variants = {"a": ["p_part.py"], "b": ["p_part.py"]}
    found = judged(tmp_path, variants, {("a", 0): {"p_part.py": "relu"}, ("b", 0): {"p_part.py": "silu"}})
    assert not found["ok"]
    assert "p_part.py differs: one version in b, seed 0, another in a, seed 0" in found["detail"]


def test_a_shared_part_is_compared_though_one_variant_imports_more(tmp_path: Path) -> None:
    variants = {"a": ["p_part.py"], "b": ["p_part.py", "p_more.py"]}
    code = {("a", 0): {"p_part.py": "relu"}, ("b", 0): {"p_part.py": "silu", "p_more.py": "1"}}
    assert "p_part.py differs" in judged(tmp_path, variants, code)["detail"]
    code = {
        ("a", 0): {"p_part.py": "relu", "h.py": "1"},
        ("b", 0): {"p_part.py": "relu", "h.py": "2", "p_more.py": "1"},
    }
    assert judged(tmp_path, variants, code)["detail"].startswith("h.py differs")


def test_a_variant_s_own_part_that_changed_between_seeds_is_named(tmp_path: Path) -> None:
    code = {("a", 0): {"p_a.py": "1"}, ("a", 1): {"p_a.py": "2"}, ("b", 0): {}, ("b", 1): {}}
    assert "p_a.py differs" in judged(tmp_path, {"a": ["p_a.py"], "b": []}, code)["detail"]
    code = {("a", 0): {"p_a.py": "1", "late.py": "3"}, ("a", 1): {"p_a.py": "1"}, ("b", 0): {}, ("b", 1): {}}
    assert "late.py is only in a, seed 0" in judged(tmp_path, {"a": ["p_a.py"], "b": []}, code)["detail"]


def test_two_projects_may_each_have_a_file_of_the_same_name(tmp_path: Path) -> None:
    variants = {"a": ["x/p_net.py"], "b": ["y/p_net.py"]}
    assert judged(tmp_path, variants, {("a", 0): {"p_net.py": "1"}, ("b", 0): {"p_net.py": "2"}})["ok"]
    again = {("a", 0): {"p_net.py": "1"}, ("b", 0): {"p_net.py": "2"}, ("b", 1): {"p_net.py": "3"}}
    assert "p_net.py differs" in judged(tmp_path, variants, again)["detail"]


def test_variants_that_import_different_files_are_flagged() -> None:
    assert list(setup_flags(["imports.0", "losses.classification.gamma"], {"a": "x", "b": "x"})) == [
        "The imports differ: parts of the same name may be different code."
    ]


def test_a_variant_that_was_tuned_with_other_code_is_named(bench: Any, tmp_path: Path) -> None:
    folder = copied(bench, tmp_path)
    (start,) = read_starts(folder / "cells/bce/seed_0")
    for name, code in (("weight_x1", start.code), ("weight_x2", {**start.code, FILE: "then"})):
        trial = folder / "tuning/bce" / name
        trial.mkdir(parents=True)
        (trial / ENVIRONMENT).write_text(json.dumps(with_starts({}, [Start(code=code)])))
    results = collect_results([folder])
    (found,) = failed(results)
    assert (found["name"], found["detail"]) == ("code", f"bce was tuned with other code: {FILE} has changed")
    assert verdicts(results)["bce"] is None


def test_a_file_under_another_name_with_the_same_content_is_no_difference(tmp_path: Path) -> None:
    variants = {"a": ["p_old.py"], "b": ["p_new.py"]}
    assert judged(tmp_path, variants, {("a", 0): {"p_old.py": "1"}, ("b", 0): {"p_new.py": "1"}})["ok"]


def test_code_that_changed_since_is_said_before_the_runs_to_come(tmp_path: Path) -> None:
    records = {("a", 0): Provenance([Start(code={FILE: "old"})]), ("b", 0): Provenance([])}
    assert code_now({"a": {FILE: "new"}, "b": {FILE: "new"}}, records) == [f"{FILE} has changed since a, seed 0 ran"]
    assert code_now({"a": {FILE: "old"}}, records) == []
    late = {("a", 0): Provenance([Start(code={FILE: "old", "imported_while_built.py": "1"})])}
    assert code_now({"a": {FILE: "old"}}, late) == []


def test_both_variants_of_a_bench_are_there() -> None:
    plan = make_plan("configs/quickstart/shapes.yaml", [FOCAL, BCE])
    assert check_code(plan, {}, {})["detail"] == "no run yet"
