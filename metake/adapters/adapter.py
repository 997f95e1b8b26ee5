"""A weight update as LoRA factors by module path, ready to be written."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from metake.adapters.low_rank import LowRank, of_dense, of_factors
from metake.adapters.serving import check_max_rank, served_limit, served_rank
from metake.errors import MetakeError
from metake.models.editable import EditableModel

MODULES = "modules"  # field of a delta's note, and of an adapter's metadata


def described_modules(model: EditableModel) -> dict[str, Any]:
    """Where a model's down-projections are, as plain values for the note of a delta.

    Args:
        model: the model.

    Returns:
        `family`, `blocks` and `down` of the module map, `conv1d`: whether weights are stored `d_k x d_v`, and
        `experts`: whether they are fused tensors of a mixture of experts.
    """
    return {
        "family": model.family,
        "blocks": model.modules.blocks,
        "down": model.modules.down,
        "conv1d": isinstance(model.down(0), Conv1D),
        "experts": bool(model.experts),
    }


def module_path(modules: Mapping[str, Any], layer: int) -> str:
    """Full dotted path of a layer's down-projection, from the model of `transformers`.

    Args:
        modules: what `described_modules` returns.
        layer: the layer.

    Returns:
        The path, e.g. `model.layers.4.mlp.down_proj`.
    """
    return f"{modules['blocks']}.{layer}.{modules['down']}"


def check_paths(model: EditableModel, layers: tuple[int, ...]) -> None:
    """Refuse layers that no adapter can address.

    Args:
        model: the model.
        layers: the changed layers.

    Raises:
        MetakeError: a down-projection is no `nn.Linear` or `Conv1D`, or has another path than its number says.
    """
    modules = described_modules(model)
    for layer in layers:
        path = module_path(modules, layer)
        try:
            found: nn.Module | None = model.model.get_submodule(path)
        except AttributeError:
            found = None
        if found is not model.down(layer) or not isinstance(found, nn.Linear | Conv1D):
            raise MetakeError(
                f"export: {path}: no nn.Linear or Conv1D of this path, which LoRA needs; give --format merged"
            )


@dataclass(frozen=True)
class Adapter:
    """LoRA factors of the changed layers.

    Attributes:
        layers: layer -> factors, in fp32 and without padding.
        modules: where the layers are, as `described_modules` returns it.
        base: hub name or folder of the base model; empty if it is not known.
        fingerprint: fingerprint of the base model.
        note: note of the delta.
        pad: whether every layer is padded to one rank that vLLM takes.
        dense: layers whose change had no factors.
    """

    layers: Mapping[int, LowRank]
    modules: Mapping[str, Any]
    base: str
    fingerprint: str = ""
    note: dict[str, Any] = field(default_factory=dict)
    pad: bool = True
    dense: tuple[int, ...] = ()

    @property
    def rank(self) -> int:
        """Largest rank as it is written."""
        largest = max(low.rank for low in self.layers.values())
        return served_rank(largest) if self.pad else largest

    @property
    def written(self) -> dict[int, LowRank]:
        """Layer -> factors as they are written: with `pad`, of equal rank.

        vLLM and llama.cpp's converter read one alpha, so equal ranks are needed for a scaling of 1 everywhere.
        """
        return {n: low.padded(self.rank) if self.pad else low for n, low in self.layers.items()}

    def path(self, layer: int) -> str:
        """Full dotted path of a layer's down-projection.

        Args:
            layer: the layer.

        Returns:
            The path.
        """
        return module_path(self.modules, layer)


def build_adapter(
    factors: Mapping[int, tuple[Tensor, Tensor]],
    dense: Mapping[int, Tensor],
    *,
    modules: Mapping[str, Any] | None,
    base: str,
    fingerprint: str,
    note: dict[str, Any],
    max_rank: int,
    pad: bool,
) -> Adapter:
    """LoRA factors of a weight update.

    Args:
        factors: layer -> (left, right), `d_v x n` and `d_k x n`.
        dense: layer -> `d_v x d_k`, added to the factors' product.
        modules: what `described_modules` returns; None if it is not known.
        base: hub name or folder of the base model; empty if it is not known.
        fingerprint: fingerprint of the base model.
        note: note of the delta.
        max_rank: largest rank of a layer, as it is written; larger ones are recompressed.
        pad: pad every layer to one rank that vLLM takes.

    Returns:
        The adapter.

    Raises:
        MetakeError: nothing is changed, or the modules are not known or no modules that LoRA adapts.
    """
    limit = served_limit(check_max_rank(max_rank)) if pad else check_max_rank(max_rank)
    if not factors and not dense:
        raise MetakeError("export: the delta changes no layer; nothing was written")
    if not modules:
        raise MetakeError(
            "export: the delta does not say which modules it changes (it was written by an earlier metake, or by "
            "hand); give model= (--model)"
        )
    if modules.get("experts"):
        raise MetakeError(
            f"export: {modules['down']}: fused experts, which are no module that LoRA adapts; give --format merged"
        )
    factors = _with_columns(factors, dense)
    layers: dict[int, LowRank] = {}
    for layer in sorted({*factors, *dense}):
        low = _low_rank(factors.get(layer), dense.get(layer), limit)
        layers[layer] = LowRank(low.left.float().contiguous(), low.right.float().contiguous(), low.error)
    return Adapter(layers, modules, base, fingerprint, note, pad, tuple(sorted(dense)))


def _with_columns(
    factors: Mapping[int, tuple[Tensor, Tensor]], dense: Mapping[int, Tensor]
) -> dict[int, tuple[Tensor, Tensor]]:
    """Factors without those of no column, whose rank of 0 peft does not load; a warning names their layers."""
    kept = {layer: pair for layer, pair in factors.items() if pair[0].shape[1]}
    if empty := sorted({*factors} - {*kept, *dense}):
        if not kept and not dense:
            raise MetakeError(f"export: the factors of layers {empty} have no columns; nothing was written")
        warnings.warn(f"export: layers {empty} are left out: their factors have no columns", stacklevel=3)
    return kept


def _low_rank(factors: tuple[Tensor, Tensor] | None, dense: Tensor | None, limit: int) -> LowRank:
    if dense is None:
        assert factors is not None
        return of_factors(*factors, limit)
    change = dense.double()
    if factors is not None:
        change = change + factors[0].double() @ factors[1].double().T
    return of_dense(change, limit)
