"""Methods with a fitted map of keys and gradients: MALMEN, MEND, RLEdit, HORSE."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, SerializeAsAny
from tqdm import tqdm

from metake.components import register
from metake.console import tqdm_disable
from metake.data.record import Record
from metake.errors import MetakeError
from metake.files import check_writable, expand, write_json
from metake.folders import file_digest
from metake.geometry.statistics import Statistics
from metake.maps.files import load_map, map_file, read_meta, save_map
from metake.maps.fit import Fit
from metake.maps.fitting import Fitting
from metake.maps.gradient_map import GradientMap, MapSpec, Reduction
from metake.maps.networks import Network, ResidualNetwork
from metake.maps.updates import LeastSquares, Update
from metake.methods.mapped_gradient import MappedGradient
from metake.methods.names import split_name
from metake.methods.state import State
from metake.models.ambient import neutral
from metake.models.editable import EditableModel
from metake.phases import phase
from metake.provenance import provenance


@register
class LearnedMap(MappedGradient):
    """A map of keys and gradients that is fitted to records before it edits.

    The rows differ in their components: MALMEN has a residual network and least squares, MEND a step along the pseudo
    gradient, HORSE value differences that are orthogonal between layers, RLEdit a fit over sequences of batches.

    Example:
        >>> import tempfile
        >>> import metake as mk
        >>> model, facts = mk.load("demo"), [mk.EditRequest("The craft of {} is", n, "baker") for n in ("Ann", "Bo")]
        >>> method = mk.settings_for(model, "malmen", rank=4, fit_steps=1, fit_batch=2, fit_held_out=0.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     fitted = method.fit(model, [mk.Record(fact) for fact in facts], folder, progress=False)
        ...     with mk.Editor(model, method=fitted, progress=False) as editor:
        ...         editor.edit(facts).method.name
        'malmen'
    """

    kind = "learned-map"
    shares_layers = False
    needs_fit = True
    choices = ("end", "reduction", "moments")
    depth = "the last ones (published: the last six)"
    aliases: ClassVar[dict[str, str]] = {"lr": "map_lr"}

    map: str | None = Field(None, description="folder of the fitted map, which `metake fit` writes")
    lr: float = Field(
        1e-6, gt=0, description="step size of every layer before the fit, which changes it [lr]"
    )
    network: SerializeAsAny[Network] = Field(ResidualNetwork(), description="network of the map")
    update: SerializeAsAny[Update] = Field(
        LeastSquares(), description="change of the weights from the mapped pairs"
    )
    fitting: SerializeAsAny[Fitting] = Field(Fitting(), description="how the map is fitted")
    reduction: Reduction = Field(
        "sum",
        description="gradients of the sum of the NLL over a batch's answer tokens, which do not depend on the batch's "
        "size, or of the mean",
    )
    moments: Literal["running", "fitted"] = Field(
        "running",
        description="moments that normalize: those of the fit and of all edited batches, or those of the fit alone",
    )

    @classmethod
    def default_layers(cls, count: int) -> tuple[int, ...]:
        """Edited layers of a model without a preset.

        Args:
            count: number of layers of the model.

        Returns:
            The last six (published), in a small model those of its upper half.
        """
        return tuple(range(max(count - 6, count // 2), count))

    @property
    def previews(self) -> bool:
        """Whether `preview` is defined."""
        return self.update.solves

    @property
    def remembers_moments(self) -> bool:
        """Whether the edited batches change the normalization of later ones."""
        return self.moments == "running"

    @property
    def row(self) -> str:
        """Row of the table that the method is a variant of, by which its files are named."""
        return split_name(self.label or self.kind)[0]

    def spec(self) -> MapSpec:
        """What the map is made of."""
        return MapSpec(
            self.layers, self.network, self.update, self.lr, self.reduction, self.end, self.torch_dtype
        )

    def file(self) -> Path:
        """File of the fitted map.

        Returns:
            The path.

        Raises:
            MetakeError: the method has no folder.
        """
        if self.map is None:
            raise MetakeError(
                f"{self.name}: has no fitted map; fit one with metake fit --method {self.row} --model MODEL --data FILE --out FOLDER, and give "
                "--set map=FOLDER"
            )
        return map_file(expand(self.map), self.row)

    def check_overrides(self, overrides: Mapping[str, Any]) -> None:
        """Refuse numbers that the file of the map has fixed, and fixed otherwise.

        Args:
            overrides: setting -> value, as given by the user; those of a preset are replaced by the file's.

        Raises:
            MetakeError: a number of the network, or the first step size, is not the file's.
        """
        paths = {path: name for name in overrides for path in self.paths(name)}
        fixed = {
            path: name
            for path, name in paths.items()
            if path == ("lr",) or (path[0] == "network" and path[1:])
        }
        if self.map is None or not fixed or not (file := self.file()).is_file():
            return
        meta = read_meta(file, "fit it again")
        for path, name in fixed.items():
            found = meta.get("map_lr") if path == ("lr",) else meta.get("network", {}).get(path[-1])
            if found != (given := self.value(name)):
                raise MetakeError(
                    f"{file}: fitted with {name} {found}, not {given}; leave {name} out, or fit another map"
                )

    def check(self, model: EditableModel) -> None:
        """Refuse a model that the method cannot edit: without a map, or with that of another model.

        Args:
            model: the model, unedited.
        """
        super().check(model)
        self.init(model)

    def init(self, model: EditableModel, statistics: Statistics | None = None) -> State:
        """State before the first batch, with the map.

        Args:
            model: the model to edit.
            statistics: not used.

        Returns:
            A state without memory. A map that is missing, damaged or of another model raises a `MetakeError`.
        """
        return replace(
            super().init(model, statistics), learned=load_map(self.file(), self.spec(), model, self.row)
        )

    def gradient_map(self, model: EditableModel, state: State) -> GradientMap:
        """The fitted map.

        Args:
            model: the model.
            state: a state of `init`.

        Returns:
            The map.
        """
        found: GradientMap = state.learned or self.init(model).learned
        return found

    def identity(self) -> dict[str, Any]:
        """All that the method's edits depend on: its settings, with the content of the map in place of its folder."""
        return {**super().identity(), "map": self.map and file_digest(self.file())}

    def fit(
        self,
        model: EditableModel,
        records: Sequence[Record],
        folder: str | Path,
        *,
        progress: bool = True,
        overwrite: bool = False,
    ) -> LearnedMap:
        """Fit the map to records. An interrupted fit is resumed by the same call, with the same result.

        Args:
            model: the model, unedited; it is the same afterwards.
            records: records to fit, never those that the method is evaluated on.
            folder: folder of maps; the file is named by the method's row, the curve of the losses is the JSON beside it.
            progress: show a progress bar on a terminal or in a notebook.
            overwrite: replace a map that was fitted earlier.

        Returns:
            The method with this folder.

        Raises:
            MetakeError: there is an earlier map, or an unfinished fit with other settings; a record does not fit the
                model, or the loss is not finite.
        """
        path = free_file(Path(folder), self.row, overwrite)
        model.check_layers(self.layers)
        train, held = self.fitting.split(records)
        partial = path.with_suffix(".partial.safetensors")
        run = Fit(
            model, train, held, self.spec(), self.fitting, self.remembers_moments, partial, self.max_tokens
        )
        began = time.monotonic()
        with (
            neutral(),
            phase("fit"),
            tqdm(
                total=self.fitting.steps,
                desc=f"{self.name}: fit",
                unit="step",
                disable=tqdm_disable(progress),
            ) as bar,
        ):
            fitted = run.run(lambda step, loss: _show(bar, step, loss))
        save_map(path, fitted, model, self.row)
        curve = {
            **provenance(model.name, model, self.name),
            "settings": self.model_dump(mode="json"),
            "records": {"fitted": len(train), "held_out": len(held)},
            "steps": run.step,
            "stopped_early": run.stopped,
            "seconds": time.monotonic() - began,
            "curve": run.curve,
        }
        write_json(path.with_suffix(".json"), curve)
        partial.unlink(missing_ok=True)
        return self.updated(map=str(folder))


def free_file(folder: Path, row: str, overwrite: bool) -> Path:
    """File of a map that can be written.

    Args:
        folder: folder of maps.
        row: row of the table.
        overwrite: whether an earlier map may be replaced.

    Returns:
        The path.

    Raises:
        MetakeError: the folder cannot be written, or there is an earlier map.
    """
    path = map_file(expand(folder), row)
    check_writable(path.parent, folder=True)
    if path.exists() and not overwrite:
        raise MetakeError(
            f"{path}: exists; give another folder, or --overwrite (overwrite=True) to fit it again"
        )
    return path


def _show(bar: Any, step: int, loss: float) -> None:
    """A step on the progress bar."""
    bar.update(step - bar.n)
    bar.set_postfix_str(f"loss {loss:.3f}", refresh=False)
