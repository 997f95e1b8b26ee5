"""The rung `machine-checked`: a sound proof has it, and whatever only looks like one loses it."""

from __future__ import annotations

import shutil

import pytest

from theory.claims import CLAIMS
from verification import kernel, proofs_page, verdicts

STATEMENTS = (
    "Definition T1 := forall n : nat, n + 0 = n.\nDefinition T2 := forall n : nat, 0 + n = n.\n"
    "Definition met := exists n : nat, n = 1.\n"
)
SOUND = "Theorem T1_proof : T1. Proof. intro n. induction n; simpl; congruence. Qed.\n"
OTHER = "Theorem T2_proof : T2. Proof. intro n. reflexivity. Qed.\n"
INSTANCE = "Theorem T{}_satisfiable : met. Proof. exists 1. reflexivity. Qed.\n"
MET = INSTANCE.format(1)
EXAMPLES = "Definition T1_needs_zero := exists n : nat, n + 1 <> n.\n"
EXAMPLE = "Theorem T1_needs_zero_proof : T1_needs_zero. Proof. exists 0. discriminate. Qed.\n"
ENDLESS = (
    "Unset Guard Checking. Fixpoint f (n : nat) : False := f n. Set Guard Checking.\n"
    "Theorem T1_proof : T1. Proof. destruct (f 0). Qed.\n"
)
CONTROLS = {
    "admitted": ("Theorem T1_proof : T1. Admitted.\n", "rests on"),
    "axiom": ("Axiom h : T1.\nTheorem T1_proof : T1. Proof. exact h. Qed.\n", "rests on"),
    "hidden hypothesis": (
        "Section S. Hypothesis h : T1. Theorem T1_proof : T1. Proof. exact h. Qed. End S.\n",
        "does not prove",
    ),
    "another theorem": ("Theorem T1_proof : T2. Proof. intro n. reflexivity. Qed.\n", "does not prove"),
    "another statement of that name": (
        "Definition T1 := True. Theorem T1_proof : T1. Proof. exact I. Qed.\n",
        "does not prove",
    ),
    "no proof": ("", "no proof"),
}

needs_coq = pytest.mark.skipif(shutil.which("coqc") is None, reason="no coqc here")


@pytest.fixture
def ask(tmp_path):
    """What the kernel says of T1, T2 and a counterexample; proof, premises and counterexample of T1 may be replaced."""

    def run(proof, statements=STATEMENTS, pinned=None, premises=MET, example=EXAMPLE):
        imports = "From MetaKE Require Import statements counterexamples.\n"
        files = {
            "statements": statements,
            "counterexamples": EXAMPLES,
            "first": imports + proof,
            "second": imports + OTHER + INSTANCE.format(2),
            "third": imports + premises,
            "fourth": imports + example,
        }
        for name, text in files.items():
            (tmp_path / f"{name}.v").write_text(text, encoding="utf-8")
        (tmp_path / "_CoqProject").write_text("".join(f"{name}.v\n" for name in files), encoding="utf-8")
        pinned = pinned or kernel.digest_statements(tmp_path)
        return kernel.ask_kernel(
            tmp_path,
            ("T1", "T2"),
            pinned,
            "",
            "MetaKE.statements.{claim}",
            "MetaKE.statements.met",
            "MetaKE.counterexamples.{name}",
        )

    return run


@needs_coq
def test_kernel_accepts_a_sound_proof(ask):
    answers = ask(SOUND)
    assert answers.proved == {"T1": (), "T2": ()}
    assert answers.counterexamples == {"T1_needs_zero": ()}
    assert answers.refused == {}


@needs_coq
@pytest.mark.parametrize("name", CONTROLS)
def test_kernel_refuses_what_only_looks_like_a_proof(ask, name):
    proof, reason = CONTROLS[name]
    answers = ask(proof)
    assert reason in answers.refused["T1"]
    assert answers.proved == {"T2": ()}


@needs_coq
@pytest.mark.parametrize(
    ("premises", "reason"),
    [
        ("", "no theorem on its premises"),
        ("Theorem T1_satisfiable : met. Admitted.\n", "rests on"),
        (
            "Theorem T1_satisfiable : exists n : nat, n = n. Proof. exists 1. reflexivity. Qed.\n",
            "does not prove",
        ),
    ],
)
def test_kernel_refuses_a_claim_whose_premises_are_not_met(ask, premises, reason):
    answers = ask(SOUND, premises=premises)
    assert reason in answers.refused["T1"]
    assert answers.proved == {"T2": ()}


