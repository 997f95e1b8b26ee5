"""Every number and choice of an edit, validated once, and written into every result."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from metake.errors import MetakeError
from metake.names import unknown_name

if TYPE_CHECKING:
    import torch

Target = Literal["plan", "compensated", "bilevel", "gradient"]
Lookup = Literal["subject", "prompt"]
Stop = Literal["own", "executed", "none"]
Restraint = Literal["none", "rect", "prune", "prune-added"]
Hypergradient = Literal["proxy", "parallel", "unrolled"]


class Settings(BaseModel):
    """Settings of one method on one model. Names in brackets are those of published code.

    The fields target to history are the columns of the method table.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    # the row
    target: Target = Field("plan", description="plan, compensated, bilevel, or one gradient step")
    geometry: Literal["ridge", "projected", "identity"] = Field(
        "ridge", description="lambda C + beta I, the null space of C, or I (needs no statistics)"
    )
    fit: Literal["soft", "exact"] = Field(
        "soft", description="soft: regularized least squares; exact: an equality constraint (ROME)"
    )
    allocation: str = Field(
        "spread",
        description="spread: over all edited layers; last: everything at the last layer; forward: a target at the "
        "first layer, propagated to the later ones; boundary: one target at the first and one at the last layer; "
        "each: a separate gradient step at every layer",
    )
    rounds: int = Field(
        1,
        ge=1,
        description="number of plan-and-solve rounds, each on the model edited so far; they divide the steps",
    )
    group: int | None = Field(None, ge=1, description="requests planned and solved together; all if null")
    merge: bool = Field(False, description="requests of the same subject share one target")
    restraint: Restraint = Field(
        "none",
        description="rect: keep the entries with the largest relative change; prune: bound the singular values of "
        "the total update after the last batch",
    )
    history: bool = Field(False, description="add the keys of earlier batches to the geometry")

    # where
    layers: tuple[int, ...] = Field(description="edited layers, in ascending order")

    lookup: Lookup = Field(
        "subject",
        description="token at which keys are read and targets written: the subject's last, or the prompt's last [fact_token]",
    )

    # geometry
    weight: float = Field(15000.0, gt=0, description="lambda of lambda C [mom2_update_weight]")
    ridge: float = Field(1e-7, ge=0, description="beta of lambda C + beta I, as a share of tr(lambda C)")
    l2: float = Field(10.0, gt=0, description="beta in AlphaEdit's null space [L2]")
    threshold: float | None = Field(
        None, gt=0, description="absolute null-space threshold on eigenvalues of C (published: 0.02)"
    )
    keep: float = Field(0.8, gt=0, le=1, description="share of directions kept if no threshold is set")
    largest: float = Field(0.4, gt=0, le=1, description="share of entries kept by rect")
    dtype: Literal["float64", "float32"] = Field("float64", description="precision of the solves")

    # Stage I, the open-loop plan
    steps: int = Field(25, ge=1, description="steps of the open-loop plan [v_num_grad_steps]")
    lr: float = Field(0.5, gt=0, description="Adam's learning rate in the open-loop plan [v_lr]")
    kl: float = Field(0.0625, ge=0, description="weight of KL on '{} is a' [kl_factor]")
    decay: float = Field(0.5, ge=0, description="weight of ||delta||/||h||^2 [v_weight_decay]")
    clamp: float | None = Field(
        0.75, gt=0, description="||delta|| <= clamp ||h||; none if null [clamp_norm_factor]"
    )
    relative: Literal["stream", "value"] = Field(
        "stream",
        description="h in ||h||: the residual stream, or the down-projection's output (value, as in ROME)",
    )
    stop: Stop = Field(
        "own",
        description="early stop: on the planning loss (own; published), on the loss after the solve (executed), or none",
    )
    stop_loss: float = Field(0.05, ge=0, description="a request stops below this loss")

    # Compensation
    stretch: float = Field(8.0, ge=1, description="largest factor by which compensation lengthens a plan")

    # MetaKE, the closed loop
    start: Literal["plan", "compensated"] = Field("plan", description="initial target of the upper level")
    hypergradient: Hypergradient = Field(
        "unrolled",
        description="proxy: the paper's; parallel: the sum over layers (X11); unrolled: exact (X10)",
    )
    meta_steps: int = Field(15, ge=0, description="steps of the upper level, T of Algorithm 1")
    meta_lr: float = Field(0.5, gt=0, description="Adam's learning rate in the upper level")
    meta_stop: Stop = Field("executed", description="as stop, for the upper level")
    locality: float = Field(0.0625, ge=0, description="alpha_loc of (6)")
    regularise: float = Field(0.0, ge=0, description="alpha_reg of (6), on ||z - z0||^2/||h||^2")
    price: float = Field(
        0.0, ge=0, description="weight of the update's cost on preserved keys, tr(D G D^T)/||h||^2 (X14)"
    )
    joint: bool = Field(
        True, description="the proxy shares one lower level between all edits of a batch (X8)"
    )

    # UltraEdit's gradient step
    gradient_lr: float = Field(1e-6, gt=0, description="step size along the normalized gradient [lr]")

    # all
    check_every: int = Field(5, ge=1, description="steps between two evaluations of the executed loss")
    contexts: tuple[str, ...] | None = Field(
        None, description="prefixes of the prompt; sampled from the model if null"
    )
    seed: int = Field(0, description="seed of the sampled contexts")
    max_tokens: int | None = Field(
        None,
        ge=64,
        description="padded tokens per pass, which bounds the memory; if null, 1,024 on a CPU (its cache size) and "
        "8,192 on a GPU",
    )

    if not TYPE_CHECKING:  # type checkers and editors read the fields

        def __init__(self, **fields: Any) -> None:
            try:
                super().__init__(**fields)
            except ValidationError as error:
                raise _complaint(error) from error

    @model_validator(mode="after")
    def _one_step(self) -> Settings:
        if (self.target == "gradient") != (self.allocation == "each"):
            raise ValueError("target gradient and allocation each go together")
        if self.target == "gradient" and (self.rounds > 1 or self.group is not None or self.history):
            raise ValueError("target gradient is one step of the whole batch: no rounds, group or history")
        return self

    @model_validator(mode="after")
    def _cost_is_known(self) -> Settings:
        if self.price and (self.target != "bilevel" or self.fit == "exact"):
            raise ValueError("price needs target bilevel and fit soft; an exact fit has no such trade-off")
        return self

    @property
    def needs_statistics(self) -> bool:
        """Whether the geometry is made of C."""
        return self.geometry != "identity"

    @property
    def torch_dtype(self) -> torch.dtype:
        import torch

        return getattr(torch, self.dtype)

    def updated(self, **changes: Any) -> Settings:
        """A copy with some fields changed.

        Raises:
            MetakeError: unknown field or a value out of range; the line names it.
        """
        return make_settings({**self.model_dump(), **changes})


