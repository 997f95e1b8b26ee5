"""The theory put to the test: every claim of `theory.claims` on random, worst-case, exact and real
instances, against the closed forms of `theory` and against the code of `metake`.
"""