@needs_coq
@pytest.mark.parametrize(
    ("example", "reason"),
    [
        ("", "no proof"),
        (
            "Axiom a : T1_needs_zero. Theorem T1_needs_zero_proof : T1_needs_zero. Proof. exact a. Qed.\n",
            "rests on",
        ),
        (
            "Theorem T1_needs_zero_proof : T1 -> T1_needs_zero. Proof. exists 0. discriminate. Qed.\n",
            "does not prove",
        ),
    ],
)
def test_kernel_refuses_what_only_looks_like_a_counterexample(ask, example, reason):
    answers = ask(SOUND, example=example)
    assert reason in answers.refused["T1_needs_zero"]
    assert answers.counterexamples == {}
    assert answers.proved == {"T1": (), "T2": ()}


#: A statement, and the question whether it has instances.
INSTANCES = {
    "forall (n : nat) (x : R), 0 < x -> x <= 1 -> x ^+ n <= 1":
        "forall N, exists n : nat, (N <= n)%N /\\ exists x : R, x != 0 /\\ 0 < x /\\ x <= 1",
    "forall (n : nat) (A : 'M[R]_n), A = 0 -> (A + A = A /\\ forall B : 'M[R]_n, B = A -> B = 0)":
        "forall N, exists n : nat, (N <= n)%N /\\ exists A : 'M[R]_n, A != 0 /\\ A = 0 /\\ exists B : 'M[R]_n, B != 0 /\\ B = A",
    "forall x : R, let y := x + 1 in (x < 0 -> y < 1) /\\ (0 < y -> 0 <= y)":
        "forall N : nat, (exists x : R, x != 0 /\\ x < 0) /\\ exists x : R, x != 0 /\\ 0 < x + 1",
    "forall x : R, 0 < x -> exists y, 0 < y /\\ forall z, y < z -> x < z":
        "forall N : nat, exists x : R, x != 0 /\\ 0 < x /\\ forall y, (0 < y /\\ forall z, y < z -> x < z) -> exists z, y < z",
    "forall v : nat -> 'cV[R]_2, v 0%N = v 1%N -> v 1%N = v 0%N":
        "forall N : nat, exists v : nat -> 'cV[R]_2, (forall i, v i != 0) /\\ v 0%N = v 1%N",
    "[/\\ forall x : R, x = x, forall x : R, x != x -> False & forall x : R, x = 1 -> 1 = x]":
        "forall N : nat, (exists x : R, x != 0 /\\ x != x) /\\ exists x : R, x != 0 /\\ x = 1",
}  # fmt: skip


@needs_coq
def test_premises_are_those_of_the_statement(tmp_path):
    """Coq compares what `premises_met` makes of a statement with what is written here."""
    shutil.copy(kernel.SOURCES / "premises.v", tmp_path)
    text = (
        kernel.HEADER
        + "From MetaKE Require Import premises.\nImport Order.TTheory GRing.Theory Num.Theory.\n"
        "Local Open Scope ring_scope.\nSection S. Variable R : rcfType.\n"
    )
    for i, (statement, question) in enumerate(INSTANCES.items()):
        text += f"Definition S{i} (_ : unit) := {statement}.\nDefinition Q{i} := {question}.\n"
        text += f"Goal premises_met (S{i} tt) = Q{i}. Proof. reflexivity. Qed.\n"
    (tmp_path / "ask.v").write_text(text + "End S.\n", encoding="utf-8")
    for name in ("premises.v", "ask.v"):
        done = kernel._run(tmp_path, "coqc", *kernel.FLAGS, name)
        assert done.returncode == 0, done.stdout + done.stderr


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
    assert set(recorded.proved) | set(recorded.refused) == {c.id for c in CLAIMS}
    assert list(recorded.counterexamples) == kernel.parts() + kernel.counterexamples()
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


def test_every_counterexample_is_of_an_assumption_of_the_register():
    needed = {f"{claim.id}_needs_{key}" for claim in CLAIMS for key in claim.assumptions}
    unneeded = {f"{claim.id}_without_{key}" for claim in CLAIMS for key in claim.unneeded}
    stated = set(kernel.counterexamples())
    assert stated <= needed | unneeded
    assert needed - stated == {f"{id}_needs_{key}" for id, key in proofs_page.TESTED}


def test_every_statement_has_a_remark_and_every_gap_a_reason():
    stated = {claim.id for claim in CLAIMS if proofs_page.statement(claim.id)}
    assert stated == set(proofs_page.REMARKS)
    assert not stated & set(proofs_page.OBSTACLES)
    assert kernel.parts() == [f"{id}_part" for id in proofs_page.PARTS]
    assert set(proofs_page.PARTS) <= set(proofs_page.OBSTACLES)


def test_page_prints_the_part_of_a_claim_and_gives_it_no_rung():
    recorded = kernel.read_record()
    assert recorded is not None, "the proofs changed: run `make proofs-accept`"
    section = proofs_page.page(recorded).split("### X4. ")[1].split("\n### ")[0]
    assert proofs_page.statement("X4_part") in section
    assert "no rung" in section
    assert "Machine-checked" not in section
    assert "X4" in recorded.refused
