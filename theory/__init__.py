"""The theory of MetaKE as closed forms: NumPy and SciPy only, nothing of `metake`.

`suppression` (Theorem 1), `trap` (Theorem 2) and `fidelity` (Theorem 3) state both sides of every
claim as plain functions in fp64; `derivations` derives them with sympy; `claims` is the register.
"""
