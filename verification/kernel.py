"""The rung `machine-checked`: what Coq's kernel says of the statements of `proofs/statements.v`.

`python -m verification.kernel` compiles the proofs from their sources in an empty folder. Per claim it asks the kernel whether
the proof under its name proves its statement, whether the theorem on its premises proves that they hold at once for some
instance, and on which axioms both rest; and likewise for every counterexample of `counterexamples.v`. coqchk then checks the
object files anew. The answers are written to `proofs.json`, which the table of verdicts quotes.
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
from dataclasses import dataclass, field, replace
from pathlib import Path

from metake.files import write_text
from theory.claims import CLAIMS

SOURCES = Path(__file__).resolve().parent.parent / "proofs"
RECORD = Path(__file__).parent / "proofs.json"
#: Files that a reader has to trust, as far as a folder has them: what is claimed, what instances are, what is refuted.
TRUSTED = ("statements", "premises", "counterexamples")
#: sha256 of those files as compared with the register: change it only after comparing them again.
STATEMENTS = "928a0c900283f913d858a0689eb0cfde74f4f750d3731444e91cc090b0e13c09"
FLAGS = ("-q", "-w", "none", "-Q", ".", "MetaKE")
HEADER = "From mathcomp Require Import all_ssreflect all_algebra.\n"
QUESTION = "forall R : rcfType, @MetaKE.statements.{claim} R"
PREMISES = "forall R : rcfType, premises_met (@MetaKE.statements.{claim} R)"
COUNTEREXAMPLE = "forall R : rcfType, @MetaKE.counterexamples.{name} R"
#: The kernel leaves out checks of its own under these.
UNSAFE = ("type-in-type", "unsafe (co)fixpoints", "positivity is assumed")


class KernelError(Exception):
    """Coq is missing, or coqchk refuses the object files."""


@dataclass(frozen=True)
class Question:
    """One question to the kernel.

    Attributes:
        name: what the question is about, a claim or a counterexample.
        theorem: the theorem that has to answer it.
        type: the statement in Coq.
        gap: what is missing where there is no such theorem.
    """

    name: str
    theorem: str
    type: str
    gap: str = "no proof"


@dataclass(frozen=True)
class Answers:
    """What one run of Coq said.

    Attributes:
        coq: version of Coq.
        sources: sha256 of the sources.
        proved: claim -> axioms that its proof and the instances of its premises rest on; none is "closed under the
            global context".
        refused: claim or counterexample -> why it is not machine-checked.
        counterexamples: counterexample, or part of a claim -> axioms.
    """

    coq: str
    sources: str
    proved: dict[str, tuple[str, ...]]
    refused: dict[str, str]
    counterexamples: dict[str, tuple[str, ...]] = field(default_factory=dict)


def modules(folder: Path) -> list[str]:
    """Names of the modules, in the order in which they compile."""
    return re.findall(r"^(\w+)\.v$", (folder / "_CoqProject").read_text(encoding="utf-8"), re.MULTILINE)


def digest(folder: Path = SOURCES) -> str:
    """sha256 of all sources."""
    texts = [name.encode() + b"\0" + (folder / f"{name}.v").read_bytes() for name in modules(folder)]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def digest_statements(folder: Path = SOURCES) -> str:
    """sha256 of the files that a reader has to trust."""
    texts = [name.encode() + b"\0" + (folder / f"{name}.v").read_bytes() for name in _trusted(folder)]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def _trusted(folder: Path) -> list[str]:
    return [name for name in TRUSTED if name in modules(folder)]


def counterexamples(folder: Path = SOURCES) -> list[str]:
    """Names of what `counterexamples.v` states: `T1_needs_definite` fails without `definite`, `T1_without_symmetric` holds."""
    if "counterexamples" not in modules(folder):
        return []
    text = (folder / "counterexamples.v").read_text(encoding="utf-8")
    return re.findall(r"^Definition (\w+_(?:needs|without)_\w+)", text, re.MULTILINE)


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


def parts(folder: Path = SOURCES) -> list[str]:
    """Names of the parts of claims that `statements.v` states, such as `X4_part`."""
    text = (folder / "statements.v").read_text(encoding="utf-8")
    return re.findall(r"^Definition (\w+_part)\b", text, re.MULTILINE)


def _file(folder: Path, places: dict[Question, str], header: str) -> str:
    """A file that asks every question, a line each; their types are fixed before a proof is read."""
    trusted = _trusted(folder)
    lines = [header + f"From MetaKE Require {' '.join(trusted)}."]
    lines += ["Import MetaKE.premises."] * ("premises" in trusted)
    lines += [f"Definition type_{asked.theorem} : Prop := {asked.type}." for asked in places]
    lines += [f"From MetaKE Require {module}." for module in dict.fromkeys(places.values())]
    lines += [
        f"Definition ask_{asked.theorem} : type_{asked.theorem} := @MetaKE.{module}.{asked.theorem}."
        for asked, module in places.items()
    ]
    return "\n".join(lines) + "\n"


def _ask(
    folder: Path, places: dict[Question, str], header: str
) -> tuple[dict[Question, tuple[str, ...]], dict[Question, str]]:
    """Axioms per question that its theorem answers; one that does not is left out and the others are asked anew."""
    places, refused = dict(places), dict[Question, str]()
    while places:
        text = _file(folder, places, header)
        done = _coq(folder, text)
        if not done.returncode:
            return _axioms(folder, text, list(places)), refused
        line = int(re.findall(r"line (\d+)", done.stdout + done.stderr)[0])
        theorem = re.findall(r"Definition (?:ask|type)_(\w+)", text.splitlines()[line - 1])[0]
        asked = next(asked for asked in places if asked.theorem == theorem)
        refused[asked] = f"{places.pop(asked)}.{theorem} does not prove the statement"
    return {}, refused


def _coq(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "ask.v").write_text(text, encoding="utf-8")
    return _run(folder, "coqc", *FLAGS, "ask.v")


def _axioms(folder: Path, text: str, questions: list[Question]) -> dict[Question, tuple[str, ...]]:
    """Axioms per question: of all at once, and one by one only where there are some."""
    every = f"Definition every := ({', '.join(f'ask_{asked.theorem}' for asked in questions)}, tt).\n"
    said = _coq(
        folder, text + every + 'Goal True. idtac "claim every". Abort. Print Assumptions every.\n'
    ).stdout
    if _read_axioms(said).get("every") == ():
        return dict.fromkeys(questions, ())
    each = [
        f'Goal True. idtac "claim {asked.theorem}". Abort. Print Assumptions ask_{asked.theorem}.\n'
        for asked in questions
    ]
    found = _read_axioms(_coq(folder, text + "".join(each)).stdout)
    return {asked: found.get(asked.theorem, ("unknown",)) for asked in questions}


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
    premises: str = PREMISES,
    counterexample: str = COUNTEREXAMPLE,
    allowed: frozenset[str] = frozenset(),
) -> Answers:
    """What the kernel says of the proofs in a folder.

    Args:
        folder: holds `statements.v`, the proofs and `_CoqProject`.
        claims: a claim `T1` has the statement `T1`, a theorem `T1_proof`, and a theorem `T1_satisfiable` on its premises.
        pinned: sha256 that the trusted files have to have.
        header: what the questions import.
        question, premises, counterexample: the types that are asked for.
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
    stated = [*claims, *parts(folder)]
    asked = [Question(c, f"{c}_proof", question.format(claim=c)) for c in stated]
    asked += [
        Question(c, f"{c}_satisfiable", premises.format(claim=c), "no theorem on its premises")
        for c in stated
    ]
    asked += [Question(n, f"{n}_proof", counterexample.format(name=n)) for n in counterexamples(folder)]
    with tempfile.TemporaryDirectory() as temporary:
        fresh = Path(temporary)
        for name in [*(f"{m}.v" for m in modules(folder)), "_CoqProject"]:
            shutil.copy(folder / name, fresh)
        sources = digest(fresh)  # of what is compiled, whatever is edited meanwhile
        failed = _compile(fresh)
        places, refused = _find(fresh, asked, failed)
        axioms, unfit = _ask(fresh, places, header)
        _recheck(fresh, [name for name in modules(folder) if name not in failed])
    refused |= unfit
    refused |= {q: f"rests on {', '.join(a)}" for q, a in axioms.items() if not allowed.issuperset(a)}
    return _answers(version, sources, asked, axioms, refused)