def make_settings(fields: dict[str, Any]) -> Settings:
    """`Settings` from plain values.

    Raises:
        MetakeError: unknown field or a value out of range; the line names it.
    """
    return Settings(**fields)


def check_fields(fields: Mapping[str, Any]) -> None:
    """Check settings one by one, before the others are known.

    Raises:
        MetakeError: unknown field or a value out of range; the line names it.
    """
    for name, value in fields.items():
        if name not in Settings.model_fields:
            raise unknown_name("settings", name, Settings.model_fields)
        field = Settings.model_fields[name]
        kind: Any = Annotated[field.annotation, field]
        try:
            TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False)).validate_python(value)
        except ValidationError as error:
            raise _complaint(error, name) from error


def _complaint(error: ValidationError, *outer: str) -> MetakeError:
    """pydantic's complaint as one line.

    Args:
        outer: name of the setting, if the complaint is about its value alone.
    """
    first = error.errors()[0]
    name = ".".join(str(part) for part in (*outer, *first["loc"]))
    if first["type"] == "extra_forbidden":
        return unknown_name("settings", name, Settings.model_fields)
    if not name:  # about several fields
        return MetakeError(f"settings: {first['msg'].removeprefix('Value error, ')}")
    given = first.get("input")
    if first["type"] == "literal_error":
        known = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        return unknown_name(f"settings: {name}", given, known)
    return MetakeError(f"settings: {name}: {first['msg'].lower()} (got {given!r})")


def describe_settings() -> str:
    """All settings as a Markdown table: name, default, meaning."""
    lines = ["| setting | default | meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = "required; a preset gives it" if field.is_required() else f"`{field.default}`"
        meaning = (field.description or "").replace("|", r"\|")  # a bar would end the cell
        lines.append(f"| `{name}` | {default} | {meaning} |")
    return "\n".join(lines) + "\n"
