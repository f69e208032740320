"""`detkit train --procs` and its like, as a user runs them."""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from detkit.cli import main
from detkit.distributed.launch import check_devices
from detkit.distributed.launch_options import LaunchOptions
from detkit.distributed.rendezvous import interface_of, own_address
from detkit.train.cli import add_arguments, parse_nodes, worker_words
from detkit.utils.cores import usable_cores
from detkit.utils.exit_codes import ExitCode
from tests.refusals import Refuses

if TYPE_CHECKING:
    from tests.distributed.conftest import Tiny
else:
    Tiny = Any

SLURM = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1", "SLURM_NODEID": "0"}
MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "configs/quickstart/shapes.yaml"


@pytest.mark.parametrize(
    "options",
    [
        {"procs": 0},
        {"max_nodes": 2},
        {"min_nodes": 3, "max_nodes": 2, "rdzv": "a:1"},
        {"max_nodes": 2, "rdzv": "node0"},
        {"max_nodes": 2, "rdzv": "node0:0"},
        {"max_nodes": 2, "rdzv": "node0:9", "node_rank": 2},
        {"max_restarts": -1},
    ],
)
def test_launch_options_that_can_t_be(refuses: Refuses, options: dict[str, Any]) -> None:
    with refuses(ValueError):
        LaunchOptions(**options)


def test_nodes(refuses: Refuses) -> None:
    assert parse_nodes("2") == (2, 2)
    assert parse_nodes("1:4") == (1, 4)
    for text in ("two", "1:", ":", "1:x", "-1"):
        with refuses(ValueError):
            parse_nodes(text)


def test_workers_get_the_command_without_what_launches() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = ["c.yaml", "a=$b", "--overlay", "o.yaml", "--output", "r", "--overwrite", "--procs", "2", "--nodes", "2",
             "--rdzv", "h:1", "--node-rank", "1", "--max-restarts", "0", "--local-addr", "h", "--check"]  # fmt: skip
    mine = worker_words(parser.parse_intermixed_args(words))
    assert mine == ["train", "c.yaml", "a=$b", "--overlay", "o.yaml", "--output", "r", "--overwrite", "--check"]
    # Every flag of the verb is either passed on or one that launches: a new one can't be forgotten here.
    flags = vars(parser.parse_intermixed_args(["c.yaml"])).keys() - {"config", "overrides"}
    launching = {"procs", "nodes", "node_rank", "rdzv", "max_restarts", "local_addr"}
    launching |= {"minutes", "config_only"}  # the config of a data set is written before the workers start
    source = (
        Path(sys.modules["detkit.train.cli"].__file__ or "")
        .read_text(encoding="utf-8")
        .partition("def worker_words")[2]
    )
    assert all(re.search(rf"\b{flag}\b", source.partition("\n\n\n")[0]) for flag in flags - launching)


def test_more_processes_than_cores_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    cores = usable_cores()
    check_devices(LaunchOptions(procs=cores))
    assert capsys.readouterr().err == ""
    check_devices(LaunchOptions(procs=cores + 1))
    assert f"--procs {cores + 1} on {cores} CPU cores" in capsys.readouterr().err
    check_devices(LaunchOptions(procs=cores, threads=2))
    assert "of 2 threads" in capsys.readouterr().err


