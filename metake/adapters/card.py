"""The model card of an adapter: base model, edits, method, measurements, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

import metake
from metake.adapters.adapter import Adapter
from metake.adapters.base_name import PLACEHOLDER, displayed_base, is_hub_name
from metake.errors import MetakeError
from metake.words import counted

KINDS = {"peft": "A PEFT adapter", "gguf": "A GGUF adapter"}
SHOWN = 50  # edits in the table; all of them are in the metadata of the weights


def _cell(text: object) -> str:
    """A text as a cell of a Markdown table."""
    escaped = str(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return " ".join(escaped.split())


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(map(_cell, line))} |" for line in lines]


def _front_matter(adapter: Adapter, library: str) -> list[str]:
    fields: dict[str, Any] = {
        "library_name": library,
        "pipeline_tag": "text-generation",
        "tags": ["lora", "knowledge-editing", "metake"],
    }
    if is_hub_name(adapter.base):
        fields = {"base_model": adapter.base, **fields}
    return ["---", yaml.safe_dump(fields, sort_keys=False, allow_unicode=True).strip(), "---"]


def _edits(note: Mapping[str, Any], report: Mapping[str, Any]) -> list[str]:
    edits = note.get("edits", [])
    success = report.get("success", [])
    known = len(success) == len(edits)
    rows = [
        [edit["prompt"], edit["subject"], edit["target_new"], *([_answered(success[i])] if known else [])]
        for i, edit in enumerate(edits[:SHOWN])
    ]
    head = ["prompt", "subject", "new answer", *(["answer begins with it"] if known else [])]
    lines = ["## Edits", "", f"{counted(len(edits), 'edit')}.", ""]
    if rows:
        lines += [*_table(head, rows), ""]
    if len(edits) > SHOWN:
        lines += [f"The first {SHOWN} are shown; the metadata of the weights has all.", ""]
    return lines


def _answered(success: bool | None) -> str:
    return "not read" if success is None else "yes" if success else "no"


def _layers(adapter: Adapter, report: Mapping[str, Any]) -> list[str]:
    etas = dict(zip(report.get("layers", []), report.get("eta", []), strict=False))
    rows = [
        [
            f"`{adapter.path(layer)}`",
            adapter.written[layer].rank,
            f"{low.error:.2g}",
            f"{fmean(etas[layer]):.3f}" if etas.get(layer) else "not recorded",
        ]
        for layer, low in adapter.layers.items()
    ]
    head = ["module", "rank", "relative error", "mean eta"]
    meaning = "eta: share of the requested change of a value that the solver realizes. Relative error: what the rank leaves out."
    return ["## Layers", "", *_table(head, rows), "", meaning, ""]


def _metrics(report: Mapping[str, Any]) -> list[str]:
    read = [success for success in report.get("success", []) if success is not None]
    rows = [["answers that begin with the new one", f"{sum(read)} of {len(read)}"]] if read else []
    rows += [
        [name, f"{value:g}" if isinstance(value, float) else value]
        for name, value in report.get("metrics", {}).items()
    ]
    return ["## Measurements", "", *(_table(["measure", "value"], rows) if rows else ["Not recorded."]), ""]


def _provenance(adapter: Adapter, report: Mapping[str, Any]) -> list[str]:
    note = adapter.note
    versions = report.get("versions", {})
    rows = [
        ["base model", adapter.base or note.get("model") or "not recorded"],
        ["fingerprint of its weights", adapter.fingerprint or "not recorded"],
        ["method", note.get("method", "not recorded")],
        [
            "constraint",
            ", ".join(f"{k} {v:g}" for k, v in note.get("constraint", {}).items()) or "not recorded",
        ],
        ["data", report.get("data") or "the edits above"],
        [
            "seeds",
            ", ".join(f"{k} {v}" for k, v in _seeds(note.get("settings", {}), report)) or "not recorded",
        ],
        ["metake", note.get("version", metake.__version__)],
        *([name, value] for name, value in versions.items() if name != "metake"),
    ]
    reasons = [f"- {_cell(reason)}" for reason in note.get("reasons", [])]
    return ["## Method and provenance", "", *_table(["", ""], rows), "", *([*reasons, ""] if reasons else [])]


def _seeds(settings: Mapping[str, Any], report: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Every setting named seed, and the seed of the run."""
    found = [("run", report["seed"])] if "seed" in report else []
    for name, value in settings.items():
        if name == "seed":
            found.append(("method", value))
        elif isinstance(value, Mapping) and "seed" in value:
            found.append((name, value["seed"]))
    return found


class _Report(BaseModel):
    """What the card reads of a report, by type."""

    success: list[bool | None] = []
    layers: list[int] = []
    eta: list[list[float]] = []
    metrics: dict[str, Any] = {}
    versions: dict[str, Any] = {}


def check_report(report: object, where: str = "report") -> None:
    """Check the measurements of a model card.

    Args:
        report: see `card`.
        where: begins the error line, e.g. the file.

    Raises:
        MetakeError: a field has another form.
    """
    try:
        _Report.model_validate(report)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "all of it"
        raise MetakeError(
            f"{where}: {field}: {first['msg'].lower()}; give what metake edit wrote, or remove it"
        ) from error


def card(adapter: Adapter, report: Mapping[str, Any], serve: str, library: str = "peft") -> str:
    """Text of `README.md`.

    Args:
        adapter: the adapter.
        report: measurements by name, as `EditResult.summary()` or `result.json` has them (`layers`, `eta`, `success`,
            `versions`); also `data`, `seed`, and `metrics`, a number or text by name.
        serve: command that serves the adapter.
        library: `peft` or `gguf`, what reads the adapter.

    Returns:
        Markdown with the front matter of the hub.

    Raises:
        MetakeError: a field of the report has another form.
    """
    check_report(report)
    base = adapter.base or PLACEHOLDER
    name = _cell(displayed_base(base) if adapter.base else adapter.note.get("model") or "a language model")
    unknown = [] if adapter.base else [f"{PLACEHOLDER}: the hub name or folder of the unedited model.", ""]
    python = [
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f"base = AutoModelForCausalLM.from_pretrained({base!r})",
        "model = PeftModel.from_pretrained(base, FOLDER)  # this folder, or the repository's name",
        "```",
        "",
    ]
    use = ["## Use", "", *([*python, *unknown] if library == "peft" else []), f"    {serve}", ""]
    lines = [
        *_front_matter(adapter, library),
        "",
        f"# Knowledge edit of {name}",
        "",
        f"{KINDS[library]} that changes facts in {name}, computed by MetaKE {metake.__version__} in closed form, not trained.",
        "",
        *_edits(adapter.note, report),
        *_layers(adapter, report),
        *_metrics(report),
        *_provenance(adapter, report),
        *use,
    ]
    return "\n".join(lines)
