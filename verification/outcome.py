"""Outcome of one test, read from pytest's report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal

State = Literal["passed", "failed", "skipped", "hollow", "xfail"]


@dataclass(frozen=True)
class Outcome:
    """One test with its claims, its state and its evidence.

    Attributes:
        test: pytest's node id.
        state: `hollow`: passed without discharging an obligation of its rung; `xfail`: marked as expected to fail.
        claims: claim, rung, dropped assumption and `refutes` of each `@checks`.
        evidence: fields of `ledger.Evidence`.
        sampled: whether hypothesis drew its examples.
    """

    test: str
    state: State
    claims: tuple[tuple[str, str, str, bool], ...]
    evidence: dict[str, Any] = field(default_factory=dict)
    sampled: bool = False

    @classmethod
    def from_report(cls, report: Any) -> Outcome:
        properties: dict[str, list[Any]] = {}
        for name, value in report.user_properties:
            properties.setdefault(name, []).append(value)
        found = tuple(
            (c, rung, more["drops"], more["refutes"]) for c, rung, more in properties.get("checks", [])
        )
        evidence = properties.get("evidence", [{}])[0]
        state = properties.get("state", [report.outcome])[-1]
        return cls(report.nodeid, state, found, evidence, "sampled" in properties)

    @property
    def function(self) -> str:
        """`test_file.py::test_function`, without folder and parameters."""
        file, _, name = self.test.partition("::")
        return f"{PurePosixPath(file).name}::{name.split('[')[0]}"