def _find(
    folder: Path, asked: list[Question], failed: dict[str, str]
) -> tuple[dict[Question, str], dict[Question, str]]:
    """The module that holds the theorem of each question, and the questions without one."""
    texts = {name: (folder / f"{name}.v").read_text(encoding="utf-8") for name in modules(folder)}
    stated = "".join(texts.pop(name) for name in _trusted(folder))
    places, refused = dict[Question, str](), dict[Question, str]()
    for question in asked:
        where = [n for n, text in texts.items() if re.search(rf"\b{question.theorem}\b", text)]
        if not re.search(rf"\bDefinition {question.name}\b", stated):
            refused[question] = "no statement"
        elif not where:
            refused[question] = question.gap
        elif where[0] in failed:
            refused[question] = f"{where[0]}.v does not compile: {failed[where[0]]}"
        else:
            places[question] = where[0]
    return places, refused


def _answers(
    version: str,
    sources: str,
    asked: list[Question],
    axioms: dict[Question, tuple[str, ...]],
    refused: dict[Question, str],
) -> Answers:
    """Answers by name: a name is proved where every question about it is answered."""
    reasons: dict[str, str] = {}
    found: dict[str, tuple[str, ...]] = {}
    for question in asked:
        if question in refused:
            reasons.setdefault(question.name, refused[question])
    for question in asked:
        if question.name not in reasons:
            found[question.name] = tuple(dict.fromkeys(found.get(question.name, ()) + axioms[question]))
    dropped = {n: a for n, a in found.items() if "_" in n}
    return Answers(version, sources, {n: a for n, a in found.items() if n not in dropped}, reasons, dropped)


def write_record(answers: Answers, path: Path = RECORD) -> None:
    """The answers as committed."""
    record = {
        "coq": answers.coq,
        "sources": answers.sources,
        "statements": STATEMENTS,
        "proved": {c: list(a) for c, a in answers.proved.items()},
        "refused": answers.refused,
        "counterexamples": {c: list(a) for c, a in answers.counterexamples.items()},
    }
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
        {c: tuple(a) for c, a in record["counterexamples"].items()},
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
    print(
        f"{len(answers.proved)} of {len(CLAIMS)} claims are machine-checked by Coq {answers.coq}, with instances of "
        f"their premises; so are {len(answers.counterexamples)} theorems on parts and assumptions"
    )
    if arguments.accept:
        write_record(answers)
        return 0
    recorded = read_record()
    if recorded is None or replace(recorded, coq=answers.coq) != answers:
        print(
            f"the answers differ from {RECORD.name}: run `make proofs-accept` and look at the difference",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
