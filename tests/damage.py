"""Files of every kind, damaged: each is refused in one line, or read with equal content.

python -m tests.damage 10000      # so many in all; prints the outcomes per kind
"""

from __future__ import annotations

import csv
import json
import random
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from metake.data.records import read_records
from metake.deltas import Delta
from metake.errors import MetakeError
from metake.evaluation.checkpoint import Checkpoints
from metake.evaluation.metrics import Measurement
from metake.files import digest, read_record, write_json, write_record
from metake.geometry.covariance import PARTIAL, _Checkpoint
from metake.geometry.statistics import Provenance, Statistics
from metake.models.editable import EditableModel
from metake.models.load import load
from metake.models.modules import ModuleMap
from metake.models.save import save_model
from metake.presets import PRESETS, load_preset
from metake.published import read_published
from metake.shipped import ASSETS
from metake.tensor_files import write_tensors
from metake.tuning.journal import Journal


@dataclass(frozen=True)
class Kind:
    """Files of one kind.

    Attributes:
        files: to be damaged, one at a time.
        read: what the library makes of them, as something that can be compared.
        by_hand: people edit them, so they carry no digest and may be read with other content.
        left_out: what `read` may return beside the content: the file is not used, and the work done again.
    """

    files: list[Path]
    read: Callable[[], Any]
    by_hand: bool = False
    left_out: Any = ()


def kinds(folder: Path, network: Any, tokenizer: Any) -> dict[str, Kind]:
    """Every kind, written into a folder from a small model."""
    torch.manual_seed(0)
    model = EditableModel(network, tokenizer, name="tiny")
    provenance = Provenance("m" * 16, "t" * 16, 4000, (1, 2), 128, "float32", {"bfloat16": "b" * 16}, "demo")
    moments = {layer: torch.randn(12, 12) for layer in (1, 2)}
    Statistics(moments, provenance).save(folder / "s.safetensors")
    sums = {f"C.{layer}": moment.double() for layer, moment in moments.items()}
    write_tensors(folder / "s.partial", PARTIAL, sums, {"provenance": asdict(provenance), "done": 48})
    note = {"method": "memit", "settings": {"lr": 0.1}, "edits": [{"subject": "José", "target": "baker"}]}
    factors = {n: (torch.randn(6, 2), torch.randn(9, 2)) for n in (1, 2)}
    thin, whole = Delta(factors, "m" * 16, note), Delta({}, "m" * 16, note, {1: torch.randn(6, 9).bfloat16()})
    thin.save(folder / "thin")
    whole.save(folder / "whole")
    key = {"method": "memit", "seed": 0, "records": "r" * 16}
    batch = checkpointed(folder / "run", key, thin)
    save_model(model, folder / "model")
    trials = {"memit": {"data": "dev.json", "trials": [{"number": 0, "score": 0.5, "choice": {"lr": 0.1}}]}}
    write_record(folder / "search.json", trials)
    write_record(
        folder / "drift.json", {"model": "demo", "edits": [{"start": {"nll": 0.25, "eta": [0.1, 0.2]}}]}
    )
    journal = Journal(folder / "x.journal")
    journal.append_logs([{"op_code": i, "params": {"lr": i / 7}} for i in range(6)])
    return {
        "statistics": Kind(
            [folder / "s.safetensors"], lambda: statistics(Statistics.load(folder / "s.safetensors"))
        ),
        "unfinished statistics": Kind(
            [folder / "s.partial"], lambda: resumed(folder / "s.partial", provenance), left_out=0
        ),
        "delta": Kind([folder / "thin" / "delta.safetensors"], lambda: delta(Delta.load(folder / "thin"))),
        "delta, whole": Kind(
            [folder / "whole" / "delta.safetensors"], lambda: delta(Delta.load(folder / "whole"))
        ),
        "batch of a run": Kind(sorted(p for p in (folder / "run").rglob("*") if p.is_file()), batch),
        "saved model": Kind(sorted((folder / "model").iterdir()), lambda: fingerprint(folder / "model")),
        "search": Kind([folder / "search.json"], lambda: read_record(folder / "search.json", "remedy")),
        "measurement of drift": Kind(
            [folder / "drift.json"], lambda: read_record(folder / "drift.json", "remedy")
        ),
        "journal of a search": Kind(
            [folder / "x.journal"], lambda: list(Journal(folder / "x.journal").read_logs(0)), left_out=...
        ),
        **by_hand(folder, model),
    }


