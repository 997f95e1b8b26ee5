"""GPT2-XL, GPT-J and Llama-3-8B at full width with random weights: time and memory of an edit.

    python experiments/full_width.py --arch gpt2-xl --methods rome,memit,alphaedit,metake      # on a GPU
    python experiments/full_width.py --arch gpt-j --blocks 3           # a few blocks, on a CPU

Statistics, planning, MetaKE and the solve run as on the trained model, with its preset: the same shapes, the
same code. Quality means nothing here; seconds and bytes do.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


from metake.console import command
from metake.files import write_json
from metake.options import Parser, at_least, output_folder, parse_layers, show_help
from metake.shipped import ASSETS

FULL = {"gpt2-xl": 48, "gpt-j": 28, "llama3-8b": 32}


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--arch", choices=sorted(FULL), required=True, help="whose shape the random model has"
    )
    parser.add_argument("--blocks", type=at_least(1), help="default: all")
    parser.add_argument("--methods", default="memit,metake", help="rows of the method table, comma-separated")
    parser.add_argument(
        "--layers", help="edited layers, as 4-8 or 4,6; default: each method's published ones"
    )
    parser.add_argument("--tokens", type=at_least(1), help="for the statistics; default: just over d_k")
    parser.add_argument("--edits", type=at_least(1), default=4, help="in one batch")
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "bfloat16", "float16"],
        help="of the weights; default: %(default)s",
    )
    parser.add_argument(
        "--solve",
        default="float64",
        choices=["float64", "float32"],
        help="precision of the solve; default: %(default)s",
    )
    parser.add_argument(
        "--device",
        help="cpu or cuda; default: a GPU if there is one",
    )
    parser.add_argument(
        "--out",
        type=output_folder,
        default="results/full_width",
        help="folder of the results; default: %(default)s",
    )
    return parser


if __name__ == "__main__":
    show_help(options)

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPTJConfig, LlamaConfig

from metake.editor import Editor
from metake.geometry.covariance import collect
from metake.methods.locate_then_edit import LocateThenEdit
from metake.methods.table import find_method
from metake.models.editable import EditableModel
from metake.presets import methods_for
from metake.provenance import provenance
from metake.report.tables import render
from metake.requests import EditRequest
from metake.texts import default_text

CONFIGS = {
    "gpt2-xl": lambda n: GPT2Config(n_embd=1600, n_layer=n, n_head=25),
    "gpt-j": lambda n: GPTJConfig(n_layer=n, tie_word_embeddings=False),
    "llama3-8b": lambda n: LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=n,
        num_attention_heads=32,
        num_key_value_heads=8,
        rope_theta=500000.0,
        tie_word_embeddings=False,
    ),
}
NAMES = {"gpt2-xl": "gpt2-xl", "gpt-j": "gpt-j-6b", "llama3-8b": "meta-llama-3-8b"}  # of their presets
CONTEXTS = tuple(f"{word} this is how it was told" for word in ("The", "Therefore", "Because", "I", "You"))


def peak(device: str) -> float:
    """Peak memory so far, GiB."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


@command("full_width")
def main() -> None:
    args = options().parse_args()
    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    methods = args.methods.split(",")
    for name in methods:
        find_method(name)
    torch.manual_seed(0)
    blocks = args.blocks or FULL[args.arch]
    dtype = getattr(torch, args.dtype)
    with torch.device(args.device):
        network = AutoModelForCausalLM.from_config(CONFIGS[args.arch](blocks), dtype=dtype).eval()
    model = EditableModel(network)
    # any text will do for random weights, so the demo vocabulary serves (its ids exist in every model)
    tokenizer = AutoTokenizer.from_pretrained(ASSETS / "demo")
    choice: dict[str, Any] = {"dtype": args.solve, "contexts": CONTEXTS, "jitter": 1e-4}
    if args.layers:
        choice["layers"] = tuple(parse_layers(args.layers))
    chosen = methods_for(model, methods, preset=NAMES[args.arch], changes=choice)
    layers = tuple(sorted({n for method in chosen if method.needs_statistics for n in method.layers}))
    report: dict[str, Any] = {
        **provenance(args.arch, model, methods),
        "arch": args.arch,
        "blocks": blocks,
        "layers": layers,
        "d_k": model.d_k,
        "d_v": model.d_v,
        "dtype": args.dtype,
        "solve": args.solve,
        "edits": args.edits,
        "device": torch.cuda.get_device_name() if args.device.startswith("cuda") else args.device,
        "model_gib": sum(p.numel() * p.element_size() for p in network.parameters()) / 2**30,
    }
    statistics = None
    if layers:
        started = time.perf_counter()
        tokens = args.tokens or model.d_k + 512
        statistics = collect(model, tokenizer, default_text("demo"), layers, tokens=tokens)
        report["statistics"] = {
            "tokens": tokens,
            "seconds": time.perf_counter() - started,
            "peak_gib": peak(args.device),
        }
    requests = [EditRequest("Where was {} born?", f"Person {i}", "Sobris") for i in range(args.edits)]
    rows = []
    for method in chosen:
        with Editor(network, tokenizer, method, statistics=statistics, answers=False) as editor:
            started = time.perf_counter()
            if isinstance(method, LocateThenEdit):
                for layer in method.layers:
                    method.geometry_at(editor.model, editor.state, layer)
            if args.device.startswith("cuda"):
                torch.cuda.synchronize()
            factored = time.perf_counter() - started
            result = editor.edit(requests)
        report[method.name] = {
            "layers": method.layers,
            "factorize_seconds": factored,
            "edit_seconds": result.seconds,
            "peak_gib": peak(args.device),
            "realized_share": float(result.realized_share.mean()),
            "eta": [float(eta.median()) for eta in result.eta.values()],
        }
        rows.append(
            [
                method.name,
                str(list(method.layers)),
                f"{factored:.1f}",
                f"{result.seconds / args.edits:.3f}",
                f"{report[method.name]['peak_gib']:.1f}",
            ]
        )
        write_json(args.out / f"{args.arch}-{args.dtype}.json", report)
    head = ["method", "layers", "factorize, s", "s/edit", "peak so far, GiB"]
    title = f"{args.arch}, {blocks} blocks, {args.dtype}, {report['device']}, {args.edits} edits"
    print(render(title, head, rows, 110))


if __name__ == "__main__":
    main()
