"""Searches of several methods on one model, and the preset of their winners."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import optuna

from metake.console import set_interrupt_message
from metake.data.record import Record
from metake.errors import MetakeError
from metake.files import check_writable, read_record, write_json, write_record
from metake.methods.base import Method
from metake.methods.table import find_method
from metake.models.editable import EditableModel
from metake.options import find_statistics
from metake.presets import PRESETS, load_preset, preset_name, settings_for, short_name
from metake.provenance import provenance
from metake.shipped import DEMOS
from metake.tuning.search import Budget, described, search
from metake.tuning.space import SPACES, Space, space_of
from metake.tuning.winners import next_command, replace_variant, winners

SEARCHES = (
    Path(__file__).resolve().parents[2] / "experiments" / "search"
)  # in a checkout; with the shipped presets


def result_files(name: str, known: str, out: Path | None) -> tuple[Path, Path]:
    """Paths of all trials and of the preset of the winners.

    Args:
        name: short name of the model.
        known: its name among the presets; empty if it has none.
        out: folder of both; None for the shipped files of a model that has a space of its own, in a checkout, and
            for a folder under `results/search` otherwise.

    Returns:
        Both paths.

    Raises:
        MetakeError: one of them cannot be written.
    """
    if out is None and known in SPACES and SEARCHES.parent.is_dir():
        paths = SEARCHES / f"{name}.json", PRESETS / f"{name}.json"
    else:
        folder = out or Path("results/search") / name
        paths = folder / "search.json", folder / "preset.json"
    for path in paths:
        check_writable(path)
    return paths


def open_preset(path: Path, known: str, name: str) -> dict[str, Any]:
    """Preset that the winners are put into: that of the file, else the shipped one, else an empty one.

    Args:
        path: file of the preset, which may exist.
        known: name of the shipped preset; empty if there is none.
        name: short name of the model.

    Returns:
        A copy of the preset.
    """
    empty: dict[str, Any] = {"names": [name], "common": {}, "methods": {}}
    return empty | deepcopy(load_preset(path if path.is_file() else known))


def _check_searched(methods: Sequence[str]) -> None:
    """Refuse methods that have no settings to search."""
    for method in methods:
        if find_method(method).prototype.needs_fit:
            raise MetakeError(f"tune: {method} is fitted, not searched; use metake fit")


def tune(
    model: EditableModel,
    methods: Sequence[str],
    records: list[Record],
    budget: Budget,
    *,
    extend: bool = False,
    out: Path | None = None,
    stats: Path | None = None,
    text: Path | None = None,
    options: Sequence[str] = (),
) -> Path:
    """Search each method's settings, save all trials and the winners, and print a summary.

    Args:
        model: the unedited model.
        methods: rows of the method table.
        records: development records.
        budget: what the trials edit, and how many there are.
        extend: begin with the trials of the result file, if they are of the same run.
        out: as in `result_files`.
        stats: file of statistics; None to collect them.
        text: text to collect statistics from; None for the included one.
        options: command-line options that select the model, for the printed command.

    Returns:
        Path of the preset.

    Raises:
        MetakeError: a file cannot be used, a method is fitted, or no trial of a method succeeded.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _check_searched(methods)
    known = preset_name(model)
    name = known or short_name(model.name)
    space = SPACES.get(known) or space_of(model)
    needed = any(find_method(method).prototype.needs_statistics for method in methods)
    statistics = find_statistics(model, _all_layers(model, space, methods), stats, text) if needed else None
    result_file, preset_file = result_files(name, known, out)
    preset = open_preset(preset_file, known, name)
    fixed, shipped = preset["common"], dict(preset["methods"])
    result = _read_trials(result_file)
    same, variants = described(budget, space), {}
    set_interrupt_message(f"finished trials are in {budget.journal}; rerun the command to resume")
    for method in methods:
        found = result.get(method, {})
        earlier = found["trials"] if extend and same.items() <= found.items() else []
        trials = search(model, method, space, records, statistics, budget, fixed, shipped, earlier)
        if "failed" in trials[0]:
            raise MetakeError(f"{method}: no trial succeeded; first error: {trials[0]['failed']}")
        source = provenance(model.name, model, method, dated=False)
        result[method] = {**source, **same, "trials": trials}
        variants[method] = _put_winners(preset, method, trials)
        write_record(result_file, result)
        write_json(preset_file, {**preset, "searched": provenance(model.name, model, methods)})
    print("\n".join(["", *winners(result, methods)]))
    print(f"written: {preset_file} (the winners), {result_file} (every trial)")
    best = variants[max(methods, key=lambda method: result[method]["trials"][0]["score"])]
    _show_next(model.name in DEMOS, options, records[0], best, list(variants.values()), preset_file)
    return preset_file


def _all_layers(model: EditableModel, space: Space, methods: Sequence[str]) -> list[Method]:
    """MEMIT at every layer of a space, and methods that need gradients, for the statistics of all of them."""
    layers = tuple(sorted({n for layers in space.layer_sets for n in layers}))
    rows = [find_method(method).prototype for method in methods]
    tuned = [row.replaced("layers", space.tuned_layers) for row in rows if row.needs_gradients]
    return [settings_for(model, "memit", layers=layers), *tuned]


def _read_trials(path: Path) -> dict[str, Any]:
    """Method -> its trials in an earlier result file; empty without one."""
    if not path.is_file():
        return {}
    found: dict[str, Any] = read_record(path, "remove it: the journal has the trials")
    return found


def _show_next(
    demo: bool, options: Sequence[str], record: Record, best: str, variants: list[str], preset: Path
) -> None:
    """Print the command that uses the preset."""
    print(f"next: {next_command(options, demo, record, best, variants, preset)}")
    if not demo:
        print(
            f"to compare on records that the search has not seen: experiments/run_zsre.py --preset {preset} --data FILE"
        )


def _put_winners(preset: dict[str, Any], method: str, trials: list[dict[str, Any]]) -> str:
    """Put the best trial into the preset, of MEMIT also the best without early stop; the name of the variant."""
    variant = replace_variant(preset, method, trials[0]["choice"])
    if method == "memit":  # the control without early stop: the best of the same trials
        unstopped = [t for t in trials if t["choice"]["stop"] == "none"]
        if unstopped:
            replace_variant(preset, method, unstopped[0]["choice"], "@unstopped")
    return variant


def model_words(model: str, modules: Path | None, device: str | None, dtype: str) -> list[str]:
    """Options of a command that select the same model.

    Args:
        model: value of `--model`.
        modules: value of `--modules`.
        device: value of `--device`.
        dtype: value of `--dtype`.

    Returns:
        Words of a command line.
    """
    words = ["--model", model]
    for option, value in (("--modules", modules), ("--device", device)):
        if value is not None:
            words += [option, str(value)]
    return words if dtype == "float32" else [*words, "--dtype", dtype]
