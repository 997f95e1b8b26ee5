"""The rung `machine-checked`: what Coq's kernel says of the statements of `proofs/statements.v`.

`python -m verification.kernel` compiles the proofs from their sources in an empty folder and asks the kernel per claim
whether the proof under its name proves its statement, and on which axioms; coqchk then checks the object files anew.
The answers are written to `proofs.json`, which the table of verdicts quotes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from metake.files import write_text
from theory.claims import CLAIMS

SOURCES = Path(__file__).resolve().parent.parent / "proofs"
RECORD = Path(__file__).parent / "proofs.json"
#: sha256 of the statements that were compared with the register: change it only after comparing them again.
STATEMENTS = "78ff4a86917fdebfe49e088abfb4add2aa69f30e8e08fa375857a4ca8f43a388"
FLAGS = ("-q", "-w", "none", "-Q", ".", "MetaKE")
HEADER = "From mathcomp Require Import all_ssreflect all_algebra.\n"
QUESTION = "forall R : rcfType, @MetaKE.statements.{claim} R"
#: The kernel leaves out checks of its own under these.
UNSAFE = ("type-in-type", "unsafe (co)fixpoints", "positivity is assumed")


class KernelError(Exception):
    """Coq is missing, or coqchk refuses the object files."""


@dataclass(frozen=True)
class Answers:
    """What one run of Coq said.

    Attributes:
        coq: version of Coq.
        sources: sha256 of the sources.
        proved: claim -> axioms that its proof rests on; none is "closed under the global context".
        refused: claim -> why it is not machine-checked.
    """

    coq: str
    sources: str
    proved: dict[str, tuple[str, ...]]
    refused: dict[str, str]


def modules(folder: Path) -> list[str]:
    """Names of the modules, in the order in which they compile."""
    return re.findall(r"^(\w+)\.v$", (folder / "_CoqProject").read_text(encoding="utf-8"), re.MULTILINE)


def digest(folder: Path = SOURCES) -> str:
    """sha256 of all sources."""
    texts = [name.encode() + b"\0" + (folder / f"{name}.v").read_bytes() for name in modules(folder)]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def digest_statements(folder: Path = SOURCES) -> str:
    """sha256 of the statements alone."""
    return hashlib.sha256((folder / "statements.v").read_bytes()).hexdigest()


def _run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=900)


def _compile(folder: Path) -> dict[str, str]:
    """Modules that do not compile, with what Coq says; those that import them are among them."""
    failed = {}
    for name in modules(folder):
        done = _run(folder, "coqc", *FLAGS, f"{name}.v")
        if done.returncode:
            failed[name] = " ".join((done.stdout + done.stderr).split())[:200]
    return failed


def _questions(places: dict[str, str], header: str, question: str) -> str:
    """A file that asks for every claim, a line each."""
    text = (
        header
        + "From MetaKE Require statements.\n"
        + "".join(f"From MetaKE Require {module}.\n" for module in dict.fromkeys(places.values()))
    )
    for claim, module in places.items():
        text += (
            f"Definition ask_{claim} : {question.format(claim=claim)} := @MetaKE.{module}.{claim}_proof. "
            f'Goal True. idtac "claim {claim}". Abort. Print Assumptions ask_{claim}.\n'
        )
    return text


def _ask(
    folder: Path, places: dict[str, str], header: str, question: str
) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Answers of the kernel; a proof that does not fit its statement is left out and the others asked anew."""
    places, refused = dict(places), {}
    while places:
        text = _questions(places, header, question)
        (folder / "ask.v").write_text(text, encoding="utf-8")
        done = _run(folder, "coqc", *FLAGS, "ask.v")
        if not done.returncode:
            return _read_axioms(done.stdout), refused
        line = int(re.findall(r"line (\d+)", done.stdout + done.stderr)[0])
        claim = re.findall(r"Definition ask_(\w+)", text.splitlines()[line - 1])[0]
        refused[claim] = f"{places.pop(claim)}.{claim}_proof does not prove the statement"
    return {}, refused


def _read_axioms(output: str) -> dict[str, tuple[str, ...]]:
    """Axioms per claim from the output of `Print Assumptions`."""
    found = {}
    for part in output.split("claim ")[1:]:
        claim, _, said = part.partition("\n")
        closed = said.strip() == "Closed under the global context"
        axioms = tuple(re.findall(r"^(\S+)\s*:", said, re.MULTILINE))
        found[claim.strip()] = () if closed else tuple(a for a in axioms if a != "Axioms") or ("unknown",)
    return found


