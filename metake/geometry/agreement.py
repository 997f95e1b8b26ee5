"""Agreement of second moments from elsewhere with the keys of the model that is to be edited.

A published file names its modules, not the weights it was collected from. Entries of a key differ in size by orders of
magnitude, in an order that is the model's own: on other text the mean squares of the entries correlate, and those of
another model, or of another layer, do not.
"""

from __future__ import annotations

import torch
from torch import Tensor

from metake.errors import MetakeError
from metake.geometry.covariance import token_windows
from metake.models.editable import EditableModel
from metake.models.trace import frozen, run
from metake.texts import default_text

TOKENS, WINDOW = 2048, 256  # of the shipped text, with whose keys a file is compared
CORRELATION = 0.3  # measured: above 0.59 on any text, below 0.1 for other weights or another layer
SCALE = 30.0  # measured: up to 9 on text that is foreign to the model
SHARE = 0.9  # of the share of a projection's directions
FLOOR = 1e-6  # of the mean entry: entries that are never active


@torch.no_grad()
def own_keys(model: EditableModel, layers: tuple[int, ...]) -> dict[int, Tensor]:
    """Keys of a model over a short text.

    Args:
        model: the model with its tokenizer.
        layers: the layers, ascending.

    Returns:
        Layer -> `tokens x d_k`, fp32, on the CPU.
    """
    window = min(WINDOW, model.max_positions or WINDOW)
    parts: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    with frozen(model.model):
        for ids in token_windows(model.tokenizer, default_text(""), window, TOKENS):
            trace = run(model, torch.tensor([ids]), stop=layers[-1], keys=layers)
            for layer in layers:
                parts[layer].append(trace.keys[layer][0].float().cpu())
    return {layer: torch.cat(found) for layer, found in parts.items()}


def correlation_and_scale(squares: Tensor, own: Tensor) -> tuple[float, float]:
    """Correlation of the log mean squares of the entries, and the median of their quotients.

    Args:
        squares: diagonal of C, `d_k`.
        own: mean squares of the model's keys on other text.

    Returns:
        Both numbers; near 1 for the same model on similar text.
    """
    logs = [each.double().clamp_min(FLOOR * float(each.mean())).log() for each in (squares, own)]
    correlation = float(torch.corrcoef(torch.stack(logs))[0, 1])
    return correlation, float((logs[0] - logs[1]).median().exp())


def check_moment(where: str, moment: Tensor, keys: Tensor) -> None:
    """Refuse a second moment that is not of the model's keys.

    Args:
        where: file and layer; begins the error line.
        moment: C of the file.
        keys: the model's on a short text, `tokens x d_k`.

    Raises:
        MetakeError: of other weights or another layer, or divided by a wrong number of tokens.
    """
    correlation, scale = correlation_and_scale(moment.diagonal(), keys.square().mean(0))
    if not correlation >= CORRELATION:
        raise MetakeError(
            f"{where}: is not of this model's keys (the entries' mean squares correlate by {correlation:.2f} with those on the "
            f"included text, {CORRELATION} is needed); give the file of this model, or run metake stats"
        )
    if not 1 / SCALE <= scale <= SCALE:
        raise MetakeError(
            f"{where}: mom2.count does not fit mom2.mom2: their quotient is {scale:.2g} times the mean square of this "
            "model's keys; download the file again, or run metake stats"
        )


def check_projection(where: str, projection: Tensor, keys: Tensor) -> None:
    """Refuse a null-space projection that does not remove the directions of the model's keys.

    Args:
        where: file and layer; begins the error line.
        projection: P, `d_k x d_k`.
        keys: the model's on a short text, `tokens x d_k`.

    Raises:
        MetakeError: P leaves as much of the keys as a projection on random directions would.
    """
    left = float((keys @ projection.float()).square().sum() / keys.square().sum())
    directions = float(projection.double().trace()) / len(projection)
    if directions < 1 and not left <= SHARE * directions:
        raise MetakeError(
            f"{where}: is not of this model's keys (it leaves {left:.0%} of their square and {directions:.0%} of the "
            "directions); give the file of this model, or run metake stats"
        )
