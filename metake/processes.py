"""Process groups of `torch.distributed`, each process with a copy of the model, as `torchrun` starts them.

After `torch.distributed.init_process_group` the windows of a text (statistics) and the requests of a batch (upper
level) are distributed over the processes, and every process ends with the same edit. In a single process the functions
here change nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

from metake.errors import MetakeError

if TYPE_CHECKING:  # torch takes seconds to import: only where there is a model
    from torch import Tensor


NUMBERS = ("RANK", "LOCAL_RANK", "MASTER_PORT")
VARIABLES = (*NUMBERS, "MASTER_ADDR")  # set by torchrun, besides WORLD_SIZE


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
            silent = rank_and_size()[0] > 0
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


def rank_and_size() -> tuple[int, int]:
    """Rank of this process and number of processes, `(0, 1)` without a process group."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def all_reduce_sum(values: Tensor) -> Tensor:
    """Sum over all processes, the same on each, on the device of `values`.

    Args:
        values: tensor of the same shape in every process; returned as it is in a single process.

    Returns:
        A tensor like `values`, without gradients.
    """
    if rank_and_size()[1] == 1:
        return values
    import torch
    import torch.distributed as dist

    device = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
    summed = values.detach().to(device, copy=True).contiguous()
    dist.all_reduce(summed)
    return summed.to(values.device)
