"""Several processes, each with a copy of the model: started by `torchrun`, joined by `torch.distributed`.

Whoever has called `torch.distributed.init_process_group` gets it everywhere: statistics share out the
text's windows, the upper level its requests; every process ends with the same edit. Alone, nothing
here does anything.
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
VARIABLES = (*NUMBERS, "MASTER_ADDR")  # that torchrun sets beside WORLD_SIZE


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that `torchrun` has started, if it has; only the first of them speaks.

    Raises:
        MetakeError: the environment speaks of several processes, and does not say where they are.
    """
    count = os.environ.get("WORLD_SIZE") or "1"
    if count == "1":
        yield
        return
    for name in VARIABLES:
        if not os.environ.get(name):
            raise MetakeError(
                f"WORLD_SIZE={count}: {name} is not set; start processes by torchrun, or unset WORLD_SIZE"
            )
    for name in ("WORLD_SIZE", *NUMBERS):
        if not os.environ[name].isdigit():
            raise MetakeError(
                f"{name}={os.environ[name]}: no number; start processes by torchrun, or unset WORLD_SIZE"
            )
    import torch
    import torch.distributed as dist

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        with open(os.devnull, "w", encoding="utf-8") as nothing:
            silent = rank_and_size()[0] > 0
            out = redirect_stdout(nothing) if silent else nullcontext()
            with out, redirect_stderr(nothing) if silent else nullcontext():
                yield
    finally:
        dist.destroy_process_group()


def rank_and_size() -> tuple[int, int]:
    """This process's rank, and how many there are."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def total(values: Tensor) -> Tensor:
    """The sum over all processes, which all get alike, where `values` is."""
    if rank_and_size()[1] == 1:
        return values
    import torch
    import torch.distributed as dist

    near = torch.device("cuda") if dist.get_backend() == "nccl" else torch.device("cpu")
    summed = values.detach().to(near, copy=True).contiguous()
    dist.all_reduce(summed)
    return summed.to(values.device)
