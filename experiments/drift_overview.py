"""Several measurements of drift as one table: `drift.json` files in, Markdown and JSON out.

python experiments/drift_overview.py results/drift/demo results/drift/smollm2 --out docs/drift
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from metake.console import command
from metake.files import read_record, write_json, write_text
from metake.options import Parser, output_folder, show_help


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="each with a drift.json")
    parser.add_argument(
        "--out",
        type=output_folder,
        default="results/drift",
        help="folder of the results; default: %(default)s",
    )
    return parser


if __name__ == "__main__":
    show_help(options)

import numpy as np

from metake.drift.verdict import judge
from metake.provenance import now
from metake.report.tables import markdown

NAMES = ("proxy", "parallel", "open", "frozen")


def point(content: dict[str, Any], label: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians and shares over the edits of one model at one strength."""
    verdict = judge(rows)
    held = {line["name"]: line["holds"] for line in verdict["lines"]}
    return {
        **{name: content.get(name) for name in ("model", "fingerprint", "method", "version")},
        "layers": content["layers"],
        "at": label,
        "edits": len(rows),
        "eta": float(np.median([row["eta"][-1] for row in rows])),
        "realized_share": float(np.median([row["realized_share"] for row in rows])),
        "gamma": float(np.median([row["gamma"] for row in rows])),
        "cos": {name: float(np.median([row["cos"][name] for row in rows])) for name in NAMES},
        "holds": held,
        "terms": {name: term["median"] for name, term in verdict["terms"].items()},
    }


def points(content: dict[str, Any]) -> list[dict[str, Any]]:
    """One point per strength, at the plan, and one where the plan is compensated."""
    edits, name = content["edits"], content["strength"]
    at = [
        point(content, f"{name} {float(strength):.3g}", [e["strengths"][strength] for e in edits])
        for strength in edits[0]["strengths"]
    ]
    return [*at, point(content, "compensated", [e["compensated"] for e in edits])]


@command("drift_overview")
def main() -> None:
    args = options().parse_args()
    found = [
        p
        for folder in args.folders
        for p in points(read_record(folder / "drift.json", "measure it again with measure_drift.py"))
    ]
    written = now()
    write_json(args.out / "overview.json", [{**p, "written": written} for p in found])
    head = [
        "model, layers",
        "at",
        "eta_L",
        "realized_share",
        "gamma",
        *(f"cos {n}" for n in NAMES),
        "X9",
        "proxy descends",
        "tail",
        "allocation",
        "evaluation",
        "key derivative",
    ]
    rows = [
        [
            f"{p['model']}, {p['layers'][0]}-{p['layers'][-1]}",
            p["at"],
            f"{p['eta']:.2f}",
            f"{p['realized_share']:.2f}",
            f"{p['gamma']:.1f}",
            *(f"{p['cos'][n]:.2f}" for n in NAMES),
            f"{p['holds']['X9: aligned layers']:.0%}",
            f"{p['holds']['proxy descends']:.0%}",
            *(f"{value:.2f}" for value in p["terms"].values()),
        ]
        for p in found
    ]
    write_text(args.out / "overview.md", markdown(head, rows))
    print(markdown(head, rows))


if __name__ == "__main__":
    main()
