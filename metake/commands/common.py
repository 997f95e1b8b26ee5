"""What commands make of the options that they share."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from metake.commands.garbage import resume_collection
from metake.errors import MetakeError
from metake.options import parse_layers
from metake.phases import phase
from metake.shipped import ASSETS, DEMOS

if TYPE_CHECKING:
    from metake.calibration.locate import Location
    from metake.data.records import Record
    from metake.deltas import Delta
    from metake.geometry.statistics import Statistics
    from metake.methods.base import Method
    from metake.models.editable import EditableModel
    from metake.requests import EditRequest


def above_zero(text: str) -> float:
    """Number of an option that has to be above 0.

    Args:
        text: value of the option.

    Returns:
        The number.

    Raises:
        typer.BadParameter: it is no number, not finite, or not above 0.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise typer.BadParameter(f"must be a number above 0, got {text}")
    return value


def parse_changes(pairs: list[str] | None, layers: str | None) -> dict[str, Any]:
    """Settings from `--set NAME=VALUE` and `--layers`.

    Args:
        pairs: values of `--set`; a value is JSON, and a string needs no quotes.
        layers: value of `--layers`.

    Returns:
        Setting -> value.

    Raises:
        MetakeError: a pair without a value, or unreadable layers.
    """
    changes: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise MetakeError(f"--set {pair}: write NAME=VALUE, as in --set lr=0.1")
        try:
            changes[name.strip()] = json.loads(value)
        except ValueError:
            changes[name.strip()] = value
    if layers is not None:
        changes["layers"] = parse_layers(layers)
    return changes


@dataclass(frozen=True)
class MethodOptions:
    """Options that change settings of methods; checked before a model is loaded, which takes long.

    Attributes:
        preset: preset file; None for the model's preset.
        files: method -> published hyper-parameter file, as `parse_files` returns them.
        changes: setting -> value, of `--set` and `--layers`.
    """

    preset: Path | None
    files: dict[str, Path]
    changes: dict[str, Any]

    @classmethod
    def read(
        cls, preset: Path | None, hparams: list[str] | None, change: list[str] | None, layers: str | None
    ) -> MethodOptions:
        """Options as the command line has them.

        A setting that is unknown or out of range, or a preset that cannot be read, raises a `MetakeError`.

        Args:
            preset: value of `--preset`.
            hparams: values of `--hparams`.
            change: values of `--set`.
            layers: value of `--layers`.

        Returns:
            The options.
        """
        from metake.presets import check_changes, load_preset
        from metake.published import parse_files

        changes = parse_changes(change, layers)
        check_changes(changes)
        if preset is not None:
            load_preset(preset)
        return cls(preset, parse_files(hparams), changes)

    def calibrates(self, model: EditableModel) -> bool:
        """Whether settings are measured on the model: it has no preset, or `--preset none` hides it.

        Args:
            model: the model.

        Returns:
            False with a preset or published settings.
        """
        from metake.presets import NO_PRESET, preset_name

        if self.files:
            return False
        return str(self.preset) == NO_PRESET or (self.preset is None and not preset_name(model))

    def chosen(
        self,
        model: EditableModel,
        names: Sequence[str],
        requests: Sequence[EditRequest],
        stats: Path | None,
        text: Path | None,
    ) -> tuple[list[Location], Statistics | None]:
        """Methods with the model's preset, or measured on the first batch; and the statistics that they need.

        A setting that a method does not have, or statistics that do not fit, raise a `MetakeError`.

        Args:
            model: the model.
            names: names of the methods.
            requests: requests of the first batch.
            stats: value of `--stats`.
            text: value of `--text`.

        Returns:
            One location per name, and the statistics of all their layers; None if no method needs them.
        """
        from metake.calibration.locate import Location, candidates, locate
        from metake.methods.table import method_named
        from metake.options import find_statistics
        from metake.presets import preset_name

        if not self.calibrates(model):
            methods = self.methods(model, names)
            where = str(self.preset or "") or preset_name(model) or "published"
            origin = f"settings: preset {where}" if not self.files else "settings: published hyper-parameters"
            return [Location(m, reasons=(origin,)) for m in methods], find_statistics(
                model, methods, stats, text
            )
        self.methods(model, names)  # a setting that no method has
        fixed = {name: method_named(name).supported_changes(self.changes) for name in names}
        count = len(model)
        options = [m for name in names for m in candidates(count, name, stats is None, **fixed[name])]
        statistics = find_statistics(model, options, stats, text)
        with phase("calibrate"):
            found = [
                locate(model, requests, name, statistics, windows=stats is None, **fixed[name])
                for name in names
            ]
        return found, statistics

    def method(self, model: EditableModel, name: str) -> Method:
        """One method with all changes; a setting that it does not have raises a `MetakeError`.

        Args:
            model: the model.
            name: name of the method.

        Returns:
            The method.
        """
        from metake.presets import settings_for
        from metake.published import published_for

        published = published_for(self.files, [name], model)[name]
        return settings_for(model, name, name=self.preset, **{**published, **self.changes})

    def methods(self, model: EditableModel, names: Sequence[str]) -> list[Method]:
        """Several methods, each with the changes of settings that it has.

        A setting that none of them has raises a `MetakeError`.

        Args:
            model: the model.
            names: names of the methods.

        Returns:
            One method per name.
        """
        from metake.presets import methods_for
        from metake.published import published_for

        published = published_for(self.files, list(names), model)
        return methods_for(model, names, preset=self.preset, per_method=published, changes=self.changes)