def by_hand(folder: Path, model: EditableModel) -> dict[str, Kind]:
    """Files that people write: read without a traceback, whatever was done to them."""
    zsre = json.loads((ASSETS / "world" / "dev.json").read_text())[:3]
    easy = [
        {
            "prompt": "Ada lives in",
            "subject": "Ada",
            "target_new": "Oslo",
            "rephrase_prompt": "Ada's home is",
            "locality_prompt": "Bo lives in",
            "locality_ground_truth": "Rome",
            "ground_truth": "Bonn",
        }
    ]
    multi = [
        {
            "requested_rewrite": {
                "prompt": "{} lives in",
                "subject": "Ada",
                "target_new": {"str": "Oslo", "id": "Q1"},
                "target_true": {"str": "Bonn"},
                "relation_id": "P1",
            },
            "paraphrase_prompts": ["Ada's home is"],
            "neighborhood_prompts": ["Bo lives in"],
            "generation_prompts": ["Ada is"],
        }
    ]
    own = [
        {
            "prompt": "Ada lives in",
            "subject": "Ada",
            "target": "Oslo",
            "rephrase": "Ada's home is",
            "ground_truth": ["Rome"],
            "locality": {"near": [{"prompt": "Bo lives in", "ground_truth": [["Rome"]]}]},
        }
    ]
    lines, table, tabs = folder / "records.jsonl", folder / "records.csv", folder / "records.tsv"
    lines.write_text("".join(json.dumps(entry) + "\n" for entry in (*own, *zsre, *easy)), encoding="utf-8")
    for path, delimiter in ((table, ","), (tabs, "\t")):
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, delimiter=delimiter)
            rows.writerows([list(easy[0]), *([value for value in entry.values()] for entry in easy * 3)])
    made = {
        path.name: Kind([path], lambda path=path: read_records(path), by_hand=True)
        for path in (lines, table, tabs)
    }
    for name, content, read in (
        ("records, own", own, read_records),
        ("records, zsRE", zsre, read_records),
        ("records, EasyEdit", easy, read_records),
        ("records, CounterFact", multi, read_records),
        ("preset", json.loads((PRESETS / "demo.json").read_text()), load_preset),
        ("module map", {"blocks": "model.layers", "down": "mlp.down_proj"}, ModuleMap.read),
        (
            "published settings",
            {"layers": [1, 2], "v_lr": 0.5, "clamp_norm_factor": 4, "mom2_update_weight": 15000},
            lambda path: read_published(path, model),
        ),
    ):
        path = folder / f"{name}.json"
        write_json(path, content)
        made[name] = Kind([path], lambda path=path, read=read: read(path), by_hand=True)
    return made


class Recorder:
    """Stands for an editor: what a run gives back to it."""

    def restore(self, requests: Any, change: Delta, memory: dict, seconds: float) -> None:
        self.given = requests, delta(change), {n: keys.tolist() for n, keys in memory.items()}, seconds


def checkpointed(folder: Path, key: dict[str, Any], change: Delta) -> Callable[[], Any]:
    """A run of one batch on disk, and what is read of it."""

    class Result:
        delta, memory = change, {1: torch.randn(9, 3)}

        @staticmethod
        def summary() -> dict[str, Any]:
            return {"eta": [[0.25, 0.5]], "seconds": 1.5}

    import numpy as np

    run = Checkpoints(folder, key)
    run.save(0, Result())  # type: ignore[arg-type]
    run.save_measurement(0, Measurement({"efficacy": np.array([1.0, 0.5])}, 3.25, 3.0, [], [("a", "b")]))

    def read() -> Any:
        again, editor = Checkpoints(folder, key), Recorder()
        summary, look = again.restore(0, editor, ()), again.load_measurement(0)  # type: ignore[arg-type]
        return summary, editor.given, look and look.plain()

    return read


