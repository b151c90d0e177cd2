"""Which devices train, and how the processes of several of them talk.

Each of several devices has a process of its own, with the same weights and a share of every batch.
The first of them is the one that started the run, or rank 0 of torchrun or Slurm: it alone writes
and prints.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import torch
from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor, distributed

from goldilocks.errors import Refused, one_line

T = TypeVar("T")
PATIENCE = timedelta(
    minutes=30
)  # that processes wait for each other: one may draw or measure meanwhile
ONE_DEVICE = {"devices": 1, "num_nodes": 1, "strategy": "auto"}
StrategyName = Literal["auto", "ddp", "fsdp"]


# --- what there is --------------------------------------------------------------------------------


def has_gpu() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def trains_on_cpu(accelerator: str) -> bool:
    """Whether an option's accelerator is the CPU on this machine."""
    return accelerator == "cpu" or not has_gpu()


def kind_of(accelerator: str) -> str:
    """`cuda`, `mps` or `cpu`: what an option's accelerator is on this machine."""
    if trains_on_cpu(accelerator):
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "mps"


def named(kind: str) -> str:
    """A kind of device in words: the name of the GPU."""
    return (
        torch.cuda.get_device_name(0)
        if kind == "cuda"
        else {"cpu": "the CPU", "mps": "Apple's MPS"}[kind]
    )


def started_elsewhere() -> ClusterEnvironment | None:
    """torchrun or Slurm, where one of them has started this process beside others.

    Raises:
        Refused: for what Lightning does not take of Slurm.
    """
    try:
        for kind in (TorchElasticEnvironment, SLURMEnvironment):
            if kind.detect() and (environment := kind()).world_size() > 1:
                return environment
    except RuntimeError as error:
        raise Refused(one_line(error)) from error
    return None


# --- what is asked for ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """The processes that train.

    Attributes:
        kind: Of the devices: `cpu`, `cuda`, `mps`.
        devices: On each machine.
        nodes: Machines.
        strategy: `single`: this process alone, with no other to talk to.
    """

    kind: str
    devices: int
    nodes: int
    strategy: Literal["single", "ddp", "fsdp"]

    @property
    def size(self) -> int:
        return self.devices * self.nodes

    def in_words(self) -> str:
        """`the CPU`, `NVIDIA H100 80GB HBM3`, `the CPU, 2 processes (ddp)`."""
        processes = f"{self.size} process{'es' if self.size > 1 else ''}"
        return named(self.kind) + (
            "" if self.strategy == "single" else f", {processes} ({self.strategy})"
        )


def plan(options: Mapping[str, Any]) -> Plan:
    """Reads the trainer's options `accelerator`, `devices`, `num_nodes` and `strategy`.

    Raises:
        Refused: for devices that are not there.
    """
    accelerator, nodes = options.get("accelerator", "auto"), options.get("num_nodes", 1)
    asked, strategy = options.get("devices", 1), options.get("strategy", "auto")
    if accelerator == "gpu" and not has_gpu():
        raise Refused(
            "trainer.accelerator=gpu: no GPU was found; write trainer=auto or trainer=cpu"
        )
    kind, elsewhere = kind_of(accelerator), started_elsewhere()
    there = {"cuda": torch.cuda.device_count(), "mps": 1, "cpu": max(os.cpu_count() or 1, 2)}[kind]
    devices: int = asked if asked != "auto" else 1 if kind == "cpu" else there
    if elsewhere is not None:
        devices, nodes = shape_of(elsewhere, asked, nodes)
    elif nodes > 1:
        raise Refused(
            f"trainer.num_nodes={nodes}: each machine must start its part; write torchrun"
            f" --nnodes={nodes}"
            f" --nproc-per-node={devices} --rdzv-backend=c10d --rdzv-endpoint=HOST:29500 train.py"
            " ..., or srun under"
            " Slurm"
        )
    if devices > there:
        what = "cores, one for a process" if kind == "cpu" else "GPUs"
        raise Refused(
            f"trainer.devices={devices}: this machine has {there} {what}; write"
            f" trainer.devices={there}"
        )
    if strategy == "fsdp" and kind == "mps":
        raise Refused("trainer.strategy=fsdp: needs CUDA or the CPU; write trainer=auto")
    several = devices * nodes > 1
    return Plan(
        kind, devices, nodes, strategy if strategy != "auto" else "ddp" if several else "single"
    )


def shape_of(environment: ClusterEnvironment, devices: int | str, nodes: int) -> tuple[int, int]:
    """Processes on each machine and machines, as torchrun or Slurm has started them.

    Raises:
        Refused: if something else was asked for.
    """
    size = environment.world_size()
    if isinstance(environment, SLURMEnvironment):
        machines = int(os.environ.get("SLURM_NNODES") or os.environ.get("SLURM_JOB_NUM_NODES") or 1)
        who = "Slurm"
    else:
        machines = size // int(os.environ["LOCAL_WORLD_SIZE"])
        who = "torchrun"
    found = size // machines, machines
    for name, asked, there in (("devices", devices, found[0]), ("num_nodes", nodes, machines)):
        if asked not in (1, "auto", there):
            raise Refused(
                f"trainer.{name}={asked}: {who} has started {there}; write {there}, or leave it out"
            )
    return found


def strategy_of(plan: Plan) -> dict[str, Any]:
    """Lightning's arguments for devices, in a process that has joined the others."""
    places = {"accelerator": plan.kind, "devices": plan.devices, "num_nodes": plan.nodes}
    if plan.strategy == "single":
        return places
    found: Strategy = PreStartedDDP()
    if plan.strategy == "fsdp":
        sizes: dict[str, Any] = {"data_parallel_size": plan.size, "tensor_parallel_size": 1}
        found = PreStartedSharded(**sizes, save_distributed_checkpoint=False)
    plugins = None if started_elsewhere() else [LocalCluster(rank(), size())]
    return {**places, "strategy": found, "plugins": plugins}


