"""Predicted realization of requests, before any edit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from metake.methods.lookup_keys import MIN_KEY_COSINE
from metake.methods.state import State
from metake.report.tables import html, render
from metake.requests import EditRequest
from metake.solvers.allocation import Shares, describe_shares, predicted_share
from metake.words import counted

ETA = "eta: share of the requested residual that a layer realizes; rho = eta / (1 - eta)"


@dataclass(frozen=True, repr=False)
class Preview:
    """Predicted realization of requests on the unedited model.

    Attributes:
        layers: the edited layers.
        rho: realizability of each request's mean key over contexts, `layers x n`.
        cosine: cosine between the key in the bare prompt and the mean key over contexts, `layers x n`.
        shares, fit: allocation of the residual over the layers, and the fit of each layer's solve.
        moved: per request, whether its key is read at the prompt's last token because that at the subject's is inconsistent.
        inputs: inputs of an edit of the same requests; None if there are none.
        state: state of the method that the inputs were built with.
        model: fingerprint of the model that they were built with.
        constraint: strength of the constraint by name, with the attenuation it was derived from, if any.
        reasons: where the settings come from, one line per choice.
    """

    requests: tuple[EditRequest, ...]
    layers: tuple[int, ...]
    rho: Tensor
    cosine: Tensor
    shares: Shares
    fit: str
    inputs: Any = None
    state: State | None = None
    model: str = ""
    constraint: Mapping[str, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    moved: tuple[bool, ...] = ()

    def inputs_for(self, requests: Sequence[EditRequest], state: State, model: str) -> Any:
        """Inputs of an edit, if they were built for the same requests, contexts, memory and weights.

        Args:
            requests: requests of the edit.
            state: state of the method before the edit.
            model: fingerprint of the model before the edit.

        Returns:
            The inputs; None if they are of something else.
        """
        same = self.requests == tuple(requests) and self.state is state and self.model == model
        return self.inputs if same else None

    @property
    def eta(self) -> Tensor:
        """Attenuation, rho / (1 + rho)."""
        return self.rho / (1 + self.rho)

    @property
    def predicted(self) -> Tensor:
        """Predicted share of each residual that all layers together realize, `n`."""
        return predicted_share(self.shares, dict(zip(self.layers, self.eta, strict=True)), self.fit)

    @property
    def inconsistent_subjects(self) -> tuple[str, ...]:
        """Subjects whose key in the bare prompt differs from the mean key over contexts (cosine below 0.1 at a layer)."""
        return tuple(
            r.subject
            for r, low in zip(self.requests, self.cosine.amin(0), strict=True)
            if low < MIN_KEY_COSINE
        )

    def _table(self) -> tuple[str, list[str], list[list[str]]]:
        rows = []
        for j, request in enumerate(self.requests):
            cells = [
                f"{eta:.3f} ({rho:.3g})" for eta, rho in zip(self.eta[:, j], self.rho[:, j], strict=True)
            ]
            cosine = self.cosine[:, j].min().item()
            rows.append([request.subject, *cells, f"{self.predicted[j]:.2f}", f"{cosine:.2f}"])
        etas = (f"eta {layer} (rho)" for layer in self.layers)
        return "predicted realization", ["subject", *etas, "predicted", "cos(bare key, contexts')"], rows

    @property
    def legend(self) -> list[str]:
        """Meanings of the table's columns, one line each."""
        return [
            ETA,
            predicted_line(self.shares, self.fit),
            *constraint_lines(self.constraint),
            *self.reasons,
            *moved_lines(self.requests, self.moved),
        ]

    def __str__(self) -> str:
        return "\n".join([render(*self._table()), *self.legend])

    def __repr__(self) -> str:
        return f"<Preview: {counted(len(self.requests), 'edit')}, layers {list(self.layers)}>"

    def _repr_html_(self) -> str:
        return html(*self._table(), self.legend)


def predicted_line(shares: Shares, fit: str) -> str:
    """Legend of the column `predicted`.

    Args:
        shares: share of the residual per edited layer.
        fit: fit of each solve.

    Returns:
        The line.
    """
    return (
        f"predicted: share of the planned shift that all layers together realize, {describe_shares(shares, fit)}, "
        "for a single request if the update of a layer leaves the keys of later layers unchanged"
    )


def constraint_lines(constraint: Mapping[str, float]) -> list[str]:
    """Line about a strength that was derived from an attenuation; none for another.

    Args:
        constraint: see `Method.constraint`.

    Returns:
        At most one line.
    """
    if "attenuation" not in constraint:
        return []
    name, value = next((n, v) for n, v in constraint.items() if n != "attenuation")
    eta = constraint["attenuation"]
    return [f"constraint: {name} = {value:.4g}, so that the first batch's keys have a median eta of {eta:g}"]


def moved_lines(requests: Sequence[EditRequest], moved: Sequence[bool]) -> list[str]:
    """Line that names the requests whose keys are read at the prompt's last token instead of the subject's.

    Args:
        requests: the requests.
        moved: whether it is so, per request; empty if it is so for none.

    Returns:
        At most one line.
    """
    names = [request.name for request, other in zip(requests, moved, strict=bool(moved)) if other]
    if not names:
        return []
    return [
        f"read at the prompt's last token: {', '.join(names)}, because the key at the subject's in the bare prompt differs "
        f"from its key in contexts (cosine below {MIN_KEY_COSINE})"
    ]
