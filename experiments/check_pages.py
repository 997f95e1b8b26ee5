"""Screenshots of pages at 1,200 and 390 pixels, light and dark, with axe-core's accessibility findings.

    python experiments/check_pages.py results/demo/report.html results/verification/verdicts.html

Needs chromium, node and npm; axe-core and puppeteer-core are installed into a temporary folder. Without them the
check is skipped with a line. Exit code 1: a serious or critical finding, or a page that is wider than the screen.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from metake.console import command
from metake.errors import MetakeError
from metake.options import Parser, output_folder

PACKAGES = ("axe-core@4.10.3", "puppeteer-core@24.10.0")


def missing_program() -> str | None:
    """Name of a program that the check needs and that is not installed."""
    names = {
        "chromium": ("chromium", "chromium-browser", "google-chrome"),
        "node": ("node",),
        "npm": ("npm",),
    }
    return next((name for name, known in names.items() if not any(map(shutil.which, known))), None)


@command("check_pages")
def main() -> int:
    parser = Parser(description=__doc__)
    parser.add_argument("pages", nargs="+", type=Path, help="HTML files")
    parser.add_argument(
        "--out", type=output_folder, default="results/pages", help="folder of the screenshots"
    )
    args = parser.parse_args()
    for page in args.pages:
        if not page.is_file():
            raise MetakeError(f"{page}: no such page; `make demo` and `make verify` write some")
    if missing := missing_program():
        print(f"check_pages: skipped, {missing} is not installed")
        return 0
    chromium = next(
        path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))
    )
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, *PACKAGES]
        if subprocess.run(install, capture_output=True).returncode:
            print("check_pages: skipped, npm cannot install axe-core and puppeteer-core")
            return 0
        driver = Path(__file__).parent / "pages" / "check.mjs"
        pages = [str(page.resolve()) for page in args.pages]
        return subprocess.run(
            ["node", str(driver), chromium, str(args.out.resolve()), *pages], cwd=folder
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
