"""UltraEdit (arXiv:2505.14679): one normalized gradient step of the whole batch at every edited layer."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from metake.components import register
from metake.maps.gradient_map import GradientMap, MapSpec
from metake.maps.networks import IdentityNetwork
from metake.maps.updates import LeastSquares
from metake.methods.mapped_gradient import MappedGradient
from metake.methods.state import State
from metake.models.editable import EditableModel


@register
class UltraEdit(MappedGradient):
    """UltraEdit: one gradient step, normalized by the moments of all batches so far; no statistics, contexts or planning.

    The map is the identity: the planned value at a key k is `-lr ||k^||^2 g^`, and the geometry of the solve is I.

    Reference: arXiv:2505.14679.
    """

    kind = "ultraedit"
    aliases: ClassVar[dict[str, str]] = {"lr": "gradient_lr"}

    lr: float = Field(1e-6, gt=0, description="step size along the normalized gradient [lr]")

    @property
    def step_setting(self) -> str:
        """Name of the setting that states how far a target is optimized."""
        return "gradient_lr"

    def gradient_map(self, model: EditableModel, state: State) -> GradientMap:
        """The identity, without moments of its own.

        Args:
            model: the model.
            state: not used.

        Returns:
            The map.
        """
        update = LeastSquares(inner="normalized")
        spec = MapSpec(self.layers, IdentityNetwork(), update, self.lr, "mean", self.end, self.torch_dtype)
        return GradientMap(spec, model.d_k, model.d_v)