def statistics(found: Statistics) -> Any:
    return asdict(found.provenance), digest({}, {str(n): m for n, m in found.moments.items()})


def resumed(path: Path, provenance: Provenance) -> Any:
    sums = {layer: torch.zeros(12, 12, dtype=torch.float64) for layer in (1, 2)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = _Checkpoint(path, provenance, 0.0).resume(sums)
    return done and (done, digest({}, {str(n): m for n, m in sums.items()}))


def delta(found: Delta) -> Any:
    return found.digest, found.note


def fingerprint(folder: Path) -> Any:
    """Of every weight, and of what the tokenizer and the configuration do."""
    found = load(str(folder), device="cpu")
    return (
        digest({}, found.model.state_dict()),
        found.tokenizer("What is the craft of José?").input_ids,
        found.model.config.to_diff_dict(),
        found.model.generation_config.to_diff_dict(),
    )


def damaged(content: bytes, draw: random.Random) -> bytes:
    """The content with one thing done to it that disks, transfers and editors do."""
    data, size = bytearray(content), len(content)
    at, length = draw.randrange(size), draw.randint(1, 64)
    other = draw.randrange(size)
    match draw.randrange(9):
        case 0 | 1 | 2:  # bits, anywhere or in the header
            for _ in range(draw.choice((1, 1, 1, 2, 5))):
                data[draw.randrange(min(size, draw.choice((size, 600))))] ^= 1 << draw.randrange(8)
        case 3:
            del data[at:]
        case 4:
            del data[at : at + length]
        case 5:
            data[at:at] = draw.randbytes(length)
        case 6:
            data[at : at + length] = bytes(len(data[at : at + length]))
        case 7:  # two pieces change places
            a, b = sorted((at, other))
            n = min(length, b - a, size - b)
            data[a : a + n], data[b : b + n] = data[b : b + n], data[a : a + n]
        case _:  # a digit becomes another
            digits = [i for i, c in enumerate(data) if 48 <= c < 58]
            if digits:
                data[draw.choice(digits)] = 48 + draw.randrange(10)
    return bytes(data)


def outcome(kind: Kind, path: Path, content: bytes, wanted: Any) -> str:
    """What comes of a damaged file: refused, equal, done again or, of files that people write, other.

    Raises:
        AssertionError: other content from a file of ours, or a complaint that is no line about a file.
        Exception: whatever the library lets through.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = kind.read()
    except MetakeError as error:
        line = str(error)
        assert "\n" not in line, line
        assert str(path.parent) in line, line
        return "refused"
    if found == wanted:
        return "equal"
    if kind.left_out is ...:  # a line that was cut off is dropped, and nothing before it
        assert found == wanted[: len(found)], (path, content)
        return "done again"
    if kind.left_out != () and found == kind.left_out:
        return "done again"
    assert kind.by_hand, f"{path}: accepted with other content"
    return "other"


def run(found: dict[str, Kind], count: int, seed: int = 0) -> dict[str, Counter[str]]:
    """The outcomes of `count` damaged files, the same number of each kind."""
    draw, outcomes = random.Random(seed), {name: Counter() for name in found}
    wanted = {name: kind.read() for name, kind in found.items()}
    for turn in range(count):
        name = list(found)[turn % len(found)]
        path = draw.choice(found[name].files)
        whole = path.read_bytes()
        content = damaged(whole, draw)
        path.write_bytes(content)
        try:
            outcomes[name][outcome(found[name], path, content, wanted[name])] += 1
        finally:
            path.write_bytes(whole)
    assert {name: kind.read() for name, kind in found.items()} == wanted
    return outcomes


if __name__ == "__main__":
    from tests.cases import tiny

    with tempfile.TemporaryDirectory() as place:
        counts = run(
            kinds(Path(place), tiny("llama"), load("demo", device="cpu").tokenizer), int(sys.argv[1])
        )
    for kind_name, counted in counts.items():
        print(f"{kind_name:24}", dict(counted))
    print("in all", dict(sum(counts.values(), Counter())))
