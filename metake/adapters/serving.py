"""What servers of LoRA adapters take: ranks, and the options of their command lines."""

from __future__ import annotations

from shlex import quote

from metake.errors import MetakeError

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # values of --max-lora-rank
VLLM_DEFAULT = 16
MAX_RANK = VLLM_RANKS[-1]


def served_rank(rank: int) -> int:
    """The smallest rank of vLLM's list that holds an adapter.

    Args:
        rank: rank of the adapter.

    Returns:
        A value of `VLLM_RANKS`; the rank itself above the largest of them.
    """
    return next((allowed for allowed in VLLM_RANKS if allowed >= rank), rank)


def served_limit(max_rank: int) -> int:
    """The largest rank of vLLM's list that is no larger than a limit.

    Args:
        max_rank: the limit, at least 1.

    Returns:
        A value of `VLLM_RANKS`; the limit itself above the largest of them.
    """
    return max_rank if max_rank > MAX_RANK else max(rank for rank in VLLM_RANKS if rank <= max_rank)


def check_max_rank(max_rank: object) -> int:
    """The limit of an adapter's rank.

    Args:
        max_rank: the limit.

    Returns:
        The limit.

    Raises:
        MetakeError: it is no whole number above 0.
    """
    if isinstance(max_rank, bool) or not isinstance(max_rank, int) or max_rank < 1:
        raise MetakeError(f"max_rank: must be a whole number above 0, got {max_rank!r}")
    return max_rank


def vllm_line(folder: str, base: str, rank: int) -> str:
    """Command that serves a PEFT folder with vLLM.

    Args:
        folder: the folder.
        base: name or path of the base model.
        rank: rank of the adapter.

    Returns:
        The command, or why vLLM does not take the rank.
    """
    if rank > MAX_RANK:
        return (
            f"vLLM: rank {rank} is above {MAX_RANK}, the largest it takes; export with --max-rank {MAX_RANK}"
        )
    flag = "" if rank <= VLLM_DEFAULT else f" --max-lora-rank {served_rank(rank)}"
    return f"vllm serve {quote(base)} --enable-lora{flag} --lora-modules {quote(f'edit={folder}')}"


def llama_cpp_line(file: str) -> str:
    """Command that serves a GGUF adapter with llama.cpp.

    Args:
        file: the adapter.

    Returns:
        The command.
    """
    return f"llama-server --model BASE.gguf --lora {quote(file)}"