class PreStartedDDP(DDPStrategy):
    """Lightning's, which starts no processes: they are there.
    Its launcher would also set the number of threads.
    """

    def _configure_launcher(self) -> None:
        pass


class PreStartedSharded(ModelParallelStrategy):
    """Lightning's for sharded training, in processes that are there."""

    def _configure_launcher(self) -> None:
        pass


class LocalCluster(ClusterEnvironment):
    """Tells Lightning what it would otherwise read from variables:
    the processes are there, and have joined.
    """

    creates_processes_externally = True
    main_address, main_port = "127.0.0.1", 0

    def __init__(self, rank: int, size: int) -> None:
        super().__init__()
        self._rank, self._size = rank, size

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self._size

    def set_world_size(self, size: int) -> None:
        assert size == self._size

    def global_rank(self) -> int:
        return self._rank

    def set_global_rank(self, rank: int) -> None:
        assert rank == self._rank

    def local_rank(self) -> int:
        return self._rank

    def node_rank(self) -> int:
        return 0


# --- how they talk --------------------------------------------------------------------------------


def rank() -> int:
    """This process's number among those that train together, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0


def share(make: Callable[[], T]) -> T:
    """What the first process makes, for all of them. They all must come here."""
    if size() == 1:
        return make()
    made = [make() if is_first() else None]
    distributed.broadcast_object_list(made, src=0, device=torch.device("cpu"))
    return cast("T", made[0])


def total(*numbers: Tensor) -> Tensor:
    """Numbers of this process, on the CPU, each summed over all processes.
    They all must come here.
    """
    summed = torch.stack(numbers)
    if size() > 1:
        distributed.all_reduce(summed)
    return summed


def free_memory(kind: str) -> int:
    """Bytes that are free on the first device of a kind;
    of a CPU, all that this process may have.
    """
    if kind == "cuda":
        return torch.cuda.mem_get_info()[0]
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    with suppress(OSError, ValueError):
        whole = min(whole, int(limit.read_text()))
    return whole


def mean_over_rows(losses: list[Tensor], sizes: list[int]) -> tuple[float, int]:
    """The mean loss over the rows of all devices, and their number,
    from the mean losses of batches, of one or of several in a tensor.
    """
    given = [loss.reshape(-1) for loss in losses]
    values = torch.cat(given).cpu().double() if given else torch.zeros(0, dtype=torch.double)
    rows = torch.tensor(sizes, dtype=torch.double)
    summed, count = total(values @ rows, rows.sum())
    return float(summed / count), int(count)


def open_store(port: int = 0) -> distributed.TCPStore:
    """Where the processes of this machine find each other; without a port, a new one."""
    options: dict[str, Any] = {
        "is_master": port == 0,
        "wait_for_workers": False,
        "timeout": PATIENCE,
    }
    return distributed.TCPStore("127.0.0.1", port, **options)


@contextmanager
def member(
    kind: str, rank: int, size: int, store: distributed.Store | None = None
) -> Iterator[None]:
    """Within the block, this process is one of several.

    Args:
        kind: Of the devices.
        rank: Of this process.
        size: Of all.
        store: Where they find each other; None: at `MASTER_ADDR` and `MASTER_PORT`.
    """
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", rank)) if store is None else rank)
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    distributed.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=PATIENCE
    )
    try:
        yield
    finally:
        distributed.destroy_process_group()


@contextmanager
def joined(options: Mapping[str, Any]) -> Iterator[None]:
    """Within the block, a process that torchrun or Slurm has started is one of several;
    any other is as it was.
    """
    environment = started_elsewhere()
    if environment is None or distributed.is_initialized():
        yield
        return
    os.environ.setdefault("MASTER_ADDR", environment.main_address)
    os.environ.setdefault("MASTER_PORT", str(environment.main_port))
    os.environ.setdefault("LOCAL_RANK", str(environment.local_rank()))
    with member(plan(options).kind, environment.global_rank(), environment.world_size()):
        yield
