"""What launchers put into the environment, and what contradicts itself."""

from __future__ import annotations

import pytest

from detkit.distributed.process_info import (
    PORTS,
    ProcessInfo,
    find_process_info,
    first_host,
    launcher_node_rank,
    tasks_per_node,
)
from tests.refusals import Refuses

TORCHRUN = {
    "RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "GROUP_RANK": "1",
    "MASTER_ADDR": "node0", "MASTER_PORT": "29401", "TORCHELASTIC_RUN_ID": "r", "TORCHELASTIC_RESTART_COUNT": "2",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}  # fmt: skip
SRUN = {
    "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "7", "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_TASKS_PER_NODE": "4,3", "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_NTASKS": "7",
}  # fmt: skip
OPENMPI = {
    "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2", "PMIX_NAMESPACE": "prterun-host-12@1",
}  # fmt: skip


def test_nothing_means_alone() -> None:
    assert find_process_info({"PATH": "/bin"}) == ProcessInfo()
    assert not ProcessInfo().is_worker


def test_torchrun() -> None:
    process = find_process_info(TORCHRUN)
    assert (process.rank, process.world_size, process.local_rank, process.local_world_size) == (5, 8, 1, 4)
    assert (process.launcher, process.store, process.hosts_store) == ("torchrun", "node0:29401", False)
    assert (process.round, process.run_id) == ("2", "r")


def test_rank_0_keeps_the_store_where_no_agent_does() -> None:
    by_hand = {k: v for k, v in TORCHRUN.items() if not k.startswith("TORCHELASTIC")}
    assert find_process_info(by_hand | {"RANK": "0", "LOCAL_RANK": "0"}).hosts_store
    assert not find_process_info(by_hand).hosts_store


def test_srun() -> None:
    process = find_process_info(SRUN)
    assert (process.rank, process.world_size, process.local_rank, process.local_world_size) == (5, 7, 1, 3)
    assert (process.launcher, process.node_rank, process.hosts_store) == ("slurm", 1, False)
    host, _, port = process.store.partition(":")
    assert host == "gpu07"
    assert int(port) in PORTS
    first = find_process_info(SRUN | {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"})
    assert first.hosts_store
    assert first.store == process.store
    assert first.local_world_size == 4
    assert find_process_info(SRUN | {"SLURM_JOB_ID": "78"}).store != process.store


@pytest.mark.parametrize(
    ("more", "store"),
    [
        ({"MASTER_ADDR": "a", "MASTER_PORT": "9"}, "a:9"),
        ({"SLURM_STEP_RESV_PORTS": "12000-12003"}, "gpu07:12000"),
        ({"SLURM_STEP_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_STEP_TASKS_PER_NODE": "7", "MASTER_PORT": "9"},
         "127.0.0.1:9"),
    ],
)  # fmt: skip
def test_where_the_tasks_of_a_step_meet(more: dict[str, str], store: str) -> None:
    assert find_process_info(SRUN | more).store == store


def test_a_batch_script_is_one_process() -> None:
    script = {"SLURM_JOB_ID": "77", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    assert find_process_info(script) == ProcessInfo()
    assert find_process_info(SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) == ProcessInfo()


def test_mpirun() -> None:
    process = find_process_info(OPENMPI)
    assert (process.rank, process.world_size, process.local_rank, process.launcher) == (1, 2, 1, "mpi")
    assert process.store.startswith("127.0.0.1:")
    intel = find_process_info({"PMI_RANK": "3", "PMI_SIZE": "4", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "2",
                        "MASTER_ADDR": "n0"})  # fmt: skip
    assert (intel.rank, intel.local_rank, intel.local_world_size, intel.node_rank) == (3, 1, 2, 1)


def test_the_innermost_launcher_counts() -> None:
    assert find_process_info(SRUN | TORCHRUN).launcher == "torchrun"
    assert find_process_info(SRUN | OPENMPI).launcher == "mpi"  # mpirun starts its daemons by srun
    assert find_process_info(SRUN | {"PMI_RANK": "5", "PMI_SIZE": "7"}).launcher == "slurm"  # srun --mpi=pmi2


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"RANK": "0"}, ["RANK but not WORLD_SIZE, MASTER_ADDR, MASTER_PORT"]),
        (TORCHRUN | {"RANK": "8"}, ["rank 8 of 8"]),
        (TORCHRUN | {"LOCAL_RANK": "4"}, ["local rank 4 of 4"]),
        (TORCHRUN | {"MASTER_PORT": "abc"}, ["port 'abc'", "MASTER_PORT"]),
        (TORCHRUN | {"MASTER_PORT": "70000"}, ["port '70000'", "between 1 and 65535"]),
        (TORCHRUN | {"MASTER_PORT": "0"}, ["port '0'", "between 1 and 65535"]),
        (TORCHRUN | {"RANK": "one"}, ["RANK is 'one': must be a whole number"]),
        ({k: v for k, v in TORCHRUN.items() if k != "LOCAL_RANK"}, ["LOCAL_RANK"]),
        (SRUN | {k: v for k, v in TORCHRUN.items() if not k.startswith("TORCHELASTIC")},
         ["disagree", "rank 5 of 8", "srun sets rank 5 of 7"]),
        (SRUN | {"PMI_RANK": "0", "PMI_SIZE": "7"}, ["disagree", "PMI_RANK", "srun sets rank 5"]),
        (OPENMPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"},
         ["MASTER_ADDR", "mpirun -x"]),
        ({k: v for k, v in SRUN.items() if k != "SLURM_LOCALID"}, ["SLURM_LOCALID is missing"]),
    ],
)  # fmt: skip
def test_what_is_missing_impossible_or_contradictory_is_refused(environ: dict[str, str], words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        find_process_info(environ)
    assert all(word in str(error.value) for word in words), error.value


def test_a_launcher_inside_of_a_launcher(refuses: Refuses) -> None:
    one_each = find_process_info(SRUN | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
                                  "SLURM_PROCID": "1", "SLURM_LOCALID": "0"})  # fmt: skip
    assert launcher_node_rank(one_each, nodes=2) == 1
    assert launcher_node_rank(ProcessInfo(), nodes=1) == 0
    for process, nodes in ((one_each, 1), (find_process_info(SRUN), 2), (find_process_info(TORCHRUN), 2)):
        with refuses(ValueError):
            launcher_node_rank(process, nodes)


@pytest.mark.parametrize(
    ("listed", "first"),
    [("gpu07", "gpu07"), ("gpu07,gpu09", "gpu07"), ("gpu[07-09,11],cpu1", "gpu07"), ("a-b[1,3]", "a-b1"),
     ("r[1-2]n[3-4]", "r1n3"), ("n[1-2]-ib,m", "n1-ib")],
)  # fmt: skip
def test_first_host_of_a_list(listed: str, first: str) -> None:
    assert first_host(listed) == first


def test_tasks_per_node() -> None:
    assert tasks_per_node("4(x2),3", 11, 3) == [4, 4, 3]
    assert tasks_per_node("", 7, 2) == [4, 4]
