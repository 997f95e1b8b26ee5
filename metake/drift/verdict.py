"""Which premises of Theorem 3 hold on a model, for what share of edits, and which conclusion does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

SLACK = 1e-4  # fp32 gradients: relative rounding of their norms
SMALL = 0.1  # what may be called a small drift, or near the identity

Row = dict[str, Any]
# name, quantity, its value (None: not measured), and whether that is enough
Line = tuple[str, str, Callable[[Row], float | None], Callable[[Row], bool]]
PREMISES: tuple[Line, ...] = (
    (
        "(53) keys alike",
        "||k_l - k_L|| / ||k_L||, largest",
        lambda m: max(m["key drift"]),
        lambda m: max(m["key drift"]) <= SMALL,
    ),
    ("(54) dominance", "gamma", lambda m: m["gamma"], lambda m: m["gamma"] < 1),
    ("(55) allocations alike", "||J_L - J_1||", lambda m: m["J_L - J_1"], lambda m: m["J_L - J_1"] <= SMALL),
    ("(56) J_L near I", "||J_L - I||", lambda m: m["eps_I"], lambda m: m["eps_I"] <= SMALL),
    ("T3b: zeta < 1", "zeta", lambda m: m["zeta"], lambda m: m["zeta"] < 1),
    ("T3b sharp: zeta' < 1", "zeta'", lambda m: m["zeta'"], lambda m: m["zeta'"] < 1),
    ("T3c: angles", "gamma^2 + eps^2", lambda m: m["T3c"], lambda m: m["T3c"] < 1),
    (
        "X9: aligned layers",
        "least cos(g_l, g~)",
        lambda m: min(m["alignment"]),
        lambda m: min(m["alignment"]) >= 0,
    ),
)
CONCLUSIONS: tuple[Line, ...] = (
    ("proxy descends", "cos(g, g~)", lambda m: m["cos"]["proxy"], lambda m: m["cos"]["proxy"] > 0),
    ("open loop descends", "cos(g, open)", lambda m: m["cos"]["open"], lambda m: m["cos"]["open"] > 0),
    (
        "parallel descends",
        "cos(g, parallel)",
        lambda m: m["cos"]["parallel"],
        lambda m: m["cos"]["parallel"] > 0,
    ),
    (
        "T3a as stated",
        "error / bound",
        lambda m: m["error"] / m["paper bound"] if m["paper bound"] else np.inf,
        lambda m: m["error"] <= m["paper bound"] * (1 + SLACK),
    ),
    (
        "T3a with all terms",
        "error / bound",
        lambda m: m["error"] / m["bound"] if m["bound"] else 0.0,
        lambda m: m["error"] <= m["bound"] * (1 + SLACK) + SLACK * m["exact"],
    ),
    (
        "bound below ||g~||",
        "bound / ||g~||",
        lambda m: m["bound"] / m["effect"][-1],
        lambda m: m["bound"] < m["effect"][-1],
    ),
)


def judge(rows: Sequence[Row]) -> dict[str, Any]:
    """Shares of edits for which each premise and conclusion holds, with quartiles of its quantity.

    Args:
        rows: measurements, one per edit.

    Returns:
        `lines`: one per premise and conclusion; `terms`: parts of the proxy's error; `self-check`: largest error.
    """

    def line(kind: str, entry: Line) -> Row:
        name, quantity, value, holds = entry
        known = [row for row in rows if value(row) is not None]
        values = np.array([value(row) for row in known], dtype=float)
        return {
            "kind": kind,
            "name": name,
            "quantity": quantity,
            "edits": len(known),
            "holds": float(np.mean([holds(row) for row in known])) if known else None,
            "quartiles": [float(q) for q in np.quantile(values, (0.25, 0.5, 0.75))] if known else None,
        }

    dominant = [max(row["terms"], key=row["terms"].get) for row in rows]
    terms = {
        name: {
            "dominates": float(np.mean([d == name for d in dominant])),
            "median": float(np.median([row["terms"][name] / row["exact"] for row in rows if row["exact"]])),
        }
        for name in rows[0]["terms"]
    }
    return {
        "lines": [*(line("premise", p) for p in PREMISES), *(line("conclusion", c) for c in CONCLUSIONS)],
        "terms": terms,
        "self-check": max(row["sum check"] for row in rows),
    }


def sentences(verdict: dict[str, Any]) -> list[str]:
    """Sentences that summarize a verdict.

    Args:
        verdict: from `judge`.

    Returns:
        The sentences.
    """
    lines = {line["name"]: line for line in verdict["lines"]}
    guarantees = {n: lines[n]["holds"] for n in ("T3b: zeta < 1", "T3b sharp: zeta' < 1", "T3c: angles")}
    held = [name for name, share in guarantees.items() if share is not None and share > 0.5]
    aligned, descends = lines["X9: aligned layers"], lines["proxy descends"]
    largest = max(verdict["terms"], key=lambda n: verdict["terms"][n]["median"])
    return [
        f"Theorem 3 guarantees descent by {', '.join(held)} for most edits."
        if held
        else "Theorem 3's conditions for descent (zeta, zeta', T3c) hold for half of the edits or fewer: "
        + ", ".join("not measured" if share is None else f"{share:.0%}" for share in guarantees.values())
        + ".",
        f"Its conclusion, that the proxy descends, holds for {descends['holds']:.0%} "
        f"(median cosine {descends['quartiles'][1]:.2f}); layers are aligned (X9) for {aligned['holds']:.0%}.",
        f"The largest part of the proxy's error is {largest!r}, "
        f"{verdict['terms'][largest]['median']:.2f} of ||g|| in the median.",
        f"sum_l J_l^T Gamma_l q_l agrees with the frozen-key hypergradient to {verdict['self-check']:.0e}.",
    ]


INTRODUCTION = (
    "Theorem 3 says when the structural gradient proxy g~ may take the place of the exact hypergradient g, the derivative of "
    "the post-edit loss with respect to the target. The table gives the share of the edits for which each premise and each "
    "conclusion holds, and the quartiles of the quantity that decides it."
)
MEANINGS: dict[str, str] = {
    "g, g~": "the exact hypergradient, through the whole layered solve; and the proxy, through the last edited layer's channel, "
    "at the weights of an edit in that layer alone",
    "g_l, J_l": "layer l's part of the hypergradient at frozen keys; and the Jacobian of the change that it writes with respect to "
    "the target's residual. L is the last edited layer.",
    "(53) keys alike": "the keys of all edited layers are near the last layer's (distance at most 0.1 of its length)",
    "(54) dominance": "gamma < 1: the gradients of the layers before the last, together, are shorter than the last one's",
    "(55), (56)": "the Jacobians are alike, and the last one is near the identity (spectral norm at most 0.1); eps_I = ||J_L - I||",
    "zeta, zeta', T3c": "below 1, each guarantees <g, g~> > 0: zeta is the paper's condition, zeta' the same without sigma, T3c a "
    "condition on angles, with eps = min over c of ||J_L / c - I||. sigma = ||Gamma_L q_L|| / (||Gamma_L|| ||q_L||).",
    "X9": "no layer's gradient points against the proxy: descent then follows whatever gamma is",
    "descends": "a step along this gradient lowers the post-edit loss: its cosine with g is above 0. open: the gradient of the "
    "open-loop plan. parallel: every layer's own gradient at the post-edit weights.",
    "T3a": "the bound on ||g - g~||: as stated in the paper (10), and with the two terms that it leaves out",
    "error: tail, allocation, evaluation, key derivative": "the parts of g - g~, whose vector sum it is: gradients of the layers before "
    "the last; J_L instead of I; post-edit weights instead of the proxy's; keys that move with the edit. Medians of their norms over "
    "||g||; `holds for`: the share of the edits for which the part is the largest.",
}


def table(verdict: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Table of a verdict.

    Args:
        verdict: from `judge`.

    Returns:
        Head and rows.
    """
    rows = []
    for line in verdict["lines"]:
        quartiles = line["quartiles"]
        cells = ["-"] * 3 if quartiles is None else [f"{q:.3g}" for q in quartiles]
        share = "-" if line["holds"] is None else f"{line['holds']:.0%}"
        rows.append([line["name"], share, *cells, line["quantity"]])
    for name, term in verdict["terms"].items():
        rows.append(
            [f"error: {name}", f"{term['dominates']:.0%}", "", f"{term['median']:.3g}", "", "part / ||g||"]
        )
    return ["premise, conclusion or part", "holds for", "25%", "median", "75%", "quantity"], rows
