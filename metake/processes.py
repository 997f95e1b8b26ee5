"""Process groups of `torch.distributed`, as `torchrun` starts them.

After `torch.distributed.init_process_group` the windows of a text (statistics) and the requests of a batch (upper
level) are distributed over the models, and every process ends with the same edit. Each process has a model of its own,
or shares it with others after `share_models`. In a single process the functions here change nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metake.errors import MetakeError

if TYPE_CHECKING:  # torch takes seconds to import: only where there is a model
    from torch import Tensor


NUMBERS = ("RANK", "LOCAL_RANK", "MASTER_PORT")
VARIABLES = (*NUMBERS, "MASTER_ADDR")  # set by torchrun, besides WORLD_SIZE


@dataclass
class _Sharing:
    """How processes share models.

    Attributes:
        shards: processes per model.
        peers: process group of those that hold the same share of each model; None for all processes.
        world: process group in which the sharing was set up; it ends with this group.
    """

    shards: int = 1
    peers: Any = None
    world: Any = None


_sharing = _Sharing()


@contextmanager
def process_group() -> Iterator[None]:
    """Context inside the process group that `torchrun` describes, if there is one; only rank 0 prints.

    Raises:
        MetakeError: `WORLD_SIZE` names several processes, but the other variables of `torchrun` are missing or wrong.
    """
    count = os.environ.get("WORLD_SIZE") or "1"
    if count == "1":
        yield
        return
    if problem := _problem(count):
        raise MetakeError(f"{problem}; start processes by torchrun, or unset WORLD_SIZE")
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        with open(os.devnull, "w", encoding="utf-8") as null:
            silent = not is_first()
            out = redirect_stdout(null) if silent else nullcontext()
            with out, redirect_stderr(null) if silent else nullcontext():
                yield
    finally:
        dist.destroy_process_group()


def _problem(count: str) -> str | None:
    """The missing or wrong variable of `torchrun`, if any."""
    for name in VARIABLES:
        if not os.environ.get(name):
            return f"WORLD_SIZE={count}: {name} is not set"
    for name in ("WORLD_SIZE", *NUMBERS):
        if not os.environ[name].isdigit():
            return f"{name}={os.environ[name]}: no number"
    return None


def share_models(shards: int | None) -> Any:
    """Let processes share models: consecutive ones hold shares of the same model.

    Args:
        shards: processes per model; None for one model in all.

    Returns:
        The mesh of the processes that share this process's model.

    Raises:
        MetakeError: there is one process only, or the number of processes is no multiple of `shards`.
    """
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        raise MetakeError(
            "device: sharded needs several processes; start them by torchrun --nproc-per-node N"
        )
    world = dist.get_world_size()
    shards = shards or world
    if world % shards:
        raise MetakeError(f"device: sharded:{shards}: {world} processes are no multiple of {shards}")
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(kind, (world // shards, shards), mesh_dim_names=("model", "share"))
    _sharing.shards, _sharing.peers, _sharing.world = shards, mesh["model"].get_group(), dist.group.WORLD
    return mesh["share"]


def _shared() -> _Sharing:
    """The sharing of this process group."""
    import torch.distributed as dist

    return _sharing if _sharing.world is dist.group.WORLD else _Sharing()


def is_first() -> bool:
    """Whether this is the process that prints and saves."""
    import torch.distributed as dist

    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def wait_for_all() -> None:
    """Wait until every process is here."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.barrier()


def rank_and_size() -> tuple[int, int]:
    """Number of this process's model among all models, and their number; `(0, 1)` without a process group.

    Work is distributed over models: the processes of one model do the same.
    """
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        shards = _shared().shards
        return dist.get_rank() // shards, dist.get_world_size() // shards
    return 0, 1


def all_reduce_sum(values: Tensor) -> Tensor:
    """Sum over all models, the same in every process, on the device of `values`.

    Args:
        values: tensor of the same shape in every process; returned as it is for a single model.

    Returns:
        A tensor like `values`, without gradients.
    """
    if rank_and_size()[1] == 1:
        return values
    import torch
    import torch.distributed as dist

    device = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
    summed = values.detach().to(device, copy=True).contiguous()
    dist.all_reduce(summed, group=_shared().peers)
    return summed.to(values.device)
