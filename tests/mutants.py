"""Score a room's tests by a seeded sample of its mutants (docs/mutation.md); needs the extra `mutation`.

python -m tests.mutants planners --count 100 --seed 1 --out /tmp/mutants
python -m tests.mutants planners --again --out /tmp/mutants    # the survivors, with the present tests
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROOMS = {  # room -> (files in metake/, tests that mirror them)
    "planners": (["planners/*.py"], ["tests/planners"]),
    "prompts": (["prompts.py"], ["tests/test_prompts.py"]),
    "models": (["models/*.py"], ["tests/models", "tests/test_folders.py"]),
    "statistics": (
        ["geometry/covariance.py", "geometry/statistics.py"],
        ["tests/geometry/test_covariance.py"],
    ),
    "deltas": (["deltas.py"], ["tests/test_deltas.py", "tests/test_files.py", "tests/test_undo.py"]),
    "data": (["data/*.py", "requests.py"], ["tests/data", "tests/test_requests.py"]),
    "methods": (
        [
            "methods/*.py",
            "components.py",
            "key_estimators.py",
            "presets.py",
            "statistics_cache.py",
            "texts.py",
            "published.py",
        ],
        [
            "tests/test_methods.py",
            "tests/test_components.py",
            "tests/test_settings.py",
            "tests/test_presets.py",
            "tests/test_published.py",
        ],
    ),
    "editor": (["editor.py", "result.py"], ["tests/test_editor.py", "tests/test_result.py"]),
    "evaluation": (["evaluation/*.py"], ["tests/evaluation"]),
}
SETTINGS = """[tool.mutmut]
source_paths = ["metake"]
only_mutate = {files}
also_copy = ["theory", "verification", "proofs", "conftest.py", "docs", "experiments", "README.md", "CONTRIBUTING.md", "LICENSE"]
pytest_add_cli_args = ["-x", "-n", "0", "-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = {tests}

[tool.importlinter]"""
REJECTED, UNTOUCHED = (
    (1, 3, 24, -24, 36),
    33,
)  # mutmut's exit codes: a test failed or did not end; no test ran


def copy_tree(room: str, folder: Path) -> None:
    """The working tree, files not yet committed included, with mutmut's settings for the room."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    files, tests = ROOMS[room]
    project = folder / "pyproject.toml"
    before, rest = project.read_text(encoding="utf-8").split("[tool.mutmut]")
    after = rest.split("[tool.importlinter]")[1]
    settings = SETTINGS.format(
        files=json.dumps([f"metake/{name}" for name in files]), tests=json.dumps(tests)
    )
    project.write_text(before + settings + after, encoding="utf-8")


def run_mutmut(folder: Path, names: list[str]) -> None:
    """Run the tests on each named mutant; a name that no mutant has only makes all mutants."""
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *names]
    with (folder / "run.log").open("a") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder / "mutants")}
        subprocess.run(command, cwd=folder, stdout=log, stderr=log, env=environment, check=False)


def exit_codes(folder: Path) -> dict[str, int | None]:
    """Mutant -> exit code of its tests; None where they have not run."""
    codes: dict[str, int | None] = {}
    for path in sorted((folder / "mutants").rglob("*.meta")):
        codes |= json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"]
    return codes


def wilson(part: int, whole: int) -> tuple[float, float]:
    """The 95% interval of a share."""
    z = 1.96
    middle = part + z * z / 2
    width = z * (part * (whole - part) / whole + z * z / 4) ** 0.5
    return (middle - width) / (whole + z * z), (middle + width) / (whole + z * z)


def main() -> None:
    """Print the score and the survivors, which are also left in the output folder."""
    parser = argparse.ArgumentParser(description="Score a room's tests by a seeded sample of its mutants.")
    parser.add_argument("room", choices=ROOMS)
    parser.add_argument("--count", type=int, default=100, help="mutants in the sample")
    parser.add_argument("--seed", type=int, default=1, help="seed of the sample")
    parser.add_argument(
        "--again", action="store_true", help="the last run's survivors, with the present tests"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for a copy of the working tree")
    given = parser.parse_args()
    folder = given.out.resolve() / given.room
    if folder.exists() != given.again:
        parser.error(
            f"{folder} {'exists: choose another --out, or --again' if folder.exists() else 'is missing'}"
        )
    if given.again:
        shutil.rmtree(folder / "mutants")
    copy_tree(given.room, folder)
    if not given.again:
        run_mutmut(folder, ["none"])
        every = sorted(exit_codes(folder))
        sample = sorted(random.Random(given.seed).sample(every, min(given.count, len(every))))
        for name in ("sample.txt", "survivors.txt"):
            (folder / name).write_text("\n".join(sample))
    sample, left = ((folder / name).read_text().split() for name in ("sample.txt", "survivors.txt"))
    run_mutmut(folder, left)
    codes = exit_codes(folder)
    left = [name for name in left if codes.get(name) not in REJECTED]
    (folder / "survivors.txt").write_text("\n".join(left))
    rejected = len(sample) - len(left)
    low, high = wilson(rejected, len(sample))
    untouched = sum(codes.get(name) == UNTOUCHED for name in left)
    print(
        f"{given.room}: {rejected} of {len(sample)} of {len(codes)} mutants rejected, {rejected / len(sample):.1%} "
        f"({low:.0%} to {high:.0%}), {untouched} touched by no test",
        *left,
        sep="\n",
    )


if __name__ == "__main__":
    main()