def test_more_processes_than_gpus_are_refused(refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    check_devices(LaunchOptions(procs=1, on_gpu=True))
    with refuses(ValueError):
        check_devices(LaunchOptions(procs=2, on_gpu=True))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux")
def test_addresses_and_interfaces(refuses: Refuses) -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("192.0.2.1") is None
    assert own_address(LaunchOptions()) == "127.0.0.1"
    assert own_address(LaunchOptions(max_nodes=2, rdzv="127.0.0.1:29400")) == "127.0.0.1"
    assert own_address(LaunchOptions(max_nodes=2, rdzv="h:1", local_addr="10.0.0.9")) == "10.0.0.9"
    with refuses(ValueError, hide=r"\[Errno[^;]*"):
        own_address(LaunchOptions(max_nodes=2, rdzv="no.such.host.invalid:1"))


def test_check_looks_at_everything_and_trains_nothing(tiny: Tiny) -> None:
    out, error = tiny.finish(tiny.start("checked", "--procs", "2", "--check"))
    lines = dict(line.split(maxsplit=1) for line in out.splitlines())
    assert lines["ranks"].startswith("2 by detkit train --procs; ")
    assert re.match(r"gloo, all-reduce of 4 bytes \d+\.\d\d ms, of 64 MB \d+ ms \(\d+\.\d\d GB/s\)", lines["network"])
    assert "the same on all ranks" in lines["data"]
    assert lines["ready"] == "2 processes"
    assert error == ""
    assert not (tiny.folder / "checked").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--procs", "2", "optimizer.lrr=1"], "optimizer.lrr: unknown key"),
        (["--nodes", "2"], "--nodes 2 needs --rdzv"),
        (["--max-restarts", "2"], "--max-restarts requires --procs or --nodes"),
        (["--procs", "2", "--resume", "--overwrite"], "choose one"),
    ],
)
def test_what_is_wrong_never_comes_to_a_worker(
    more: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("detkit.distributed.launch.run_agent", lambda *_: pytest.fail("workers were started"))
    assert main(["train", str(QUICKSTART), "--output", str(tmp_path / "run"), *more]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1


def in_slurm(tiny: Any, run: Any, *more: Any, last: Any = ()) -> list[subprocess.Popen[str]]:
    """Two tasks as srun starts them; `last`: words that only the second one gets."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    return [
        tiny.start(run, *more, *(last if r else ()), **SLURM, MASTER_PORT=port, SLURM_PROCID=str(r),
                   SLURM_LOCALID=str(r))
        for r in range(2)
    ]  # fmt: skip


@pytest.mark.slow
def test_a_rank_with_another_config_is_named_once(tiny: Tiny) -> None:
    processes = in_slurm(tiny, "differs", last=("optimizer.lr=0.5",))
    errors = [tiny.finish(process, code=2)[1] for process in processes]
    assert re.fullmatch(r"error: config: \w+ on rank 1 \(.+\), \w+ on rank 0 \(.+\); start every rank with .+\n",
                        "".join(errors))  # fmt: skip
    assert not (tiny.folder / "differs").exists()


HANGING = """
import os, time
import torch.distributed as dist

os.environ["DETKIT_CONNECT_SECONDS"] = "4"
connect = dist.init_process_group

def hang(*args, **more):
    while os.environ["SLURM_PROCID"] == "1":
        time.sleep(1)
    connect(*args, **more)

dist.init_process_group = hang
"""


def test_a_rank_that_differs_is_named_before_the_ranks_connect(tiny: Tiny) -> None:
    """Of different devices they would wait in different backends."""
    (tiny.folder / "hanging.py").write_text(HANGING)
    imports = f"imports=[{tiny.folder}/tiny.py, {tiny.folder}/hanging.py]"
    processes = in_slurm(tiny, "differs_too", imports, last=("optimizer.lr=0.5",))
    assert "config: " in "".join(tiny.finish(process, code=2, seconds=60)[1] for process in processes)


@pytest.mark.slow
def test_a_rank_that_hangs_while_the_ranks_connect_is_named(tiny: Tiny) -> None:
    (tiny.folder / "hanging.py").write_text(HANGING)
    processes = in_slurm(tiny, "connecting", f"imports=[{tiny.folder}/tiny.py, {tiny.folder}/hanging.py]")
    errors = [tiny.finish(process, code=ExitCode.HUNG, seconds=60)[1] for process in processes]
    assert "error: no progress for 4 s (DETKIT_CONNECT_SECONDS)\n" in errors[1]
    assert re.search(r"rank 1 on .+ \(process \d+\): step 0, connecting  <- ", errors[1])
    assert " in hang\n" in errors[1], "its stack"


NAN = """
import os
from torch import nn
from detkit.registry import BACKBONES
from tiny import TinyNet

@BACKBONES.register()
class NanNet(TinyNet):
    def forward(self, images):
        images = images * float("nan") if self.training and os.environ["RANK"] == "1" else images
        return super().forward(images)
"""


def test_a_loss_that_is_not_finite_on_one_rank_is_told_with_that_rank_s_images(tiny: Tiny) -> None:
    (tiny.folder / "nan.py").write_text(NAN)
    more = [f"imports=[{tiny.folder}/tiny.py,{tiny.folder}/nan.py]", "backbone.type=NanNet"]
    _, error = tiny.finish(tiny.start("nan", "--procs", "2", *more, PYTHONPATH=f"{tiny.folder}:{ROOT}"), code=3)
    assert error.count("the loss is not finite at step 1") == 1, error
    assert "rank 1:" in error
    assert "rank 0" not in error
    assert "classification nan" in error
    assert "exit code" not in error
    assert "restart" not in error
    for name in ("log.txt", "log_rank1.txt"):
        assert "rank 1:" in (tiny.folder / "nan" / name).read_text()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
def test_a_run_under_nohup_outlives_its_terminal(tiny: Tiny) -> None:
    process = tiny.start("nohup", "--procs", "1", before=("nohup",))
    tiny.wait_for_step("nohup", 2, process)
    process.send_signal(signal.SIGHUP)
    tiny.finish(process)


@pytest.mark.parametrize("flag", ["--check", pytest.param("--overwrite", marks=pytest.mark.slow)])
def test_what_every_rank_refuses_is_said_once_and_not_tried_again(tiny: Tiny, flag: str) -> None:
    _, error = tiny.finish(tiny.start("uneven", "--procs", "2", "data.loader.batch_size=3", flag), code=2)
    assert not (tiny.folder / "uneven").exists()
    assert error.count("error: ") == 1
    assert "3 images can't be split evenly over 2 processes x 1 micro-batch: choose a multiple of 2" in error


@pytest.mark.slow
def test_every_launcher_gives_the_same_run(tiny: Any, whole: str) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "detkit", *tiny.command("torchrun")[3:]],
        capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outputs = [tiny.finish(process)[0] for process in in_slurm(tiny, "slurm")]
    assert outputs[1] == "", "only rank 0 speaks"
    mpi = [
        tiny.start("mpi", **MPI, OMPI_COMM_WORLD_RANK=str(r), OMPI_COMM_WORLD_LOCAL_RANK=str(r),
                   PMIX_NAMESPACE=f"test-{os.getpid()}")
        for r in range(2)
    ]  # fmt: skip
    for process in mpi:
        tiny.finish(process)
    for run in ("torchrun", "slurm", "mpi"):
        tiny.assert_same(whole, run)


@pytest.mark.slow
def test_two_jobs_on_one_machine_do_not_meet(tiny: Tiny, whole: str) -> None:
    jobs = {run: tiny.start(run, "--procs", "2") for run in ("job1", "job2")}
    for run, process in jobs.items():
        tiny.finish(process)
        tiny.assert_same(whole, run)


@pytest.mark.slow
def test_a_crash_of_one_rank_is_told_once_and_last(tiny: Tiny) -> None:
    crash = tiny.folder / "crash.py"
    crash.write_text(
        "import os\nfrom detkit.data.datasets.shapes import ShapesDataset\nfrom detkit.registry import DATASETS\n"
        "@DATASETS.register()\nclass Crash(ShapesDataset):\n"
        "    def load_image(self, index):\n"
        "        if os.environ['RANK'] == '1' and index > 8:\n            raise IndexError('not on my watch')\n"
        "        return super().load_image(index)\n"
    )
    config = tiny.folder / "crash.yaml"
    config.write_text(
        f"_base_: {tiny.folder}/tiny.yaml\nimports: [{tiny.folder}/tiny.py, {crash}]\n"
        "backbone: {type: TinyNet}\ndata:\n  train:\n    dataset: {type: Crash, num_images: 24, size: 64}\n"
    )
    words = tiny.command("crash", "--procs", "2", "--max-restarts", "0")
    words[4] = str(config)
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=120)
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("not on my watch") >= 1
    assert done.stderr.count("raise IndexError('not on my watch')") == 1
    last = done.stderr.rstrip().splitlines()[-1]
    assert last.startswith("error: rank 1 on ")
    assert "not on my watch" in done.stderr.rpartition("Traceback")[2]
