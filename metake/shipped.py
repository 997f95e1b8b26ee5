"""Files and names that ship with the package, and names of dtypes, for options; no model library is imported."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

ASSETS = Path(str(files("metake"))) / "assets"
DEMOS = ("demo", "demo-gptj", "demo-llama")
DTYPES = ("float32", "bfloat16", "float16", "float64")
