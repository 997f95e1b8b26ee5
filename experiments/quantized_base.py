"""What quantization keeps of edits: the edited model quantized, and the edit as an adapter over the quantized base.

    python experiments/quantized_base.py --models demo,demo-gptj,demo-llama --edits 20

Needs `pip install 'metake[quantized]'`. Every row is measured on the same test facts of the demo world, teacher-forced:

- fp32: the model, unedited and edited;
- quantized base: the unedited model, quantized;
- edited, then quantized: the edit is merged into the weights before they are quantized;
- adapter of the fp32 edit: the edit of the fp32 model as a PEFT adapter in fp32 over the quantized base;
- adapter of a dequantized edit: the same method on the weights that the quantized base stands for.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metake.console import command
from metake.extras import require
from metake.files import write_json, write_text
from metake.options import Parser, at_least, output_folder, show_help
from metake.shipped import ASSETS, DEMOS

METRICS = ("efficacy", "generalization", "specificity")


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    parser.add_argument("--models", default=",".join(DEMOS), help="demo models; default: %(default)s")
    parser.add_argument("--methods", default="memit,metake", help="default: %(default)s")
    parser.add_argument(
        "--edits", type=at_least(1), default=20, help="test facts, in one batch; default: %(default)s"
    )
    parser.add_argument("--out", type=output_folder, default="results/quantized", help="default: %(default)s")
    return parser


if __name__ == "__main__":
    show_help(options)

import torch
from torch import nn

from metake.data.records import Record, read_records
from metake.deltas import Delta
from metake.editor import Editor
from metake.evaluation.metrics import Evaluator
from metake.methods.base import Method
from metake.models.dequantized import dequantize, is_quantized
from metake.models.editable import EditableModel
from metake.models.load import load
from metake.models.save import save_model
from metake.phases import phase
from metake.presets import settings_for
from metake.provenance import provenance
from metake.report.figures import BLACK, BLUE, GREEN, ORANGE, panels, save, styled
from metake.report.tables import markdown
from metake.statistics_cache import statistics_for

Row = dict[str, Any]
WAYS = {  # how an edit meets the quantization -> color and label
    "merged": (BLUE, "edited, then quantized"),
    "adapter": (GREEN, "adapter of the fp32 edit"),
    "adapter, dequantized": (ORANGE, "adapter of a dequantized edit"),
}


def backends() -> dict[str, Callable[[], Any]]:
    """Name of a backend -> its configuration for `transformers`."""
    from torchao import quantization as ao
    from transformers import BitsAndBytesConfig, TorchAoConfig

    int4 = {"weight_dtype": torch.int4, "granularity": ao.PerGroup(32)}
    return {
        "bitsandbytes int8": lambda: BitsAndBytesConfig(load_in_8bit=True),
        "bitsandbytes nf4": lambda: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
        "torchao int8": lambda: TorchAoConfig(ao.Int8WeightOnlyConfig()),
        "torchao int4": lambda: TorchAoConfig(ao.IntxWeightOnlyConfig(**int4)),
    }


def quantized(folder: Path, config: Callable[[], Any]) -> nn.Module | None:
    """A saved model, quantized; None if the backend leaves all its modules as they are (torchao: Conv1D)."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder, quantization_config=config(), dtype=torch.float32
    ).eval()
    return model if any(is_quantized(module) for module in model.modules()) else None


def with_adapter(model: nn.Module, delta: Delta, like: EditableModel) -> nn.Module:
    """The modules of a model with the PEFT adapter of a delta, which peft adds in place."""
    from peft import PeftModel

    with tempfile.TemporaryDirectory() as temporary:
        delta.save_pretrained(Path(temporary) / "adapter", like)
        PeftModel.from_pretrained(model, Path(temporary) / "adapter").eval()
    return model


def measured(module: nn.Module, like: EditableModel, records: Sequence[Record]) -> Row:
    """Means of the metrics. `EditableModel` takes no quantized modules, so a copy of another one holds them."""
    model = copy.copy(like)
    for cached in ("unfused_gelus", "returns_tuples"):
        model.__dict__.pop(cached, None)
    model.model, model.head = module, module.get_submodule(like.modules.head)
    model.blocks = list(module.get_submodule(like.modules.blocks).children())
    found = Evaluator(model, records, generate=False).measure()
    return {metric: found.mean(metric) for metric in METRICS}


def edit(model: EditableModel, method: Method, records: Sequence[Record]) -> Delta:
    """Delta of the records' edits in one batch; the model is unchanged."""
    statistics = statistics_for(model, layers=method.layers, progress=False)
    with Editor(model, method=method, statistics=statistics, answers=False, progress=False) as editor:
        editor.edit([record.request for record in records])
        return editor.delta


