"""The table of methods: a name determines an algorithm, a preset its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from metake.errors import MetakeError
from metake.geometry.specs import ProjectedSpec
from metake.key_estimators import RomeKeys
from metake.maps.fitting import Fitting
from metake.maps.networks import ResidualNetwork
from metake.maps.updates import Orthogonal, OuterProduct
from metake.methods.base import Method
from metake.methods.combinators import (
    compensated,
    forward_replay,
    in_windows,
    iterated,
    metake,
    postprocessed,
    with_boundary_targets,
    with_past_keys,
)
from metake.methods.fine_tune import FineTune
from metake.methods.learned_map import LearnedMap
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.names import PROTOTYPES, split_name, with_choices
from metake.methods.patching import Patching
from metake.methods.rep import Rep
from metake.methods.ultraedit import UltraEdit
from metake.names import unknown_name
from metake.packages import entry_points
from metake.patches.grace import GraceSpec
from metake.patches.memoir import MemoirSpec
from metake.patches.wise import WiseSpec
from metake.planners.closed_loop import ClosedLoop
from metake.planners.curvature import LowCurvature
from metake.planners.gradients import ParallelGradient, ProxyGradient
from metake.planners.norm_anchored import NormAnchored
from metake.planners.open_loop import OpenLoop
from metake.planners.windows import Matryoshka
from metake.planners.with_attention import WithAttention
from metake.solvers.allocation import Last, SquareRoots
from metake.solvers.memory import PastKeys
from metake.solvers.postprocess import Prune, PruneAdded, Rect
from metake.solvers.sphere import Sphere


@dataclass(frozen=True)
class Row:
    """Method of the table.

    Attributes:
        name: name of the row.
        prototype: the method without layers.
        summary: one line for lists.
        source: the paper that introduced it.
        like: the row whose preset is used if the model's preset has none for this row.

    Example:
        >>> import metake as mk
        >>> prototype = mk.memit(()).updated(steps=5)
        >>> row = mk.Row("memit-short", prototype, "MEMIT with five steps", "ours", like="memit")
        >>> method = row.build((4, 5))
        >>> method.name, method.layers, method.planner.steps
        ('memit-short', (4, 5), 5)
    """

    name: str
    prototype: Method
    summary: str
    source: str
    like: str = ""

    def build(self, layers: tuple[int, ...], **settings: Any) -> Method:
        """Method at some layers.

        Args:
            layers: edited layers, ascending.
            settings: see `Method.updated`.

        Returns:
            A method that is named by the row.
        """
        return self.prototype.changed({("layers",): layers, ("label",): self.name}).updated(**settings)


MEMIT = LocateThenEdit(layers=(), label="memit")
ALPHAEDIT = LocateThenEdit(layers=(), label="alphaedit", geometry=ProjectedSpec(), memory=PastKeys())
ROME = LocateThenEdit(
    layers=(),
    label="rome",
    planner=OpenLoop(relative="value"),
    allocation=Last(),
    fit="equality_constrained",
    keys=RomeKeys(),
    group=1,
)

METHODS: dict[str, Row] = {
    row.name: row
    for row in (
        # what the paper compares
        Row("rome", ROME, "exact fit of one request after the other, at one layer, with the keys of ROME's code", "arXiv:2202.05262", "memit"),
        Row("memit", MEMIT, "open-loop plan, spread over the layers", "arXiv:2210.07229"),
        Row("prune", postprocessed(MEMIT, Prune()), "MEMIT, singular values of the total update bounded at the end",
            "arXiv:2405.16821", "memit"),
        Row("rect", postprocessed(MEMIT, Rect()), "MEMIT that keeps the largest relative changes",
            "arXiv:2401.04700", "memit"),
        Row("alphaedit", ALPHAEDIT, "MEMIT in the null space of C, with history of keys", "arXiv:2410.02355"),
        Row("alphaedit-blue", with_boundary_targets(ALPHAEDIT), "AlphaEdit with a target at the first and one at the last layer",
            "arXiv:2502.03285", "alphaedit"),
        # MetaKE over every lower level
        Row("metake", metake(MEMIT), "closed-loop target along the exact hypergradient (X10)", "ours"),
        Row("metake-proxy", metake(MEMIT, ProxyGradient()),
            "closed-loop target along the structural proxy, as in the paper", "MetaKE, Algorithm 1", "metake"),
        Row("metake-parallel", metake(MEMIT, ParallelGradient()),
            "closed-loop target along the sum of all layers' gradients (X11)", "ours", "metake"),
        Row("metake-priced", metake(MEMIT, cost_weight=1.0), "closed-loop target with a cost on preserved keys (X14)",
            "ours", "metake"),
        Row("metake-alphaedit", metake(ALPHAEDIT), "closed-loop target over AlphaEdit's solver", "ours", "alphaedit"),
        Row("metake-blue", metake(with_boundary_targets(ALPHAEDIT)), "closed-loop target at the first and at the last layer",
            "ours", "alphaedit"),
        # other published methods
        Row("emmet", LocateThenEdit(layers=(), allocation=Last(), fit="equality_constrained"), "ROME's exact fit for a whole batch",
            "arXiv:2403.14236", "memit"),
        Row("memit-fe", with_past_keys(forward_replay(MEMIT)),
            "MEMIT with a target at the first layer, propagated upwards", "arXiv:2605.00358", "memit"),
        Row("alphaedit-fe", forward_replay(ALPHAEDIT), "AlphaEdit with a target at the first layer, propagated upwards",
            "arXiv:2605.00358", "alphaedit"),
        Row("memit-merge", LocateThenEdit(layers=(), merge=True), "MEMIT, requests of the same subject share a target",
            "arXiv:2502.07322", "memit"),
        Row("pmet", LocateThenEdit(layers=(), planner=WithAttention(), allocation=SquareRoots()),
            "MEMIT in the outputs of down-projections, planned with a shift of the attention that is not written",
            "arXiv:2308.08742", "memit"),
        Row("nas", ALPHAEDIT.changed({("planner",): NormAnchored(), ("label",): "nas"}),
            "AlphaEdit whose values are rescaled to a norm of the unedited model", "arXiv:2602.02543", "alphaedit"),
        Row("sphere", postprocessed(ALPHAEDIT, Sphere()),
            "AlphaEdit with less of each update along the principal directions of the weight's rows", "arXiv:2510.01172", "alphaedit"),
        Row("ultraedit", UltraEdit(layers=()),
            "one normalized gradient step at the answer's tokens, least squares, no statistics", "arXiv:2505.14679"),
        # one step with a map that is fitted before it edits (metake fit)
        Row("malmen", LearnedMap(layers=()),
            "one step of mapped gradients, least squares with a learned ridge; the map is fitted first", "arXiv:2311.04661"),
        Row("mend", LearnedMap(layers=(), network=ResidualNetwork(scaling="before"), update=OuterProduct(),
            fitting=Fitting(answer=0.1), moments="fitted"),
            "one step along mapped gradients, nothing is solved; the map is fitted first", "arXiv:2110.11309", "malmen"),
        Row("rledit", LearnedMap(layers=(), network=ResidualNetwork(blocks=4), fitting=Fitting(length=5, depth=10, decay=0.95,
            locality=0.6, norm=1e-4)), "MALMEN with a map that is fitted over sequences of batches", "arXiv:2502.05759", "malmen"),
        Row("horse", LearnedMap(layers=(), update=Orthogonal()),
            "MALMEN with value differences that are orthogonal between neighboring layers", "arXiv:2601.11441", "malmen"),
        # long answers: several positions per request
        Row("memit-anyedit", in_windows(MEMIT), "MEMIT in windows of the answer, planned one after the other, other tokens preserved",
            "arXiv:2502.05628", "memit"),
        Row("alphaedit-anyedit", in_windows(ALPHAEDIT),
            "AlphaEdit in windows of the answer, planned one after the other, other tokens preserved", "arXiv:2502.05628",
            "alphaedit"),
        Row("muke", in_windows(MEMIT, Matryoshka()), "memit-anyedit whose targets also count for all later windows",
            "arXiv:2504.01196", "memit"),
        Row("metake-windows", metake(in_windows(MEMIT)), "closed-loop targets of all windows of the answer at once", "ours",
            "metake"),
        # fine-tuning, the control of every method that locates and then edits
        Row("ft-l", FineTune(layers=(), objective="prompt_last", norm_constraint=5e-4),
            "fine-tuning of one down-projection within a box, all target tokens read off the prompt's end", "arXiv:2012.00363",
            "ft-m"),
        Row("ft-m", FineTune(layers=(), norm_constraint=5e-4),
            "fine-tuning of one down-projection within a box, on all target tokens", "EasyEdit's code"),
        Row("locft-bf", FineTune(layers=(), end="end-token"),
            "fine-tuning of one down-projection in epochs over all edits, on the targets with their end", "arXiv:2509.22072"),
        Row("crispedit", FineTune(layers=(), projection=LowCurvature(), mini_batch=32),
            "fine-tuning with gradients projected onto directions of low curvature, by K-FAC", "arXiv:2602.15823", "locft-bf"),
        # gated memories: patches that do not fold into the weights
        Row("grace", Patching(layers=(), patch=GraceSpec()),
            "codebook: within a ball around an edit's key the output is replaced by its trained value", "arXiv:2211.11031"),
        Row("wise", Patching(layers=(), patch=WiseSpec()),
            "side copy of a down-projection, used where its output differs enough", "arXiv:2405.14768"),
        Row("memoir", Patching(layers=(), patch=MemoirSpec()),
            "residual memory, read through the mask of the edit that a token resembles", "arXiv:2506.07899"),
        Row("rep", Rep(layers=()), "MEMIT on a model with gated adapters of its keys", "arXiv:2410.09338", "memit"),
        # controls for the closed loop
        Row("memit-compensated", compensated(MEMIT), "MEMIT's plan, scaled until it is fully realized", "P4",
            "memit"),
        Row("alphaedit-compensated", compensated(ALPHAEDIT), "AlphaEdit's plan, scaled until it is fully realized",
            "P4", "alphaedit"),
        Row("memit-iterated", iterated(MEMIT, 3), "three rounds of MEMIT with the same total number of steps",
            "arXiv:2503.11895", "memit"),
        Row("alphaedit-iterated", iterated(ALPHAEDIT, 3),
            "three rounds of AlphaEdit with the same total number of steps", "arXiv:2503.11895", "alphaedit"),
        # published code that differs from its paper
        Row("prune-added", postprocessed(MEMIT, PruneAdded()),
            "PRUNE as published results ran it: the bounded update added to the unbounded one", "AlphaEdit's code",
            "memit"),
    )
}  # fmt: skip
PROTOTYPES.update((name, row.prototype) for name, row in METHODS.items())


def register_method(row: Row) -> Row:
    """Row added to the table.

    Args:
        row: the row.

    Returns:
        The row itself.

    Raises:
        MetakeError: not a row, or a name that is taken.

    Example:
        >>> import metake as mk
        >>> prototype = mk.memit(()).updated(steps=5)
        >>> row = mk.Row("memit-short", prototype, "MEMIT with five steps", "ours", like="memit")
        >>> mk.register_method(row) is mk.METHODS["memit-short"]
        True
    """
    if not isinstance(row, Row):
        raise MetakeError(f"register_method: must be a Row, not {type(row).__name__}")
    if row.name in METHODS and METHODS[row.name] != row:
        raise MetakeError(f"register_method: {row.name!r} is already a method")
    METHODS[row.name], PROTOTYPES[row.name] = row, row.prototype
    return row


def all_methods() -> dict[str, Row]:
    """The table with the rows of installed packages (entry points of `metake.method_rows`)."""
    for point in entry_points(group="metake.method_rows"):
        register_method(point.load())
    return METHODS


def find_method(name: str) -> Row:
    """Row of a name. A name that is not in the table is a `MetakeError`.

    Args:
        name: name of a method; only its row is read.

    Returns:
        The row.
    """  # noqa: DOC501 (unknown_name returns a MetakeError)
    row = split_name(name)[0]
    if row not in METHODS and row not in all_methods():
        raise unknown_name("method", row, METHODS)
    return METHODS[row]


def method_named(name: str, layers: tuple[int, ...] = ()) -> Method:
    """Method of a name, with default numbers. An unknown row or kind is a `MetakeError`.

    Args:
        name: a row of the table; `ROW + KIND` exchanges a component, e.g. `memit + past-keys` (see
            `metake.methods.names`); a label after `@` distinguishes several settings of one method.
        layers: edited layers, ascending.

    Returns:
        The method.

    Example:
        >>> from metake.methods.table import method_named
        >>> method_named("memit + past-keys", layers=(4, 5)).memory.kind
        'past-keys'
    """
    row, choices, label = split_name(name)
    made = find_method(name).prototype.changed({("layers",): layers, ("label",): row + label})
    return with_choices(made, choices)


def _planner_cell(method: LocateThenEdit) -> str:
    planner = method.planner
    cell = f"{planner.kind}, {planner.gradient.kind}" if isinstance(planner, ClosedLoop) else planner.kind
    if isinstance(planner, ClosedLoop) and planner.start.kind != OpenLoop.kind:
        cell += f" from {planner.start.kind}"
    cell += f", {method.rounds} rounds" if method.rounds > 1 else ""
    cell += ", one by one" if method.group == 1 else ""
    cell += ", per subject" if method.merge else ""
    cell += ", in windows" if method.windows.at_prompt else ""
    return cell + (", priced" if isinstance(planner, ClosedLoop) and planner.cost_weight else "")


def describe_methods() -> str:
    """The table as Markdown: name, its components, what it is, where it is from."""
    head = ("method", "planner", "geometry", "fit", "allocation", "postprocess", "memory", "what", "from")
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for row in METHODS.values():
        m = row.prototype
        if isinstance(m, LocateThenEdit):
            parts = [
                _planner_cell(m),
                m.geometry.kind,
                m.fit,
                m.allocation.kind,
                m.postprocess.kind,
                m.memory.kind,
            ]
        else:
            parts = [m.kind, *["-"] * 5]
        lines.append("| " + " | ".join([f"`{row.name}`", *parts, row.summary, row.source]) + " |")
    return "\n".join(lines) + "\n"
