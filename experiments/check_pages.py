"""Screenshots of pages at 1,200 and 390 pixels, light and dark, with axe-core's accessibility findings.

    python experiments/check_pages.py                  # writes small pages of the demo, evaluate and measure_drift first
    python experiments/check_pages.py results/demo/report.html results/verification/verdicts.html

Needs chromium, node and npm; `--install` installs those that are missing by apt-get, where that is allowed. axe-core and
puppeteer-core are installed into a temporary folder. What cannot be had is named in a line, and the check is skipped.
Exit code 1: a serious or critical finding, or a page that is wider than the screen.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from metake.console import command
from metake.errors import MetakeError
from metake.options import Parser, output_folder, show_help
from metake.shipped import ASSETS


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    parser.add_argument("pages", nargs="*", type=Path, help="HTML files; by default they are made now")
    parser.add_argument(
        "--out", type=output_folder, default="results/pages", help="folder of the screenshots"
    )
    parser.add_argument("--install", action="store_true", help="install missing programs by apt-get")
    parser.add_argument("--also", nargs="*", type=Path, default=[], help="more HTML files")
    return parser


if __name__ == "__main__":
    show_help(options)


PACKAGES = ("axe-core@4.10.3", "puppeteer-core@24.10.0")
PROGRAMS = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "nodejs": ("node",),
    "npm": ("npm",),
}  # of Debian's packages
HERE = Path(__file__).resolve().parent


def find(package: str) -> str | None:
    """Path of a package's program."""
    return next((path for name in PROGRAMS[package] if (path := shutil.which(name))), None)


def missing_programs(install: bool) -> list[str]:
    """Packages whose program is not there.

    Args:
        install: try apt-get first.
    """
    missing = [package for package in PROGRAMS if find(package) is None]
    if missing and install and shutil.which("apt-get"):
        for step in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
            subprocess.run(
                ["apt-get", "--quiet", *step], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
    return [package for package in missing if find(package) is None]


def write_pages(folder: Path) -> list[Path]:
    """Small pages of every kind that the scripts write, made now."""
    data = ASSETS / "world" / "test.json"
    commands: dict[str, list[str | Path]] = {
        "demo": [HERE / "demo.py", "--skip-real", "--edits", "12", "--batch", "12"],
        "drift": [HERE / "measure_drift.py", "--edits", "2"],
        "evaluate": [
            "-m",
            "metake.cli",
            "evaluate",
            "--model",
            "demo",
            "--data",
            data,
            "--edits",
            "6",
            "--batch",
            "6",
            "--methods",
            "memit,metake",
            "--overwrite",
        ],
    }
    for name, words in commands.items():
        subprocess.run(
            [sys.executable, *words, "--out", folder / name], check=True, stdout=subprocess.DEVNULL
        )
    return [folder / name / "report.html" for name in commands]


@command("check_pages")
def main() -> int:
    args = options().parse_args()
    for page in [*args.pages, *args.also]:
        if not page.is_file():
            raise MetakeError(f"{page}: no such page; `make demo` and `make test` write some")
    if missing := missing_programs(args.install):
        print(f"check_pages: skipped, {', '.join(missing)} cannot be had here")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        install = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, *PACKAGES]
        if subprocess.run(install, capture_output=True).returncode:
            print("check_pages: skipped, npm cannot install axe-core and puppeteer-core")
            return 0
        args.out.mkdir(parents=True, exist_ok=True)
        pages = [*(args.pages or write_pages(args.out)), *args.also]
        driver = ["node", str(HERE / "pages" / "check.mjs"), str(find("chromium")), str(args.out.resolve())]
        return subprocess.run([*driver, *(str(page.resolve()) for page in pages)], cwd=folder).returncode


if __name__ == "__main__":
    sys.exit(main())
