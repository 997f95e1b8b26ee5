"""How much text C needs: the estimate from two halves against the error that a longer text shows."""

import json

from tests.scripts import call_here, refused


def test_statistics_convergence_estimates_its_error(tmp_path):
    """Error falls and the estimate is of its size."""
    call_here(
        "statistics_convergence.py",
        "--model",
        "demo",
        "--layers",
        "1-2",
        "--tokens",
        16000,
        "--edits",
        20,
        "--out",
        tmp_path,
    )
    content = json.loads((tmp_path / "demo.json").read_text())
    points = content["points"]
    assert [p["tokens"] for p in points] == [2000, 4000, 8000, 16000]
    errors = [p["error"] for p in points[:-1]]
    assert errors == sorted(errors, reverse=True)
    early = points[1]  # of a quarter of the text, which is long enough to show its error
    assert early["error"] / 2 < early["estimate"] < early["error"] * 2
    estimates = [p["estimate"] for p in points[1:]]
    assert estimates == sorted(estimates, reverse=True)
    assert content["extrapolated"]
    assert content["needed"] > 16000
    assert (tmp_path / "demo.png").stat().st_size > 10_000


def test_statistics_convergence_refuses_too_few_tokens(tmp_path):
    line = refused("statistics_convergence.py", "--tokens", 1000, out=tmp_path / "out")
    assert "--tokens" in line
