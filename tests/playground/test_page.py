"""The page of the playground in headless Chromium, at the width of a desktop and of a phone."""

import shutil
import zipfile
from urllib.parse import urlsplit

import pytest

from metake.deltas import Delta

pytest.importorskip("uvicorn", reason="the extra playground is not installed")
pytest.importorskip("playwright", reason="playwright is not installed")
from playwright.sync_api import expect, sync_playwright

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
SHARED = "suppression", "requests", "trap", "drift"
DESKTOP, PHONE = ([pytest.param(width, id=str(width))] for width in (1280, 390))


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture(params=[*DESKTOP, *PHONE])
def page(request, browser, served):
    """The page at one width. At its end: no script error, no request to another host, no horizontal scrolling, no edit."""
    made = browser.new_page(viewport={"width": request.param, "height": 844})
    asked, errors = [], []
    made.on("request", lambda each: asked.append(each.url))
    made.on("console", lambda each: errors.append(each.text) if each.type == "error" else None)
    made.on("pageerror", lambda each: errors.append(str(each)))
    made.expected = set()  # texts of errors that the test provokes
    before = served.session.model.fingerprint()
    made.goto(served.url)
    made.wait_for_selector("body[data-ready]")
    yield made
    assert made.evaluate("document.documentElement.scrollWidth") == request.param
    made.close()
    if served.session.entries:
        served.session.undo_all()
    assert served.session.model.fingerprint() == before
    hosts = {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))}
    assert hosts == {urlsplit(served.url).netloc}
    assert [text for text in errors if not any(part in text for part in made.expected)] == []


def answers(page):
    """Rows of the comparison: prompt, before, after, verdict."""
    return [row.locator("th, td").all_inner_texts() for row in page.locator("#answers-out tbody tr").all()]


def done(page):
    expect(page.locator("#message")).to_be_hidden(timeout=60_000)


def test_page_edits_undoes_and_exports(page, served, tmp_path):
    """Preview, edit, changed answers, export, undo; afterwards the answers are those of before."""
    page.click("#compare")
    done(page)
    start = answers(page)
    assert [row[1] == row[2] for row in start] == [True] * len(start)
    page.click("#preview")
    expect(page.locator("#preview-out img")).to_be_visible(timeout=60_000)
    expect(page.locator("#preview-out")).to_contain_text("settings: preset demo")
    done(page)
    assert served.session.entries == []
    page.click("#edit-model")
    expect(page.locator("#edits-out tbody tr")).to_have_count(1, timeout=60_000)
    done(page)
    edit, *own, rephrased, neighbor = answers(page)
    assert edit == ["edit: Which city was Vodan Paner born in?", "Semik", "Zobru", "the new target"]
    assert rephrased[1:] == ["Semik", "Zobru", "the new target"]
    assert neighbor[1:] == ["? bell", "? bell", "unchanged"]
    assert [row[3] for row in own] == ["unchanged"] * 2
    with page.expect_download() as download:
        page.click("#export")
    assert download.value.suggested_filename == "demo-delta.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        archive.extractall(tmp_path)
    assert Delta.load(tmp_path).digest == served.session.delta.digest
    page.click("#undo")
    expect(page.locator("#edits-out")).to_contain_text("None.", timeout=60_000)
    done(page)
    assert answers(page) == start


@pytest.mark.parametrize("page", DESKTOP, indirect=True)
def test_page_lists_edits_of_several_methods(page, served):
    """A second edit with another method and strength is listed; undo all reverts both."""
    page.click("#edit-model")
    expect(page.locator("#edits-out tbody tr")).to_have_count(1, timeout=60_000)
    done(page)
    page.select_option("#example", index=1)
    page.select_option("#method", "memit")
    page.check("#own-strength")
    page.locator("#strength").fill("0.9")
    page.click("#edit-model")
    expect(page.locator("#edits-out tbody tr")).to_have_count(2, timeout=60_000)
    done(page)
    assert [entry.choice.method for entry in served.session.entries] == ["metake", "memit"]
    assert served.session.entries[1].choice.strength == 0.9
    expect(page.locator("#edits-out")).to_contain_text("memit, eta 0.9")
    expect(page.locator("#model")).to_contain_text("2 edits")
    page.click("#undo-all")
    expect(page.locator("#edits-out")).to_contain_text("None.", timeout=60_000)
    done(page)
    assert page.is_disabled("#undo")


def test_page_shows_an_error_as_one_line(page, served):
    """A subject that is not in the prompt is one line; the model and the texts stay."""
    page.expected.add("400")
    page.fill("#subject", "Niels Bohr")
    page.click("#edit-model")
    expect(page.locator("#message.bad")).to_contain_text("subject 'Niels Bohr' is not in the prompt")
    assert "Traceback" not in page.inner_text("body")
    assert served.session.entries == []
    assert page.input_value("#subject") == "Niels Bohr"
    page.fill("#subject", "Vodan Paner")
    page.click("#preview")
    expect(page.locator("#preview-out img")).to_be_visible(timeout=60_000)
    done(page)


@pytest.mark.parametrize("page", DESKTOP, indirect=True)
def test_page_notices_a_change_in_another_window(page, served, browser):
    """A stale window changes nothing; it shows the edits of the other one."""
    page.expected.add("400")
    other = browser.new_page()
    other.goto(served.url)
    other.wait_for_selector("body[data-ready]")
    other.click("#edit-model")
    expect(other.locator("#edits-out tbody tr")).to_have_count(1, timeout=60_000)
    done(other)
    other.close()
    page.click("#edit-model")
    expect(page.locator("#message.bad")).to_contain_text("changed in another window")
    expect(page.locator("#edits-out tbody tr")).to_have_count(1)
    assert len(served.session.entries) == 1


def test_page_shows_texts_as_texts(page, served):
    """Markup in a prompt is shown, not run."""
    page.fill("#own", "<img src=x onerror=document.title='run'> <b>Who?</b>")
    page.click("#compare")
    done(page)
    assert answers(page)[1][0].startswith("own: <img src=x onerror=")
    assert page.title() == "MetaKE playground"


def open_theory(page):
    """The tab with the figure of each part."""
    page.click("#tab-theory")
    for part in SHARED:
        expect(page.locator(f"[data-part={part}] img")).to_be_visible(timeout=60_000)


@pytest.mark.parametrize("page", PHONE, indirect=True)
def test_theory_tab_fits_a_phone(page):
    """Judged by the fixture, with every figure and table in place."""
    open_theory(page)
    for part in SHARED:
        expect(page.locator(f"[data-part={part}] tbody tr").first).to_be_visible()


@pytest.mark.parametrize("page", DESKTOP, indirect=True)
def test_theory_tab_follows_its_sliders(page):
    """Each part has a figure and its relations; a larger lambda leaves less of the edit, and every law holds."""
    open_theory(page)
    share = page.locator("[data-part=suppression] tbody tr").nth(1).locator("td").first
    before = float(share.inner_text())
    picture = page.get_attribute("[data-part=suppression] img", "src")
    page.locator("#s-lam").fill("6")
    page.wait_for_timeout(100)
    expect(page.locator("[data-part=suppression] img")).not_to_have_attribute("src", picture, timeout=60_000)
    assert float(share.inner_text()) < before
    for part in ("suppression", "requests"):
        verdicts = page.locator(f"[data-part={part}] td:last-child").all_inner_texts()
        assert set(verdicts) == {"holds"}
    page.wait_for_timeout(1500)  # the other parts are drawn, too
