"""Statistics: second moments of keys, C = E[k k^T], with their provenance."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metake.errors import MetakeError
from metake.files import as_path
from metake.models.editable import EditableModel
from metake.models.load import editable_model
from metake.tensor_files import read_tensors, write_tensors

FORMAT = "metake-statistics-2"
REMEDY = "give a file that metake stats wrote, or run it again"
HALVES = (torch.bfloat16, torch.float16)
SECOND_MOMENT, PROJECTION = "second-moment", "projection"  # kinds of statistics
TOKENS_PER_KEY = 20  # below about this many tokens per key dimension C is far from converged


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@dataclass(frozen=True)
class Provenance:
    """Model, text and reading of some statistics.

    Attributes:
        model: fingerprint of the model up to the last of the layers.
        text: fingerprint of the text; of the numbers, for statistics from elsewhere.
        tokens: number of tokens read; 0 if it is not known.
        layers: measured layers.
        window: tokens per row; 0 if it is not known.
        dtype: dtype of the model's weights.
        rounded: other dtype -> fingerprint of the same weights rounded to it.
        name: name of the model, for the reader.
        source: whose statistics they are; empty if metake collected them.
        kind: `second-moment`, or `projection` for `I - P` of a null-space projection P.
    """

    model: str
    text: str
    tokens: int
    layers: tuple[int, ...]
    window: int
    dtype: str = "float32"
    rounded: dict[str, str] = field(default_factory=dict)
    name: str = field(default="", compare=False)
    source: str = ""
    kind: str = SECOND_MOMENT

    @classmethod
    def of_plain(cls, fields: dict[str, Any]) -> Provenance:
        """Provenance from the plain values in a file.

        Args:
            fields: attribute -> value.

        Returns:
            The provenance.
        """
        return cls(**{**fields, "layers": tuple(fields["layers"])})

    @classmethod
    def of(
        cls, model: EditableModel, layers: tuple[int, ...], text: str, tokens: int, window: int
    ) -> Provenance:
        """Provenance of a text that was run through a model.

        Args:
            model: the model.
            layers: measured layers, ascending.
            text: the text.
            tokens: number of tokens read.
            window: tokens per row.

        Returns:
            The provenance.
        """
        dtype, count = model.dtype, layers[-1] + 1
        rounded = {_name(other): model.fingerprint(count, other) for other in HALVES if other != dtype}
        name = getattr(model.model, "name_or_path", "") or ""
        return cls(
            model.fingerprint(count),
            text_fingerprint(text),
            tokens,
            tuple(layers),
            window,
            _name(dtype),
            rounded,
            name,
        )

    @classmethod
    def from_elsewhere(
        cls,
        model: EditableModel,
        moments: Mapping[int, Tensor],
        source: str,
        tokens: int,
        kind: str = SECOND_MOMENT,
    ) -> Provenance:
        """Provenance of statistics that others collected from a model.

        Args:
            model: the model, unedited.
            moments: layer -> `d_k x d_k`, layers ascending.
            source: whose they are.
            tokens: number of tokens read; 0 if it is not known.
            kind: what they are.

        Returns:
            The provenance.
        """
        content = hashlib.sha256()
        for moment in moments.values():
            content.update(moment.diagonal().contiguous().numpy().tobytes())
        own = cls.of(model, tuple(moments), "", tokens, 0)
        return replace(own, text=content.hexdigest()[:16], source=source, kind=kind)

    def same_weights(self, model: EditableModel) -> bool:
        """Whether a model has the measured weights, or one is the other rounded to its dtype.

        Args:
            model: the model.

        Returns:
            Whether the statistics can be used for it.
        """
        count = max(self.layers) + 1
        if model.fingerprint(count) in (self.model, self.rounded.get(_name(model.dtype))):
            return True
        return self.model == model.fingerprint(count, getattr(torch, self.dtype))


@dataclass(frozen=True, repr=False)
class Statistics:
    """Second moment C of the keys of every edited layer, with its provenance.

    Attributes:
        moments: layer -> `d_k x d_k`, fp32; in a mixture of experts `E x d_f x d_f`, one matrix per expert.
        provenance: model, text and reading.
        gradients: layer -> second moment of the gradients of the model's loss with respect to the outputs of its
            down-projection, `d_v x d_v`; none unless they were asked for. They are not saved with the others.

    Example:
        >>> import metake as mk
        >>> model = mk.load("demo", device="cpu")
        >>> statistics = mk.statistics_for(model, layers=(1,), progress=False)
        >>> statistics[1].shape == (model.d_k, model.d_k)
        True
    """

    moments: dict[int, Tensor]
    provenance: Provenance
    gradients: Mapping[int, Tensor] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        p = self.provenance
        amount = "null-space projections" if self.is_projection else f"{p.tokens} tokens"
        whose = f", from {p.source}" if p.source else ""
        return f"<Statistics: layers {list(self.moments)}, {amount}, of the model {p.name or p.model}{whose}>"

    def __getitem__(self, layer: int) -> Tensor:
        return self.moments[layer]

    @property
    def is_projection(self) -> bool:
        """Whether they are `I - P` of null-space projections P, which the projected geometry alone can use."""
        return self.provenance.kind == PROJECTION

    @property
    def is_undersampled(self) -> bool:
        """Whether the text was too short for C to have converged; False for projections."""
        if self.is_projection:
            return False
        d_k = next(iter(self.moments.values())).shape[-1]
        return self.provenance.tokens < TOKENS_PER_KEY * d_k

    def save(self, path: Path | str) -> None:
        """Write the statistics to a file.

        Args:
            path: file to write.
        """
        tensors = {f"C.{layer}": moment for layer, moment in self.moments.items()}
        write_tensors(
            as_path(path, "Statistics.save: path"), FORMAT, tensors, {"provenance": asdict(self.provenance)}
        )

    @classmethod
    def load(cls, path: Path | str) -> Statistics:
        """Statistics from a file.

        Args:
            path: file that `save` wrote.

        Returns:
            The statistics.

        Raises:
            MetakeError: the file is missing, damaged, of another kind, or holds NaN.
        """
        path = as_path(path, "Statistics.load: path")
        tensors, meta = read_tensors(path, FORMAT, REMEDY)
        try:
            provenance = Provenance.of_plain(meta["provenance"])
            moments = {layer: tensors[f"C.{layer}"] for layer in provenance.layers}
        except (KeyError, TypeError, ValueError) as error:
            raise MetakeError(f"{path}: holds no statistics of keys; {REMEDY}") from error
        for layer, moment in moments.items():
            if not bool(torch.isfinite(moment).all()):
                raise MetakeError(f"{path}: C of layer {layer} holds NaN or infinity; {REMEDY}")
        return cls(moments, provenance)

    def check(
        self,
        model: EditableModel | nn.Module,
        layers: tuple[int, ...],
        path: Path | str = "statistics",
    ) -> None:
        """Check that the statistics are of a model and cover some layers.

        Statistics of the same weights in another dtype are accepted with a warning: keys differ by rounding only.

        Args:
            model: the model that is edited.
            layers: layers that are needed.
            path: name of the statistics in the error.

        Raises:
            MetakeError: statistics of another model, or without a layer that is needed.
        """
        model = editable_model(model)
        model.check_layers(layers)
        missing = sorted(set(layers) - set(self.moments))
        if missing:
            raise MetakeError(f"{path}: no statistics for layer {missing[0]} (has {list(self.moments)})")
        shape = tuple(self.moments[layers[0]].shape)
        if shape != model.moment_shape or not self.provenance.same_weights(model):
            raise MetakeError(
                f"{path}: statistics of another model (or of an edited one); run metake stats for this model"
            )
        model_dtype, measured = _name(model.dtype), self.provenance.dtype
        if model_dtype != measured:
            warnings.warn(
                f"statistics of the same weights in {measured}, used for the model in {model_dtype}",
                stacklevel=1,
            )


def text_fingerprint(text: str) -> str:
    """Fingerprint of a text, 16 hexadecimal digits.

    Args:
        text: any text.

    Returns:
        The start of its SHA-256.
    """
    return hashlib.sha256(text.encode()).hexdigest()[:16]
