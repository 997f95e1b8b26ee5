"""docs/proofs.md: per claim what it says in words, the statement that Coq's kernel checks, and where the two differ."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from metake.files import write_text
from theory.claims import CLAIMS
from verification.kernel import SOURCES, Answers, read_record

PAGE = Path(__file__).resolve().parent.parent / "docs" / "proofs.md"

#: Where a statement is weaker or stronger than the claim, or needs reading.
REMARKS = {
    "T1": "The whole claim. The law alone needs neither symmetry nor definiteness, only that G and 1 + rho are invertible (`law_without_definiteness`).",
    "T1a": "Stronger: that the eigenbasis exists is proved too, by the spectral theorem of `spectral.v`.",
    "T1b": "The whole claim; `low` is any positive lower bound of all eigenvalues, and M may lie below it.",
    "T1c": "The whole claim; the limit is stated with epsilon. G is definite and `||k||` stays put.",
    "T1d": "The whole claim.",
    "T1e": "The whole claim, with uniqueness of D P. That the raw key leaves the range of P is shown by a test, not here.",
    "T1f": "The whole claim.",
    "X1": "The whole claim. P = V V^T is built in.",
    "P15": "Stronger: the difference in closed form, for t >= 0, and the rate c/t for the Frobenius norm.",
    "X2": "The whole claim; eigenvalues are stated as an orthonormal eigenbasis, so that multiplicities count.",
    "X3": "The whole claim. `falls` is not strict; the shortfall is in the Frobenius norm.",
    "X13": "The whole claim; the sum is strictly below the rank for K != 0.",
    "X14": "The whole claim. The minimum with a price is over the requests T, and what is unique is the edit.",
    "P4": "The whole claim; the exact fit is the one of least cost.",
    "P8": "Wider: the mean is any linear monotone functional with mean 1 of 1; it has to be defined for the products of entries, rho and eta.",
    "P9": "With the addition of the register: k stays put. `Grows` is: along an eigenvector k, for every eps from some eigenvalue on.",
    "P10": "The whole claim; eps_C is any bound of the spectral norm.",
    "X12": "The whole claim, with existence and uniqueness of the minimiser. The share is stated for every eigenvector of B.",
    "T2a": "The whole claim.",
    "L1": "With the additions of the register, except that not every radius comes from a lam > 0, which a test shows.",
    "L2": "The whole claim; the radius may be negative.",
    "T2b": "With the additions of the register.",
    "T2c": "The whole claim, for linear losses (A = 0), as the claim says.",
    "T2d": "The whole claim, with the step that attains the length, and the case of a subspace.",
    "P3": "The whole claim.",
    "L3": "The whole claim; any bound e of the spectral norm, both forms.",
    "L4": "The corrected bound; neither a bound of the keys nor small drift is assumed (B enters one of two terms).",
    "L5": "The whole claim; the gradient is that of Frechet, the norm Frobenius's and any bound of the spectral one.",
    "X8": "The whole claim; the crosstalk is E B for gradients E at the tokens.",
    "J1": "The whole claim.",
    "T3a": "The whole claim for frozen channels (q_l does not depend on z), as the register adds. All gradients are at the same weights.",
    "T3b": "The whole claim, with zeta and zeta'. The gradients are given by (51); that this is the gradient is T3a.",
    "T3c": "The whole claim: any c in place of the best; the converse is an instance in the plane that attains the bound for every gamma <= 1, eps < 1.",
    "A1": "The whole claim.",
    "A2": "The whole claim, for equal Gamma_l q_l as `best case` says. Layers count from 0.",
    "J2": "A claim that fails: two equal layers without any drift have J = 3/4 I.",
    "P1": "A claim that fails: what share of a request arrives does not depend on z.",
    "P2": "A claim that fails: the proxy is eta times the gradient at the token.",
    "P5": "A claim that fails: an edit that is realised costs more than any given M for some G.",
    "P6": "A claim that fails: the quotient is a number of G and k.",
    "P7": "A claim that fails: a key outside the range of P is neither written nor gives a gradient.",
    "P11": "A claim that fails: one pair of gradients, every rate, decay and guard up to 1/100, first step.",
    "P12": "A claim that fails: a shared pull with zeta' = 1/2.",
    "P13": "The whole claim: recursion, gradient of the square, and L5 for one layer.",
    "X9": "The whole claim.",
    "X5": "The whole claim.",
    "X6": "The whole claim.",
    "X7": "The whole claim.",
}
#: What stands in the way of the others.
OBSTACLES = {
    "X4": "rounding: needs Flocq, and a fixed dimension",
    "X11": "limits of an iteration over layers: analysis that MathComp does not have",
}
INTRO = """# Proofs that a machine has checked

`proofs/statements.v` states the claims of `theory/claims.py` in Coq with MathComp, for every dimension and over every real closed
field, hence over the reals. It imports MathComp alone and proves nothing: it is all that a reader has to trust beside Coq. The other files of
`proofs/` prove the statements; `satisfiable.v` shows that the premises have instances.

`make proofs` compiles the sources in an empty folder, asks Coq's kernel per claim whether the theorem under its name proves the statement,
lists the axioms that it rests on, and lets coqchk check the object files anew. The answers are in `verification/proofs.json`; a table of
verdicts quotes them only while the sources are those of that run. A proof that is admitted, rests on an axiom or on a hidden hypothesis, or proves
another statement loses its place (`verification/test_kernel.py`), and the statements cannot change without the test that pins them.

That a formal statement says what the claim says is a person's judgement. Both are printed here, with what differs.

Derivatives and limits are stated with epsilon and delta. `bounded A c` says that the spectral norm of A is at most c. Quotients by zero are zero.

"""


def statement(claim: str) -> str:
    """Text of a claim's definition in `statements.v`; empty if there is none."""
    text = (SOURCES / "statements.v").read_text(encoding="utf-8")
    found = re.search(rf"^Definition {claim} :=.*?\.$", text, re.MULTILINE | re.DOTALL)
    return found.group() if found else ""


def _axioms(axioms: tuple[str, ...]) -> str:
    return "Axioms: " + ", ".join(axioms) + "." if axioms else "No axioms."


def page(answers: Answers) -> str:
    """The whole page."""
    proved, refused = answers.proved, answers.refused
    lines = [
        f"{len(proved)} of {len(CLAIMS)} claims are machine-checked (Coq {answers.coq}, sources with sha256 {answers.sources[:16]}).",
        "",
        "## Without a proof",
        "",
        "| claim | what the kernel's run says | in the way |",
        "|---|---|---|",
    ]
    lines += [
        f"| {c} | {reason} | {OBSTACLES.get(c, 'the proof is not written yet')} |"
        for c, reason in refused.items()
    ]
    lines += ["", "## Claim by claim", ""]
    for claim in CLAIMS:
        if text := statement(claim.id):
            checked = (
                f"Machine-checked. {_axioms(proved[claim.id])}"
                if claim.id in proved
                else "Stated, not proved."
            )
            lines += [f"### {claim.id}. {claim.title}", "", claim.statement.replace("<", "&lt;") + ".", "",
                      "```coq", text, "```", "", f"{REMARKS[claim.id]} {checked}" if claim.id in proved else checked, ""]  # fmt: skip
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
