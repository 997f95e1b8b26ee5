"""docs/proofs.md: per claim what it says in words, the statement that Coq's kernel checks, and where the two differ."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from metake.files import write_text
from theory.claims import CLAIMS
from verification.kernel import SOURCES, Answers, counterexamples, read_record

PAGE = Path(__file__).resolve().parent.parent / "docs" / "proofs.md"

#: Where a statement is weaker or stronger than the claim, or needs reading.
REMARKS = {
    "T1": "The whole claim. The law alone needs neither symmetry nor definiteness, only that G and 1 + rho are invertible (`T1_without_symmetric`).",
    "T1a": "Stronger: that the eigenbasis exists is proved too, by the spectral theorem of `spectral.v`.",
    "T1b": "The whole claim; `low` is any positive lower bound of all eigenvalues, and M may lie below it.",
    "T1c": "The whole claim; the limit is stated with epsilon. G is definite and `||k||` stays put.",
    "T1d": "The whole claim. Of G2 nothing is needed but x^T G2 x >= x^T G1 x (`T1d_without_symmetric`).",
    "T1e": "The whole claim, with uniqueness of D P; and its correction: the raw key's update leaves the range of P unless P k = k or r = 0. Stronger: what the published code solves, for a batch with earlier keys, is the batch law's edit in the geometry that holds them.",
    "T1f": "Stronger: the edit with earlier keys is the one minimizer, on matrices X = X P, of the objective that holds them too.",
    "X1": "The whole claim. P = V V^T is built in; that the left side is AlphaEdit's edit is T1f.",
    "P15": "Stronger: the difference in closed form, for t >= 0, and the rate c/t for the Frobenius norm.",
    "X2": "The whole claim; eigenvalues are stated as an orthonormal eigenbasis, so that multiplicities count.",
    "X3": "The whole claim. `falls` is not strict; the shortfall is in the Frobenius norm.",
    "X13": "The whole claim; the sum is strictly below the rank for K != 0.",
    "X14": "Stronger: every D K is reached, whatever the keys, and every shift X if they are independent. The minimum with a price is over the requests T, and what is unique is the edit.",
    "P4": "The whole claim; the exact fit is the one of least cost.",
    "P8": "Wider: the mean is any linear monotone functional with mean 1 of 1; it has to be defined for the products of entries, rho and eta.",
    "P9": "With the addition of the register, k stays put: along an eigenvector k, for every eps from some eigenvalue on. And what happens without it: for every eigenvalue mu a key of length sqrt(mu) has rho = 1.",
    "P10": "The whole claim; eps_C is any bound of the spectral norm.",
    "X12": "The whole claim, with existence and uniqueness of the minimizer. The share is stated for every eigenvector of B.",
    "T2a": "The whole claim.",
    "L1": "With the additions of the register: in one dimension no lam >= 0 gives the radius 2.",
    "L2": "The whole claim; the radius may be negative.",
    "T2b": "With the additions of the register.",
    "T2c": "The whole claim, for linear losses (A = 0), as the claim says. `T2c_without_directions` is the law for gradients of any direction: the easy one's does not enter, and sqrt(u_h^T H u_h) takes the place of sqrt(mu_max).",
    "T2d": "The whole claim, with the one step that attains the length, and both for a step that is confined to a subspace.",
    "P3": "The whole claim: the least cost, and two requests that share a penalty, whose trap depends on rho of the hard request and on no direction.",
    "L3": "Stronger: any bound e of the spectral norm, both forms; the second is attained for every mu and e, in every dimension.",
    "L4": "The corrected bound; neither a bound of the keys nor small drift is assumed (B enters one of two terms).",
    "L5": "The whole claim; the gradient is that of Frechet, the norm Frobenius's and any bound of the spectral one.",
    "X8": "The whole claim; at the tokens a loss with gradient E gives E B, of which the crosstalk is the part off the diagonal.",
    "J1": "The whole claim.",
    "T3a": "The whole claim for frozen channels (q_l does not depend on z), as the register adds. All gradients are at the same weights.",
    "T3b": "Stronger: ||g - g~|| <= t ||g~|| and the descent for every t >= zeta', hence for zeta' and zeta. The gradients are given by (51); that this is the gradient is T3a.",
    "T3c": "The whole claim: any c in place of the best; for every gamma < 1 and eps < 1 two layers in the plane attain the bound with g and g_L non-zero. At gamma = 1 the bound holds and is approached, not attained.",
    "A1": "The whole claim.",
    "A2": "The whole claim, for equal Gamma_l q_l as `best case` says. Layers count from 0.",
    "J2": "A claim that fails: two equal layers without any drift have J = 3/4 I.",
    "P1": "A claim that fails: every request arrives with the same share eta, and eta < 1.",
    "P2": "A claim that fails: the proxy is eta times the gradient at the token. The gradient by the weights exists, and is one.",
    "P5": "A claim that fails: for every G, k and delta. What realizes delta costs more than M once rho is below ||delta||^2/M, and rho comes as near to 0 as wanted.",
    "P6": "A claim that fails: the quotient is a number of G and k.",
    "P7": "A claim that fails: every key that P kills is neither written nor gives a gradient, and there are such keys.",
    "P11": "A claim that fails: one pair of gradients, every rate, decay and guard up to 1/100, first step.",
    "P12": "A claim that fails: one layer (gamma = 0) within the premises of T3b, zeta = zeta' = 1/2, and a pull that both gradients share.",
    "P13": "The whole claim: recursion, gradient of the square, and L5 for one layer.",
    "X9": "The whole claim.",
    "X5": "Stronger: the bounds of the condition, max(c_F/c_H, c_H/c_F) <= cond <= c_F c_H, are proved too.",
    "X6": "Stronger: that the step is the one minimizer of the regularized linear loss, and that the aligned step is the one minimizer over its region, is proved too.",
    "X7": "The whole claim.",
}
#: Claims of which a part is stated, and what that part says.
PARTS = {
    "X4": "A part: if what is computed solves G + E in place of G with ||E|| <= u ||G|| and u cond(G) < 1, rho and eta are within "
    "u cond(G)/(1 - u cond(G)) of theirs, relatively; E need not be symmetric.",
    "X11": "A part: the bound a posteriori, term by term, for any gradients, channels and shares s_l >= 0.",
}
#: What stands in the way of the others, or of the rest of a claim.
OBSTACLES = {
    "X4": "that a solve in floating point is backward stable, and the roundings of the products and of the quotient, need "
    "Flocq and a fixed dimension; c <= 8 is what tests find",
    "X11": "that the relative error vanishes as G grows, and the last-layer proxy's does not, are limits through the loss and the allocation",
    "X16": "it follows from X2, X3 and X8 with G + K_p K_p^T in place of G; its statement is not written yet",
}
#: Assumptions whose counterexample is a test alone, and why it is no theorem.
TESTED: dict[tuple[str, str], str] = {
    ("X4", "quotient"): "rounding, as for the claim",
    ("X11", "fixed"): "the claim has no statement",
    ("X16", "definite"): "the claim has no statement",
    ("X16", "orthogonal"): "the claim has no statement",
    ("X16", "joint"): "the claim has no statement",
}
INTRO = """# Proofs that a machine has checked

