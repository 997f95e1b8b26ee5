"""The rung `machine-checked`: a sound proof has it, and whatever only looks like one loses it."""

from __future__ import annotations

import shutil

import pytest

from theory.claims import CLAIMS
from verification import kernel, proofs_page, verdicts

STATEMENTS = "Definition T1 := forall n : nat, n + 0 = n.\nDefinition T2 := forall n : nat, 0 + n = n.\n"
SOUND = "Theorem T1_proof : T1. Proof. intro n. induction n; simpl; congruence. Qed.\n"
OTHER = "Theorem T2_proof : T2. Proof. intro n. reflexivity. Qed.\n"
ENDLESS = (
    "Unset Guard Checking. Fixpoint f (n : nat) : False := f n. Set Guard Checking.\n"
    "Theorem T1_proof : T1. Proof. destruct (f 0). Qed.\n"
)
CONTROLS = {
    "admitted": ("Theorem T1_proof : T1. Admitted.\n", "rests on"),
    "axiom": ("Axiom h : T1.\nTheorem T1_proof : T1. Proof. exact h. Qed.\n", "rests on"),
    "hidden hypothesis": (
        "Section S. Hypothesis h : T1. Theorem T1_proof : T1. Proof. exact h. Qed. End S.\n", "does not prove"),
    "another theorem": ("Theorem T1_proof : T2. Proof. intro n. reflexivity. Qed.\n", "does not prove"),
    "another statement of that name": (
        "Definition T1 := True. Theorem T1_proof : T1. Proof. exact I. Qed.\n", "does not prove"),
    "no proof": ("", "no proof"),
}  # fmt: skip

needs_coq = pytest.mark.skipif(shutil.which("coqc") is None, reason="no coqc here")


@pytest.fixture
def ask(tmp_path):
    """What the kernel says of T1 and T2, each with a file of its own; T2 is sound."""

    def run(proof, statements=STATEMENTS, pinned=None):
        (tmp_path / "statements.v").write_text(statements, encoding="utf-8")
        (tmp_path / "first.v").write_text(
            "From MetaKE Require Import statements.\n" + proof, encoding="utf-8"
        )
        (tmp_path / "second.v").write_text(
            "From MetaKE Require Import statements.\n" + OTHER, encoding="utf-8"
        )
        (tmp_path / "_CoqProject").write_text("statements.v\nfirst.v\nsecond.v\n", encoding="utf-8")
        pinned = pinned or kernel.digest_statements(tmp_path)
        return kernel.ask_kernel(tmp_path, ("T1", "T2"), pinned, "", "MetaKE.statements.{claim}")

    return run


@needs_coq
def test_kernel_accepts_a_sound_proof(ask):
    answers = ask(SOUND)
    assert answers.proved == {"T1": (), "T2": ()}
    assert answers.refused == {}


@needs_coq
@pytest.mark.parametrize("name", CONTROLS)
def test_kernel_refuses_what_only_looks_like_a_proof(ask, name):
    proof, reason = CONTROLS[name]
    answers = ask(proof)
    assert reason in answers.refused["T1"]
    assert answers.proved == {"T2": ()}


@needs_coq
def test_kernel_refuses_recursion_without_end(ask):
    with pytest.raises(kernel.KernelError, match="coqchk refuses"):
        ask(ENDLESS)


@needs_coq
def test_kernel_refuses_a_false_statement(ask):
    answers = ask(SOUND, STATEMENTS.replace("n + 0 = n", "n + 1 = n"))
    assert "does not compile" in answers.refused["T1"]
    assert answers.proved == {"T2": ()}


@needs_coq
def test_kernel_refuses_statements_that_nobody_compared(ask):
    answers = ask(SOUND, pinned="another")
    assert answers.proved == {}
    assert "differs" in answers.refused["T1"]


def test_statements_are_those_that_were_compared():
    assert kernel.digest_statements() == kernel.STATEMENTS


def test_record_is_of_these_sources_and_of_claims():
    recorded = kernel.read_record()
    assert recorded is not None, "the proofs changed: run `make proofs-accept`"
    assert set(recorded.proved) | set(recorded.refused) <= {c.id for c in CLAIMS}
    assert not set(recorded.proved) & set(recorded.refused)


def test_record_of_other_sources_is_not_quoted(tmp_path):
    folder = tmp_path / "proofs"
    shutil.copytree(kernel.SOURCES, folder, ignore=shutil.ignore_patterns("*.vo*", "*.glob", ".*"))
    assert kernel.read_record(folder=folder) is not None
    with (folder / "linear.v").open("a", encoding="utf-8") as file:
        file.write("(* changed *)\n")
    assert kernel.read_record(folder=folder) is None


def test_axioms_are_read_from_what_coq_prints():
    said = "claim A\nClosed under the global context\nclaim B\nAxioms:\nh : nat -> False\n  k.f : nat\nclaim C\nodd\n"
    assert kernel._read_axioms(said) == {"A": (), "B": ("h",), "C": ("unknown",)}


@pytest.mark.parametrize(
    ("recorded", "cell"),
    [
        (None, "not run here"),
        (kernel.Answers("8", "0", {}, {}), "not run here"),
        (kernel.Answers("8", "0", {"T1": ()}, {}), "yes"),
        (kernel.Answers("8", "0", {"T1": ("choice",)}, {}), "yes, with choice"),
        (kernel.Answers("8", "0", {}, {"T1": "no proof"}), "no: no proof"),
    ],
)
def test_table_quotes_the_recorded_run(monkeypatch, recorded, cell):
    monkeypatch.setattr(verdicts, "read_record", lambda: recorded)
    rows = verdicts.verdicts([])
    assert next(row for row in rows if row.id == "T1").machine_checked == cell
    assert f"| {cell} |" in next(
        line for line in verdicts.markdown(rows).splitlines() if line.startswith("| [T1]")
    )


def test_page_of_proofs_is_that_of_the_record():
    recorded = kernel.read_record()
    assert recorded is not None, "the proofs changed: run `make proofs-accept`"
    assert proofs_page.PAGE.read_text(encoding="utf-8") == proofs_page.page(recorded)


def test_every_statement_has_a_remark_and_every_gap_a_reason():
    stated = {claim.id for claim in CLAIMS if proofs_page.statement(claim.id)}
    assert stated == set(proofs_page.REMARKS)
    assert not stated & set(proofs_page.OBSTACLES)
