"""Methods by name, for given layers or with the preset of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from metake.components import find_kind
from metake.errors import MetakeError
from metake.methods import combinators
from metake.methods.base import Method
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.table import method_named
from metake.models.editable import EditableModel
from metake.planners.gradients import Gradient
from metake.presets import settings_for

Where = Sequence[int] | EditableModel | nn.Module


def rome(where: Where, **settings: Any) -> LocateThenEdit:
    """ROME: exact fit of one request after the other, at the last edited layer.

    Args:
        where: edited layers in ascending order, with default numbers; or a model, whose preset is used.
        **settings: changed settings by name; see `Method.updated`.

    Returns:
        The method.

    Raises:
        MetakeError: not layers or a model, an unknown setting, or a value out of range.

    Reference:
        Meng et al., Locating and Editing Factual Associations in GPT, arXiv:2202.05262.

    Example:
        >>> import metake as mk
        >>> method = mk.rome([17])
        >>> method.name, method.fit
        ('rome', 'equality_constrained')
    """
    return _built("rome", where, settings)


def memit(where: Where, **settings: Any) -> LocateThenEdit:
    """MEMIT: open-loop plans, realized by regularized least squares and spread over the edited layers.

    Args:
        where: edited layers in ascending order, with default numbers; or a model, whose preset is used.
        **settings: changed settings by name; see `Method.updated`.

    Returns:
        The method.

    Raises:
        MetakeError: not layers or a model, an unknown setting, or a value out of range.

    Reference:
        Meng et al., Mass-Editing Memory in a Transformer, arXiv:2210.07229.

    Example:
        >>> import metake as mk
        >>> mk.memit(range(4, 9), lr=0.1).value("lr")
        0.1
        >>> len(mk.memit(mk.load("demo")).layers) > 0
        True
    """
    return _built("memit", where, settings)


def alphaedit(where: Where, **settings: Any) -> LocateThenEdit:
    """AlphaEdit: MEMIT in the null space of C, with the keys of earlier batches.

    Args:
        where: edited layers in ascending order, with default numbers; or a model, whose preset is used.
        **settings: changed settings by name; see `Method.updated`.

    Returns:
        The method.

    Raises:
        MetakeError: not layers or a model, an unknown setting, or a value out of range.

    Reference:
        Fang et al., AlphaEdit: Null-Space Constrained Knowledge Editing for Language Models, arXiv:2410.02355.

    Example:
        >>> import metake as mk
        >>> method = mk.alphaedit(range(4, 9))
        >>> method.geometry.kind, method.memory.kind
        ('projected', 'past-keys')
    """
    return _built("alphaedit", where, settings)


def metake(
    base: LocateThenEdit | Where, gradient: Gradient | str | None = None, *, label: str = "", **settings: Any
) -> LocateThenEdit:
    """MetaKE: targets optimized through the closed form of a method's solver.

    Args:
        base: the method with the lower level and the initial target; or layers or a model, for MetaKE over
            MEMIT.
        gradient: gradient of the post-edit loss with respect to the targets, or its kind (`unrolled`,
            `proxy`, `parallel`); the exact hypergradient by default.
        label: name of the result; by default `metake(NAME)` of a method.
        **settings: changed settings by name; see `Method.updated`.

    Returns:
        The method.

    Raises:
        MetakeError: not a method, layers or a model; a method without an open-loop planner; an unknown gradient or
            setting; or a value out of range.

    Reference:
        Liu and Wu, MetaKE, arXiv:2603.12677, Algorithm 1.

    Example:
        >>> import metake as mk
        >>> method = mk.metake(mk.alphaedit([1, 2, 3]), gradient="unrolled")
        >>> method.name, method.planner.gradient.kind
        ('metake(alphaedit)', 'unrolled')
        >>> mk.metake([1, 2, 3], gradient="proxy").planner.gradient.kind
        'proxy'
    """
    if isinstance(gradient, str):
        gradient = cast(Gradient, find_kind("gradient", gradient)())
    if isinstance(base, Method):
        return combinators.metake(base, gradient, label=label).updated(**settings)
    method = _built("metake", base, settings)
    if gradient is not None:
        method = method.changed({("planner", "gradient"): gradient})
    return method.changed({("label",): label}) if label else method


def _built(name: str, where: Where, settings: dict[str, Any]) -> LocateThenEdit:
    """A row of the table for given layers, or with the preset of a model."""
    if isinstance(where, EditableModel | EditableModel | nn.Module):
        return cast(LocateThenEdit, settings_for(where, name, **settings))
    if not isinstance(where, Sequence) or isinstance(where, str):
        raise MetakeError(
            f"{name}: must be given layers, e.g. [4, 5, 6], or a model, not {type(where).__name__}"
        )
    method = method_named(name).updated(layers=tuple(where)).updated(**settings)
    return cast(LocateThenEdit, method)
