"""Second moments of keys, C = E[k k^T], of all edited layers in one pass over a text.

The pass stops at the last edited layer. Products are formed in fp32 per chunk of tokens (of half-precision
keys on a GPU by its matrix units, exactly, with fp32 sums) and summed in fp64, so the error does not grow with
the length of the text. The first position of a window is
counted like any other: some models keep an attention sink there, with a key far outside the rest,
and an edit that changed its value would disturb every prompt; counting it protects it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from metake.console import tqdm_disable
from metake.errors import MetakeError
from metake.geometry.statistics import REMEDY, TOKENS_PER_KEY, Provenance, Statistics
from metake.models.ambient import exact_device, neutral
from metake.models.editable import EditableModel
from metake.models.load import as_editable
from metake.models.trace import frozen, run
from metake.processes import all_reduce_sum, rank_and_size
from metake.tensor_files import read_tensors, write_tensors

PARTIAL = "metake-partial-statistics-2"

LONGEST_KEY = 16_384  # entries, at which a pass has its usual number of rows
KEEP_EVERY = 60.0  # seconds between two checkpoints of `collect`


def token_windows(tokenizer: Any, text: str, window: int, limit: int | None) -> list[list[int]]:
    """Token windows of equal length; each starts with BOS where the tokenizer would add one.

    Args:
        tokenizer: the model's tokenizer.
        text: one text.
        window: tokens per window, BOS included.
        limit: number of tokens that are read; all if None.

    Returns:
        Lists of token ids; the last one may be shorter.
    """
    begin = [i for i in tokenizer("").input_ids if i == tokenizer.bos_token_id]
    ids: list[int] = []
    lines = text.splitlines(keepends=True)
    for start in range(0, len(lines), 500):  # in pieces: tokenizers slow down on one huge string
        piece = "".join(lines[start : start + 500])
        ids += tokenizer(piece, add_special_tokens=False, verbose=False).input_ids
        if limit is not None and len(ids) >= limit:
            ids = ids[:limit]
            break
    body = window - len(begin)
    return [begin + ids[i : i + body] for i in range(0, len(ids), body)]


@neutral()
@torch.no_grad()
def collect(
    model: EditableModel | nn.Module,
    tokenizer: Any,
    text: str | Iterable[str],
    layers: tuple[int, ...],
    *,
    tokens: int | None = None,
    window: int = 128,
    rows: int | None = None,
    partial: Path | None = None,
    keep_every: float = KEEP_EVERY,
    progress: bool = True,
) -> Statistics:
    """Statistics of the keys of `layers` over a text.

    Args:
        model: the model; one pass stops at the last of the layers.
        tokenizer: its tokenizer; not needed with an `EditableModel`.
        text: one text or a stream of documents (they are joined by line ends).
        layers: layers whose keys are measured, ascending.
        tokens: number of tokens that are read; all if None.
        window: tokens per row, BOS included; at most what the model can take.
        rows: rows per pass; by default 16, on a GPU 128, so that summing costs little beside the products.
        partial: checkpoint file; an interrupted run resumes from it. With several processes, each of which reads
            its share of the windows, every process has its own file; a model that is divided over processes has none.
        keep_every: seconds between two checkpoints, more where that would take over a twentieth of the time (six
            layers of GPT-J are 13 GB); 0 saves after every pass.
        progress: whether to show a progress bar.

    Returns:
        C of every layer with its provenance.

    Raises:
        MetakeError: the text has fewer tokens than a key has entries, so C would be singular; a number is below 1.
    """
    model = as_editable(model, tokenizer)
    model.check_layers(layers)
    if isinstance(text, bytes | dict) or not isinstance(text, Iterable):
        raise MetakeError(f"statistics: text must be a text or several, not {type(text).__name__}")
    for name, value in (("tokens", tokens), ("window", window), ("rows", rows)):
        if value is not None and value < 1:
            raise MetakeError(f"{name}: must be at least 1, got {value}")
    text = _as_text(text, model.tokenizer, tokens)
    window = min(window, model.max_positions or window)
    windows = token_windows(model.tokenizer, text, window, tokens)
    total = sum(len(w) for w in windows)
    if total < model.d_k:
        raise MetakeError(
            f"text: {total} tokens, fewer than a key has entries ({model.d_k}), so C would be singular; "
            f"give at least {TOKENS_PER_KEY * model.d_k} tokens"
        )
    provenance = Provenance.of(model, layers, text, total, window)
    checkpoint = (
        None
        if partial is None or model.is_sharded
        else _Checkpoint(_of_rank(partial), provenance, keep_every)
    )
    sums = _sum_moments(model, windows, layers, rows, checkpoint, progress)
    moments = {layer: (all_reduce_sum(s) / total).float().cpu() for layer, s in sums.items()}
    return Statistics(moments, provenance)


def _of_rank(partial: Path) -> Path:
    """The checkpoint file of this process."""
    rank, world = rank_and_size()
    return partial.with_name(f"{partial.name}-{rank}-of-{world}") if world > 1 else partial


def _sum_moments(
    model: EditableModel,
    windows: list[list[int]],
    layers: tuple[int, ...],
    rows: int | None,
    checkpoint: _Checkpoint | None,
    progress: bool,
) -> dict[int, Tensor]:
    """Layer -> sum of `k k^T` over this process's share of the windows, fp64."""
    rows = rows or (16 if model.device.type == "cpu" else 128)
    if model.experts:  # their keys are long and sparse
        rows = max(1, rows * LONGEST_KEY // max(model.d_k, LONGEST_KEY))
    # summed where the keys live: a d_k x d_k copy per pass would cost more than the product
    sums = {
        layer: torch.zeros(
            model.moment_shape, dtype=torch.float64, device=exact_device(model.weight_device(layer))
        )
        for layer in layers
    }
    rank, world = rank_and_size()
    windows = windows[rank::world]
    done = 0 if checkpoint is None else checkpoint.resume(sums)
    bar = tqdm(
        total=len(windows),
        initial=done,
        unit="window",
        desc="statistics",
        disable=tqdm_disable(progress and rank == 0),
    )
    with frozen(model.model), bar:
        for start in range(done, len(windows), rows):
            group = windows[start : start + rows]
            length = max(len(w) for w in group)
            ids = torch.tensor([w + [0] * (length - len(w)) for w in group])
            real = torch.tensor([[1] * len(w) + [0] * (length - len(w)) for w in group]).bool()
            trace = run(model, ids, stop=layers[-1], keys=layers)
            for layer in layers:
                keys = trace.keys[layer]
                real_keys = keys[real.to(keys.device)]
                found = (
                    second_moment(real_keys) if sums[layer].ndim == 2 else per_expert(real_keys, sums[layer])
                )
                sums[layer].add_(found.to(sums[layer].device))
            bar.update(len(group))
            if checkpoint is not None:
                checkpoint.save_if_due(sums, start + len(group))
    if checkpoint is not None:
        checkpoint.path.unlink(missing_ok=True)
    return sums


@dataclass
class _Checkpoint:
    """File of an unfinished run: its sums, and how many windows they are of.

    Attributes:
        every: seconds between two savings.
        last_saved: time of the last saving.
        duration: seconds that the last saving took.
    """

    path: Path
    provenance: Provenance
    every: float
    last_saved: float = field(default_factory=lambda: time.monotonic())
    duration: float = 0.0

    def resume(self, sums: dict[int, Tensor]) -> int:
        """Number of windows done by an interrupted run of the same model, text and layers; fills `sums`."""
        if not self.path.is_file():
            return 0
        try:
            tensors, meta = read_tensors(self.path, PARTIAL, REMEDY)
        except MetakeError as error:
            warnings.warn(f"{error}: starting over", stacklevel=2)
            return 0
        if Provenance.of_plain(meta["provenance"]) != self.provenance:
            return 0
        for layer, total in sums.items():
            total.copy_(tensors[f"C.{layer}"])
        return int(meta["done"])

    def save_if_due(self, sums: dict[int, Tensor], done: int) -> None:
        """Save sums over the first `done` windows if the last saving is long enough ago."""
        if time.monotonic() - self.last_saved < (self.every and max(self.every, 20 * self.duration)):
            return
        began = time.monotonic()
        meta = {"provenance": asdict(self.provenance), "done": done}
        write_tensors(self.path, PARTIAL, {f"C.{layer}": s for layer, s in sums.items()}, meta)
        self.last_saved = time.monotonic()
        self.duration = self.last_saved - began


def second_moment(keys: Tensor) -> Tensor:
    """Product `K^T K` in fp32: products of two bf16 or fp16 numbers are exact there.

    Args:
        keys: K, `tokens x d_k`.

    Returns:
        `d_k x d_k`.
    """
    if keys.is_cuda and keys.dtype in (torch.bfloat16, torch.float16):
        return torch.mm(keys.T, keys, out_dtype=torch.float32)
    keys = keys.float()
    return keys.T @ keys


def per_expert(keys: Tensor, like: Tensor) -> Tensor:
    """Products `K_e^T K_e` of each expert's part of the keys, in fp32.

    Args:
        keys: K, `tokens x E d_f`.
        like: a tensor of the result's shape.

    Returns:
        `E x d_f x d_f`.
    """
    parts = keys.float().reshape(len(keys), len(like), -1).transpose(0, 1)
    return parts.transpose(1, 2) @ parts


def _as_text(text: str | Iterable[str], tokenizer: Any, tokens: int | None) -> str:
    """One text; of a stream, as many documents as give `tokens` tokens."""
    if isinstance(text, str):
        return text

    def enough() -> Iterator[str]:
        seen = 0
        for document in text:
            if not isinstance(document, str):
                raise MetakeError(f"statistics: a document must be a text, not {type(document).__name__}")
            yield document
            seen += len(tokenizer(document, add_special_tokens=False, verbose=False).input_ids)
            if tokens is not None and seen >= tokens:
                return

    return "\n".join(enough())