def load_model(
    model: str, device: str | None, dtype: str, modules: Path | None, chat: bool | None = None
) -> EditableModel:
    """Model selected by a command's options.

    A model that cannot be loaded raises a `MetakeError`.

    Args:
        model: value of `--model`.
        device: value of `--device`.
        dtype: value of `--dtype`.
        modules: value of `--modules`.
        chat: as in `load`; None for a command without prompts.

    Returns:
        The model.
    """
    with phase(f"load {model}"):
        from metake.models.load import load

        loaded = load(model, device=device, dtype=dtype, modules=modules, chat=chat)
    resume_collection()
    return loaded


def read_delta(path: Path, folded_by: str = "") -> Callable[[EditableModel | None, bool], Delta]:
    """Read a saved delta or a PEFT adapter, before a model is loaded.

    A file that cannot be read raises a `MetakeError`.

    Args:
        path: folder or file of `metake edit`, or a PEFT adapter.
        folded_by: name of a command that writes weights alone, which refuses gated patches.

    Returns:
        Function of the unedited model and of whether to check that the change was made for it; the delta.
    """
    from metake.adapters.peft_reader import is_peft_folder, read_peft
    from metake.deltas import FILE, Delta

    if is_peft_folder(path) and not (path / FILE).exists():
        folder = read_peft(path)
        return lambda model, check: Delta.from_peft(folder, model, check=check)
    change = Delta.load(path)
    if folded_by:
        change.require_foldable(folded_by)

    def of_model(model: EditableModel | None, check: bool) -> Delta:
        change.check_values(str(path)) if model is None else change.check_fits(model, check, str(path))
        return change

    return of_model


def data_file(data: Path | None, model: str, default: str) -> Path:
    """File of records: the given one, or that of the demo models' world.

    Args:
        data: value of `--data`.
        model: value of `--model`.
        default: name of the world's file.

    Returns:
        Path of the file.

    Raises:
        MetakeError: no file is given for a model that is not a demo model.
    """
    if data is None and model not in DEMOS:
        raise MetakeError(f"--data: needed for {model}; give a zsRE or CounterFact file")
    return data or ASSETS / "world" / default


def records_that_fit(
    model: EditableModel, records: Sequence[Record], path: Path
) -> tuple[list[Record], list[str]]:
    """Records that fit the model; each of the others is a line on stderr.

    Args:
        model: the model.
        records: records of a file.
        path: the file, for the error line.

    Returns:
        The records, and a line for each one that is left out.

    Raises:
        MetakeError: no record fits.
    """
    from metake.evaluation.checks import fitting_records

    fitting, left_out = fitting_records(model, records)
    for line in left_out:
        typer.echo(f"left out: {line}", err=True)
    if not fitting:
        raise MetakeError(f"{path}: no record fits the model")
    return fitting, left_out