def quantized_rows(
    model: EditableModel,
    method: Method,
    records: Sequence[Record],
    delta: Delta,
    folders: dict[str, Path],
    name: str,
    config: Callable[[], Any],
) -> list[Row]:
    """Measurements of one backend; none if it leaves all modules as they are.

    Every row has a newly quantized model: bitsandbytes repacks 4-bit weights in the first pass on a CPU.
    """

    def row(kind: str, module: nn.Module) -> Row:
        return {"weights": name, "edit": kind, **measured(module, model, records)}

    dense = quantized(folders["base"], config)
    if dense is None:
        return []
    dequantize(dense, model.name, torch.float32)
    planned = EditableModel(dense, model.tokenizer, name=model.name)
    again = edit(planned, method, records)

    def fresh(folder: str = "base") -> nn.Module:
        module = quantized(folders[folder], config)
        assert module is not None
        return module

    return [
        row("none", fresh()),
        row("merged", fresh("edited")),
        row("adapter", with_adapter(fresh(), delta, model)),
        row("adapter, dequantized", with_adapter(fresh(), again, planned)),
    ]


def rows_of(model: EditableModel, method: Method, records: Sequence[Record]) -> list[Row]:
    """Measurements of one model and method."""
    delta = edit(model, method, records)
    rows = [{"weights": "fp32", "edit": "none", **measured(model.model, model, records)}]
    with tempfile.TemporaryDirectory() as temporary:
        base, edited = Path(temporary) / "base", Path(temporary) / "edited"
        save_model(model, base)
        with delta.applied(model):
            rows.append({"weights": "fp32", "edit": "merged", **measured(model.model, model, records)})
            save_model(model, edited)
        for name, config in backends().items():
            rows += quantized_rows(
                model, method, records, delta, {"base": base, "edited": edited}, name, config
            )
    return rows


def table(content: dict[str, Any]) -> str:
    """Markdown table: a line per model, method and weights; efficacy, generalization and specificity per way, in percent."""
    lines = []
    for part in content.values():
        found = {(row["weights"], row["edit"]): row for row in part["rows"]}
        for weights in dict.fromkeys(row["weights"] for row in part["rows"]):
            rows = [found.get((weights, kind)) for kind in ("none", *WAYS)]
            cells = ["" if row is None else " / ".join(f"{100 * row[m]:g}" for m in METRICS) for row in rows]
            lines.append([part["model"], part["method"], weights, *cells])
    return markdown(["model", "method", "weights", "unedited", *(label for _, label in WAYS.values())], lines)


def draw(content: dict[str, Any], path: Path) -> None:
    """Efficacy per model, method and backend: bars for the three ways, a line for the edited fp32 model."""
    columns = 2
    lines = -(-len(content) // columns)
    with styled():
        figure, axes = panels(lines, columns, figsize=(6.5, 1.5 * lines + 0.4), squeeze=False, sharey=True)
        for axis, part in zip(axes.flat, content.values(), strict=False):
            found = {(row["weights"], row["edit"]): row["efficacy"] for row in part["rows"]}
            names = list(dict.fromkeys(row["weights"] for row in part["rows"] if row["weights"] != "fp32"))
            for i, (kind, (color, label)) in enumerate(WAYS.items()):
                bars = {
                    x + 0.26 * (i - 1): found[name, kind]
                    for x, name in enumerate(names)
                    if (name, kind) in found
                }
                axis.bar(list(bars), list(bars.values()), 0.24, color=color, label=label)
            axis.axhline(
                found["fp32", "merged"], color=BLACK, linewidth=0.8, linestyle="--", label="edited, in fp32"
            )
            axis.set_ylim(0, 1.05)
            axis.set_xticks(range(len(names)), [name.replace(" ", "\n") for name in names], fontsize=6)
            axis.set_title(f"{part['model']}, {part['method']}: efficacy")
        figure.legend(
            *axes.flat[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7
        )
        save(figure, path)


@command("quantized_base")
def main() -> None:
    args = options().parse_args()
    require("quantized", "bitsandbytes", "torchao", "peft", what="quantized_base")
    records = read_records(ASSETS / "world" / "test.json", args.edits)
    content: dict[str, Any] = {}
    for name in args.models.split(","):
        model = load(name, device="cpu", chat=None)
        for label in args.methods.split(","):
            method = settings_for(model, label)
            with phase(f"{name}, {label}"):
                rows = rows_of(model, method, records)
            part = {**provenance(name, model, label), "edits": len(records), "layers": list(method.layers)}
            content[f"{name} {label}"] = {**part, "rows": rows}
            write_json(args.out / "quantized_base.json", content)
    write_text(args.out / "quantized_base.md", table(content))
    draw(content, args.out / "quantized_base.png")
    print(table(content))


if __name__ == "__main__":
    main()
