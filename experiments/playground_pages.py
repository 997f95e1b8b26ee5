"""Screenshots of the playground of a demo model, both tabs at 1,280 and 390 pixels, for docs/playground.md.

    python experiments/playground_pages.py --out docs/playground

Needs chromium and the extra `dev`.
"""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

from metake.console import command
from metake.errors import MetakeError
from metake.extras import needs
from metake.options import Parser, output_folder, show_help


def options() -> Parser:
    """Options of the script."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--out", type=output_folder, default="results/playground", help="folder of the screenshots"
    )
    parser.add_argument("--axe", type=Path, help="axe.min.js of axe-core: exit code 1 where it has a finding")
    return parser


if __name__ == "__main__":
    show_help(options)
with command("playground_pages"), needs("dev"):
    from playwright.sync_api import expect, sync_playwright

    from metake.models.load import load
    from metake.playground.server import application, bound_socket, web_server
    from metake.playground.session import Session

WIDTHS = (1280, 390)
HEIGHT = 844


def find_chromium() -> str:
    """Path of the browser."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    raise MetakeError("chromium is missing; apt-get install chromium")


def shoot_edit_tab(page: Any, path: Path) -> None:
    """Preview and edit, then a screenshot; the edit is undone."""
    page.click("#preview")
    expect(page.locator("#preview-out img")).to_be_visible(timeout=120_000)
    expect(page.locator("#message")).to_be_hidden()
    page.click("#edit-model")
    expect(page.locator("#edits-out tbody tr")).to_have_count(1, timeout=120_000)
    expect(page.locator("#message")).to_be_hidden(timeout=60_000)
    page.screenshot(path=path, full_page=True)


def shoot_theory_tab(page: Any, path: Path) -> None:
    """A screenshot with all figures."""
    page.click("#tab-theory")
    for part in ("suppression", "requests", "trap", "drift"):
        expect(page.locator(f"[data-part={part}] img")).to_be_visible(timeout=60_000)
    page.screenshot(path=path, full_page=True)


def shoot(url: str, out: Path, axe: Path | None) -> list[str]:
    """Screenshots of all pages; findings of axe-core, if its file is given."""
    findings: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        for width in WIDTHS:
            for scheme in ("light", "dark") if axe else ("light",):
                page = browser.new_page(
                    viewport={"width": width, "height": HEIGHT}, color_scheme=scheme, bypass_csp=True
                )
                page.goto(url)
                page.wait_for_selector("body[data-ready]")
                for name, shot in (("edit", shoot_edit_tab), ("theory", shoot_theory_tab)):
                    shot(page, out / f"{name}-{width}{'' if scheme == 'light' else '-dark'}.png")
                    if axe:
                        page.add_script_tag(path=axe)
                        found = page.evaluate(
                            "axe.run().then(r => r.violations.map(v => `${v.impact} ${v.id}: ${v.nodes[0].target}`))"
                        )
                        findings += [f"{name}, {width} px, {scheme}: {line}" for line in found]
                page.click("#tab-edit")
                page.click("#undo-all")
                expect(page.locator("#edits-out")).to_contain_text("None.")
                expect(page.locator("#message")).to_be_hidden(timeout=60_000)
                page.close()
        browser.close()
    return findings


@command("playground_pages")
def main() -> int:
    args = options().parse_args()
    find_chromium()
    args.out.mkdir(parents=True, exist_ok=True)
    server = web_server(application(Session(load("demo", device="cpu"))))
    at = bound_socket("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [at]})
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        findings = shoot(f"http://127.0.0.1:{at.getsockname()[1]}", args.out, args.axe)
    finally:
        server.should_exit = True
        thread.join()
    for line in findings:
        print(line)
    print(f"screenshots in {args.out}")
    return int(bool(findings))


if __name__ == "__main__":
    raise SystemExit(main())