`proofs/statements.v` states the claims of `theory/claims.py` in Coq with MathComp, for every dimension and over every real closed
field, hence over the reals. `proofs/counterexamples.v` states per assumption of a claim what fails without it. Both import nothing but MathComp and prove
nothing: with `premises.v` they are all that a reader has to trust beside Coq. The other files of `proofs/` prove the statements.

`premises.v` makes from a statement the question whether it has instances: every chain of premises that leads to a conclusion has to hold at once, with
every size at least N for any given N, and with every number, vector and matrix non-zero. A `forall` becomes an `exists`, a premise a conjunct, and the
conclusion is dropped; so no premise can be left out. `satisfiable.v` answers it for every claim, T1 by the theorem `T1_satisfiable`, and a claim without
that theorem is not machine-checked. P12 has no premises.

`make proofs` compiles the sources in an empty folder, asks Coq's kernel whether each theorem proves the statement of its name, on which
axioms it rests, and lets coqchk check the object files anew. The answers are in `verification/proofs.json`; a table of
verdicts quotes them only while the sources are those of that run. A proof that is admitted, rests on an axiom or on a hidden hypothesis, or proves
another statement loses its place (`verification/test_kernel.py`), and the statements cannot change without the test that pins them.

On a machine without Coq `make proofs` installs `coq`, `libcoq-mathcomp-algebra`, `libcoq-mathcomp-real-closed` and `libcoq-mathcomp-algebra-tactics`
with apt (measured on Debian 12: 1.1 GB, under two minutes). A run takes 104 s of CPU and 0.7 GB of memory; beside other work on two cores it took five minutes.

That a formal statement says what the claim says is a person's judgment. Both are printed here, with what differs.

