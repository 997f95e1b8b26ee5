"""Whether a verdict notices tests that were hollowed, deleted, skipped or marked as expected to fail.

    python -m tests.hollow                # ten claims, four kinds of damage each; about 15 minutes
    python -m tests.hollow T3b L4         # these claims

Each damage is done to a copy of `verification/`, in which `pytest verification/ --claim ID` then has to fail. The files
that hold no evidence of the claim are left out of the run: `--claim` would collect them and deselect all their tests.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from theory.claims import claim

ROOT = Path(__file__).resolve().parents[1]
CLAIMS = ("T1", "T1b", "T1f", "X2", "T2c", "L3", "L4", "T3b", "T3c", "A1", "X9", "P7")
Test = ast.FunctionDef


def _hollowed(test: Test) -> list[ast.stmt]:
    test.body = [ast.Pass()]
    return [test]


def _deleted(test: Test) -> list[ast.stmt]:
    return []


def _marked(how: str) -> Callable[[Test], list[ast.stmt]]:
    def mark(test: Test) -> list[ast.stmt]:
        test.decorator_list.insert(0, ast.parse(f"pytest.mark.{how}(reason='damage')", mode="eval").body)
        return [test]

    return mark


#: name -> what becomes of a test
DAMAGE: dict[str, Callable[[Test], list[ast.stmt]]] = {
    "hollowed": _hollowed,
    "deleted": _deleted,
    "skipped": _marked("skip"),
    "xfail": _marked("xfail"),
}


def expected_tests(claim_id: str) -> list[tuple[str, str]]:
    """File and function of every test that a claim's evidence is expected of."""
    evidence = json.loads((ROOT / "verification/expected.json").read_text(encoding="utf-8"))[claim_id]
    names = sorted({test for tests in evidence.values() for test in tests})
    return [(file, function) for file, _, function in (name.partition("::") for name in names)]


def damaged(claim_id: str, kinds: Sequence[str]) -> dict[str, tuple[str, str]]:
    """File and function of the claim's test that each kind of damage is done to, another one each."""
    return dict(zip(kinds, expected_tests(claim_id), strict=False))


def damage_test(path: Path, function: str, change: Callable[[Test], list[ast.stmt]]) -> None:
    """Rewrite a test function in its file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [
        new
        for node in tree.body
        for new in (change(node) if isinstance(node, ast.FunctionDef) and node.name == function else [node])
    ]
    source = ast.unparse(ast.fix_missing_locations(tree)).replace(
        "from __future__ import annotations", "from __future__ import annotations\nimport pytest", 1
    )
    path.write_text(source, encoding="utf-8")


def run_claim(claim_id: str, kinds: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """`pytest --claim ID` on the claim's files, in a copy with these kinds of damage."""
    files = sorted({f"verification/{file}" for file, _ in expected_tests(claim_id)})
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for part in ("verification", "theory", "proofs", "docs"):
            shutil.copytree(
                ROOT / part,
                root / part,
                ignore=shutil.ignore_patterns("__pycache__", "*.png", "*.vo*", "*.glob"),
            )
        for part in ("conftest.py", "pyproject.toml"):
            shutil.copy(ROOT / part, root / part)
        (root / "metake").symlink_to(ROOT / "metake")
        for kind, (file, function) in damaged(claim_id, kinds).items():
            damage_test(root / "verification" / file, function, DAMAGE[kind])
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                *files,
                "--claim",
                claim_id,
                "-n",
                "0",
                "-p",
                "no:cacheprovider",
            ],
            cwd=root,
            env=os.environ | {"PYTHONPATH": name},
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )


def verdict_line(claim_id: str, output: str) -> str:
    """The line of a run's output that gives the verdict."""
    head = f"{claim_id}. {claim(claim_id).title}: "
    lines = [line for line in output.splitlines() if line.startswith(head)]
    return lines[-1].removeprefix(head) if lines else "no verdict"


def main(chosen: list[str]) -> int:
    unnoticed = 0
    for claim_id in chosen or CLAIMS:
        for kind in ("", *DAMAGE):
            run = run_claim(claim_id, [kind] if kind else [])
            unnoticed += (run.returncode == 0) == bool(kind)
            print(
                f"{claim_id:4} {kind or 'as it is':12} exit {run.returncode}  {verdict_line(claim_id, run.stdout)}",
                flush=True,
            )
    print(f"{unnoticed} unnoticed")
    return int(unnoticed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
