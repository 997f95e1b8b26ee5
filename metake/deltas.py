"""Change of a model: a weight update, as low-rank factors or dense, and gated patches: applied, reverted, saved, composed.

delta.save("edits/paris")                       # only the change
with delta.applied(model): ...                  # edited inside, the original again outside
applied = delta.apply(model); applied.revert()  # the same in two steps, bit-exact
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metake.applied import Applied
from metake.errors import MetakeError
from metake.files import as_path, digest
from metake.models.ambient import exact_device
from metake.models.editable import EditableModel
from metake.models.load import editable_model
from metake.models.patch_hooks import unfoldable
from metake.patches.base import Patch, exchange_patches, joined, patches_at
from metake.patches.files import read_patches, tensors_of
from metake.pretrained import Pretrained
from metake.requests import one_line
from metake.shipped import DTYPES
from metake.tensor_files import dtype_name, read_tensors, write_tensors
from metake.words import counted

FORMAT = "metake-delta-2"
FILE = "delta.safetensors"
REMEDY = "give what metake edit wrote, or save the edit again"


@dataclass(frozen=True)
class Delta(Pretrained):
    """Weight update: per layer `left @ right.T` (`left` d_v x n, `right` d_k x n) or dense, added to the down-projection.

    A change of some inputs only is a patch with a gate (GRACE, WISE, ...). Without one a delta is `foldable`: weights alone hold it.

    Attributes:
        factors: layer -> (left, right), on the CPU.
        dense_updates: layer -> `d_v x d_k`, an update without low-rank factors (RECT's, fine-tuning's).
        patches: gated patches, in the order in which they act.
        model: fingerprint of the model it was made for.
        note: requests, method and settings; any plain values, saved with the delta.

    Example:
        >>> import torch
        >>> import metake as mk
        >>> model = mk.load("demo")
        >>> left, right = torch.ones(model.d_v, 1), torch.ones(model.d_k, 1)
        >>> delta = mk.Delta({2: (left, right)})
        >>> before = model.weight(2).clone()
        >>> with delta.applied(model):
        ...     bool((model.weight(2) == before).any())
        False
        >>> bool((model.weight(2) == before).all())
        True
    """

    factors: Mapping[int, tuple[Tensor, Tensor]]
    model: str = ""
    note: dict[str, Any] = field(default_factory=dict)
    dense_updates: Mapping[int, Tensor] = field(default_factory=dict)
    patches: tuple[Patch, ...] = ()

    def __repr__(self) -> str:
        edits = len(self.note.get("edits", [])) + self.note.get("merged", 0)
        return f"<Delta: {counted(edits, 'edit')}, layers {list(self.layers)}, for the model {self.model or 'of any kind'}>"

    @property
    def layers(self) -> tuple[int, ...]:
        """Changed layers, ascending: those with another weight and those with a patch."""
        return tuple(sorted({*self.weight_layers, *(patch.layer for patch in self.patches)}))

    @property
    def weight_layers(self) -> tuple[int, ...]:
        """Layers whose weight is changed, ascending."""
        return tuple(sorted({*self.factors, *self.dense_updates}))

    @property
    def foldable(self) -> bool:
        """Whether the edited weights alone are the edited model: there is no gated patch."""
        return not self.patches

    def require_foldable(self, what: str) -> None:
        """Refuse gated patches where only weights can be written.

        Args:
            what: begins the error line.

        Raises:
            MetakeError: there is a gated patch.
        """
        if not self.foldable:
            raise MetakeError(unfoldable(self.patches[0], what))

    def _shape(self, layer: int) -> tuple[int, int]:
        if layer in self.dense_updates:
            return (self.dense_updates[layer].shape[0], self.dense_updates[layer].shape[1])
        left, right = self.factors[layer]
        return left.shape[0], right.shape[0]

    def to_dense(self, layer: int, device: torch.device | str = "cpu") -> Tensor:
        """Change of a layer, formed in fp64.

        Args:
            layer: a changed layer.
            device: device of the result.

        Returns:
            `d_v x d_k`, fp64.

        Raises:
            MetakeError: the layer is not changed.
        """
        if isinstance(layer, bool) or not isinstance(layer, int) or layer not in self.weight_layers:
            gated = {patch.layer: patch.kind for patch in self.patches}
            if isinstance(layer, int) and layer in gated:
                raise MetakeError(
                    f"dense: layer {layer} has a gated {gated[layer]} patch and no change of its weight; apply the delta to use it"
                )
            there = ", ".join(map(str, self.weight_layers)) or "none"
            raise MetakeError(f"dense: layer {one_line(repr(layer))} is not changed; changed layers: {there}")
        change = torch.zeros(self._shape(layer), dtype=torch.float64, device=device)
        if layer in self.factors:
            left, right = (part.to(device, torch.float64) for part in self.factors[layer])
            change = change.addmm_(left, right.T)
        if layer in self.dense_updates:
            change += self.dense_updates[layer].to(device)
        return change

    def _change(self, layer: int, device: torch.device) -> Tensor:
        """Change of a layer: the dense update itself if it is all, else `to_dense`."""
        if layer in self.factors:
            return self.to_dense(layer, device)
        return self.dense_updates[layer].to(device)

    def norms(self) -> dict[int, float]:
        """Frobenius norm of each layer's change; of thin factors from `n x n` products."""

        def norm(layer: int) -> float:
            if layer not in self.factors:  # in blocks of rows, without a copy in fp64
                blocks = torch.split(self.dense_updates[layer], 1024)
                return math.sqrt(sum(float(block.double().square().sum()) for block in blocks))
            if layer in self.dense_updates:
                return float(self.to_dense(layer).norm())
            left, right = self.factors[layer]
            return float(((left.T @ left) * (right.T @ right)).sum().clamp_min(0).sqrt())

        return {layer: norm(layer) for layer in self.weight_layers}

    def check_values(self, where: str = "delta") -> None:
        """Refuse tensors that are not floating-point numbers, or not finite.

        Args:
            where: begins the error line, e.g. the file.

        Raises:
            MetakeError: the line names the tensor.
        """
        for patch in self.patches:
            patch.check_values(where)
        for name, tensor in replace(self, patches=()).tensors.items():
            if (kind := dtype_name(tensor.dtype)) not in DTYPES:
                raise MetakeError(
                    f"{where}: {name}: is of dtype {kind}, must be {' or '.join(DTYPES)}; {REMEDY}"
                )
            if not bool(torch.isfinite(tensor).all()):
                layer = name.partition(".")[0]
                raise MetakeError(f"{where}: layer {layer} is not finite; nothing was changed")

    def check_fits(self, model: EditableModel, check: bool = True, where: str = "delta") -> None:
        """Refuse a model that the change was not made for, and what `check_values` refuses.

        Args:
            model: the model.
            check: compare the model's fingerprint with that of the delta.
            where: begins the error line, e.g. the file.

        Raises:
            MetakeError: the line says what does not fit.
        """
        if check and self.model and self.model != model.fingerprint():
            raise MetakeError(
                f"{where}: {self._misfit(model)}, or skip this check (check=False; --force of apply and export)"
            )
        try:
            model.check_layers(self.layers)
        except MetakeError as error:
            raise MetakeError(f"{where}: {error}; {REMEDY}") from error
        for patch in self.patches:
            patch.check_fits(model, where)
        for layer in self.weight_layers:
            shape, wanted = self._shape(layer), model.weight_shape(layer)
            if shape != wanted:
                raise MetakeError(
                    f"{where}: layer {layer} is {shape[0]} x {shape[1]}, the model's {wanted[0]} x {wanted[1]}; it was "
                    "made for another model"
                )
        self.check_values(where)

    def _misfit(self, model: EditableModel) -> str:
        """Why a model has another fingerprint than the delta's, and the remedy."""
        name, made = self.note.get("model") or "a model", self.note.get("dtype")
        given = dtype_name(model.dtype)
        if made and made != given:
            return f"dtype: made for {name} in {made}, the model is in {given}; load it with dtype={made!r} (--dtype {made})"
        dtype = "" if made else f", or in another dtype than {given}"
        return f"made for another model ({name}) or another state of this one{dtype}; give the unedited model that it was made for"

    @torch.no_grad()
    def apply(self, model: EditableModel | nn.Module, *, check: bool = True) -> Applied:
        """Add the change to the weights, in place, and the patches to their modules.

        The sum is formed in fp32 (fp64 for an fp64 model) and rounded once to the weights' dtype.

        Args:
            model: the model that the delta was made for.
            check: compare the model's fingerprint with that of the delta.

        Returns:
            The applied delta, which can be reverted.

        Raises:
            MetakeError: the model is another one than the delta was made for (unless `check` is
                off), or the change is not finite; the model is then left as it was.
        """
        model = editable_model(model)
        self.check_fits(model, check)
        applied = Applied(model, {})
        try:
            for layer in self.weight_layers:
                weight = model.weight(layer)
                applied.originals[layer] = weight.clone()
                exact = torch.promote_types(weight.dtype, torch.float32)
                change = self._change(layer, exact_device(weight.device)).to(exact)
                model.set_weight(layer, weight.to(exact) + change.to(weight.device))
            for layer in {patch.layer: None for patch in self.patches}:
                before = applied.patches[layer] = patches_at(model, layer)
                own = tuple(patch for patch in self.patches if patch.layer == layer)
                exchange_patches(model, {layer: joined(before, own)})
        except BaseException:
            applied.revert()
            raise
        return applied.seal()

    @contextmanager
    def applied(self, model: EditableModel | nn.Module, *, check: bool = True) -> Iterator[None]:
        """Context in which the model is edited.

        Args:
            model: the model that the delta was made for.
            check: compare the model's fingerprint with that of the delta.

        Yields:
            None: the model is edited.

        Raises:
            MetakeError: as `apply`; at the end of the block, if an edit made inside the block was not reverted.
        """
        applied = self.apply(model, check=check)
        try:
            yield
        finally:
            applied.revert()

    def then(self, other: Delta) -> Delta:
        """This change followed by another, for the model that this one was made for.

        Args:
            other: change of the model that this change was applied to.

        Returns:
            One delta.

        Raises:
            MetakeError: not a delta.
        """
        if not isinstance(other, Delta):
            raise MetakeError(f"delta: only another delta can follow, not {type(other).__name__}")
        factors = dict(self.factors)
        for layer, (left, right) in other.factors.items():
            if layer in factors:
                earlier = factors[layer]
                left, right = torch.cat([earlier[0], left], 1), torch.cat([earlier[1], right], 1)
            factors[layer] = (left, right)
        whole = dict(self.dense_updates)
        for layer, change in other.dense_updates.items():
            whole[layer] = whole[layer] + change if layer in whole else change
        notes = [*self.note.get("edits", []), *other.note.get("edits", [])]
        note, patches = {**self.note, **other.note, "edits": notes}, joined(self.patches, other.patches)
        return Delta(dict(sorted(factors.items())), self.model, note, whole, patches)

    def merged(self) -> Delta:
        """The same change in bounded size: dense, in fp64, where factors are larger, and a note without the requests.

        Returns:
            One delta. Its note counts the requests, `merged`.
        """
        size = {layer: self._shape(layer) for layer in self.factors}
        wide = {
            layer
            for layer, (left, _) in self.factors.items()
            if left.shape[1] * sum(size[layer]) > math.prod(size[layer])
        }
        whole = {
            layer: self.to_dense(layer) if layer in wide else change
            for layer, change in self.dense_updates.items()
        }
        whole |= {layer: self.to_dense(layer) for layer in wide - whole.keys()}
        factors = {layer: pair for layer, pair in self.factors.items() if layer not in wide}
        count = self.note.get("merged", 0) + len(self.note.get("edits", []))
        return Delta(
            factors,
            self.model,
            {**self.note, "edits": [], "merged": count},
            dict(sorted(whole.items())),
            self.patches,
        )

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Tensors of the file by name: `LAYER.left`, `LAYER.right`, `LAYER.whole`, `patch.INDEX.FIELD`."""
        tensors = {f"{layer}.whole": change for layer, change in self.dense_updates.items()}
        for layer, (left, right) in self.factors.items():
            tensors |= {f"{layer}.left": left, f"{layer}.right": right}
        return tensors | tensors_of(self.patches)

    @property
    def meta(self) -> dict[str, Any]:
        """Plain values of the file: `model`, `note`, and `patches` if there are any."""
        patches = {"patches": [patch.numbers for patch in self.patches]} if self.patches else {}
        return {"model": self.model, "note": self.note, **patches}

    @property
    def digest(self) -> str:
        """SHA-256 of the change and of the model's fingerprint, without the note."""
        return digest({name: value for name, value in self.meta.items() if name != "note"}, self.tensors)

    def save(self, folder: Path | str) -> Path:
        """Write `delta.safetensors` into a folder. Equal deltas give equal bytes.

        Args:
            folder: folder of the file; made if it does not exist.

        Returns:
            Path of the file.

        Raises:
            MetakeError: the file cannot be written.
        """
        path = as_path(folder, "Delta.save: folder") / FILE
        write_tensors(path, FORMAT, self.tensors, self.meta)
        return path

    @classmethod
    def load(cls, folder: Path | str, remedy: str = REMEDY) -> Delta:
        """Read what `save` wrote.

        Args:
            folder: the folder, or the file itself.
            remedy: ends the line of an error.

        Returns:
            The delta.

        Raises:
            MetakeError: the file is missing, damaged, or no delta.
        """
        path = as_path(folder, "Delta.load: folder")
        path = path / FILE if path.is_dir() else path
        tensors, meta = read_tensors(path, FORMAT, remedy)
        try:
            return cls.of_tensors(tensors, meta)
        except (KeyError, ValueError) as error:
            reason = f": {error}" if "patch" in str(error) else ""
            raise MetakeError(f"{path}: holds no delta{reason}; {remedy}") from error

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Delta:
        """Delta of what `tensors` gives.

        Args:
            tensors: name -> tensor.
            meta: `model`, `note`, and `patches` if there are any.

        Returns:
            The delta.

        Raises:
            KeyError, ValueError: another name, or one that is missing.
        """
        parts: dict[str, dict[int, Tensor]] = {"left": {}, "right": {}, "whole": {}}
        patches = read_patches(meta.get("patches", []), tensors)
        for name, tensor in tensors.items():
            if patches and name.startswith("patch."):
                continue
            layer, part = name.split(".")
            parts[part][int(layer)] = tensor
        factors = {n: (left, parts["right"][n]) for n, left in sorted(parts["left"].items())}
        whole = dict(sorted(parts["whole"].items()))
        return cls(factors, meta["model"], meta["note"], whole, patches)