Derivatives and limits are stated with epsilon and delta. `bounded A c` says that the spectral norm of A is at most c. Quotients by zero are zero.

"""


def statement(name: str, file: str = "statements") -> str:
    """Text of a definition of a file of `proofs/`; empty if there is none."""
    text = (SOURCES / f"{file}.v").read_text(encoding="utf-8")
    found = re.search(rf"^Definition {name} :=.*?\.$", text, re.MULTILINE | re.DOTALL)
    return found.group() if found else ""


def _cell(text: str) -> str:
    """Text that stands in a table as it is."""
    return text.replace("<", "&lt;").replace("|", "\\|")


def _axioms(axioms: tuple[str, ...]) -> str:
    return "Axioms: " + ", ".join(axioms) + "." if axioms else "No axioms."


def _counterexamples(claim: str, answers: Answers) -> list[str]:
    """Statements of a claim's counterexamples that are proved."""
    texts = [
        statement(name, "counterexamples")
        for name in counterexamples()
        if name.startswith((f"{claim}_needs_", f"{claim}_without_")) and name in answers.counterexamples
    ]
    return ["", *texts] if texts else []


def _assumptions(answers: Answers) -> list[str]:
    """A table of the register's assumptions, each with the theorem that drops it or what stands in the way."""
    rows = []
    for claim in CLAIMS:
        for key, text in claim.assumptions.items():
            name = f"{claim.id}_needs_{key}"
            shown = (
                f"`{name}`"
                if name in answers.counterexamples
                else f"a test: {TESTED.get((claim.id, key), 'the proof is not written yet')}"
            )
            rows.append(f"| {claim.id} | {_cell(text)} | {shown} |")
    for claim in CLAIMS:
        for key, text in claim.unneeded.items():
            name = f"{claim.id}_without_{key}"
            shown = f"`{name}`" if name in answers.counterexamples else "the statement does not assume it"
            rows.append(f"| {claim.id} | not needed: {_cell(text)} | {shown} |")
    return ["| claim | assumption | theorem |", "|---|---|---|", *rows]


def _judgment(claim: str, answers: Answers) -> str:
    """What differs between a claim and its statement, and what the kernel says of it."""
    if claim in answers.proved:
        return f"{REMARKS[claim]} Machine-checked. {_axioms(answers.proved[claim])}"
    if (axioms := answers.counterexamples.get(f"{claim}_part")) is not None:
        return f"{PARTS[claim]} Coq's kernel accepts it, which gives the claim no rung: {OBSTACLES[claim]}. {_axioms(axioms)}"
    return "Stated, not proved."


def page(answers: Answers) -> str:
    """The whole page."""
    lines = [
        f"{len(answers.proved)} of {len(CLAIMS)} claims are machine-checked, each with instances of its premises, and {sum(name in answers.counterexamples for name in counterexamples())} theorems say "
        f"what becomes of a claim without one of its assumptions (Coq {answers.coq}, sources with sha256 {answers.sources[:16]}).",
        "",
        "## Not proved, or in part",
        "",
        "| claim | what the kernel's run says | in the way |",
        "|---|---|---|",
    ]
    lines += [
        f"| {c} | {'part' if f'{c}_part' in answers.counterexamples else reason} | {_cell(OBSTACLES.get(c, 'the proof is not written yet'))} |"
        for c, reason in answers.refused.items()
    ]
    lines += [
        "",
        "## Assumptions",
        "",
        "`T1_needs_definite` states an instance of the other premises at which the claim fails, `T1_without_symmetric` what holds without a premise.",
        "",
        *_assumptions(answers),
        "",
        "## Claim by claim",
        "",
    ]
    for claim in CLAIMS:
        if text := statement(claim.id) or statement(f"{claim.id}_part"):
            lines += [
                f"### {claim.id}. {claim.title}",
                "",
                claim.statement.replace("<", "&lt;") + ".",
                "",
                "```coq",
                text,
                *_counterexamples(claim.id, answers),
                "```",
                "",
                _judgment(claim.id, answers),
                "",
            ]
    return INTRO + "\n".join(lines).rstrip() + "\n"


def main() -> int:
    """Writes the page of the recorded run."""
    recorded = read_record()
    if recorded is None:
        print(
            "verification.proofs_page: no record of these sources: run `make proofs-accept`", file=sys.stderr
        )
        return 2
    write_text(PAGE, page(recorded))
    return 0


if __name__ == "__main__":
    sys.exit(main())