def _recheck(folder: Path, names: list[str]) -> None:
    done = _run(
        folder,
        "coqchk",
        "-silent",
        "-o",
        "-Q",
        ".",
        "MetaKE",
        *(x for n in names for x in ("-norec", f"MetaKE.{n}")),
    )
    said = done.stdout + done.stderr
    unsafe = [kind for kind in UNSAFE if not re.search(re.escape(kind) + r":\s*<none>", said)]
    if done.returncode or unsafe:
        raise KernelError(f"coqchk refuses the object files: {' '.join(said.split())[:300]}")


def ask_kernel(
    folder: Path = SOURCES,
    claims: tuple[str, ...] = tuple(c.id for c in CLAIMS),
    pinned: str = STATEMENTS,
    header: str = HEADER,
    question: str = QUESTION,
    allowed: frozenset[str] = frozenset(),
) -> Answers:
    """What the kernel says of the proofs in a folder.

    Args:
        folder: holds `statements.v`, the proofs and `_CoqProject`.
        claims: a claim `T1` has the statement `T1` and a theorem `T1_proof`.
        pinned: sha256 that the statements have to have.
        header, question: what the questions import, and the type that is asked for.
        allowed: axioms that a proof may rest on.

    Raises:
        KernelError: there is no Coq, or coqchk refuses what Coq compiled.
    """
    if not shutil.which("coqc"):
        raise KernelError("no coqc here: `make -C proofs install` installs it")
    version = _run(folder, "coqc", "--print-version").stdout.split()[0]
    if digest_statements(folder) != pinned:
        reason = "statements.v differs from the statements that were compared with the register"
        return Answers(version, digest(folder), {}, dict.fromkeys(claims, reason))
    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary)
        for name in [*(f"{m}.v" for m in modules(folder)), "_CoqProject"]:
            shutil.copy(folder / name, fresh)
        sources = digest(fresh)  # of what is compiled, whatever is edited meanwhile
        failed = _compile(fresh)
        good = [name for name in modules(folder) if name not in failed]
        refused, places = {}, {}
        texts = {name: (fresh / f"{name}.v").read_text(encoding="utf-8") for name in modules(folder)}
        for claim in claims:
            where = [
                n for n, text in texts.items() if re.search(rf"\b{claim}_proof\b", text) and n != "statements"
            ]
            if not re.search(rf"\bDefinition {claim}\b", texts["statements"]):
                refused[claim] = "no statement"
            elif not where:
                refused[claim] = "no proof"
            elif where[0] in failed:
                refused[claim] = f"{where[0]}.v does not compile: {failed[where[0]]}"
            else:
                places[claim] = where[0]
        proved, unfit = _ask(fresh, places, header, question)
        _recheck(fresh, good)
    axioms = {c: f"rests on {', '.join(a)}" for c, a in proved.items() if not allowed.issuperset(a)}
    proved = {c: a for c, a in proved.items() if c not in axioms}
    refused |= unfit | axioms
    return Answers(version, sources, proved, {c: refused[c] for c in claims if c in refused})


def write_record(answers: Answers, path: Path = RECORD) -> None:
    """The answers as committed."""
    record = {"coq": answers.coq, "sources": answers.sources, "statements": STATEMENTS,
              "proved": {c: list(a) for c, a in answers.proved.items()}, "refused": answers.refused}  # fmt: skip
    write_text(path, json.dumps(record, indent=1) + "\n")


def read_record(path: Path = RECORD, folder: Path = SOURCES) -> Answers | None:
    """Answers of the recorded run; none where there is no record, or it is of other sources than those of the folder."""
    if not path.is_file():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    if record["sources"] != digest(folder) or record["statements"] != digest_statements(folder):
        return None
    return Answers(
        record["coq"],
        record["sources"],
        {c: tuple(a) for c, a in record["proved"].items()},
        record["refused"],
    )


def main(argv: list[str] | None = None) -> int:
    """Exit code: 1 where a claim is refused that the record says is proved."""
    parser = argparse.ArgumentParser(prog="python -m verification.kernel", description=__doc__)
    parser.add_argument("--accept", action="store_true", help=f"write the answers to {RECORD.name}")
    arguments = parser.parse_args(argv)
    try:
        answers = ask_kernel()
    except KernelError as error:
        print(f"verification.kernel: {error}", file=sys.stderr)
        return 2
    for claim, reason in answers.refused.items():
        print(f"{claim}: not machine-checked: {reason}")
    print(f"{len(answers.proved)} of {len(CLAIMS)} claims are machine-checked by Coq {answers.coq}")
    if arguments.accept:
        write_record(answers)
        return 0
    recorded = read_record()
    if recorded is None or (recorded.proved, recorded.refused) != (answers.proved, answers.refused):
        print(
            f"the answers differ from {RECORD.name}: run `make proofs-accept` and look at the difference",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
