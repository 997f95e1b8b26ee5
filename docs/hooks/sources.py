"""Pages of the repository's files that a page links to, so that no link leaves the site.

A link to a source file becomes a page with its text; `CONTRIBUTING.md` and `CHANGELOG.md` are pages of the navigation.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(((?!https?:|#)[^()#\s]*)(#[^()\s]*)?\)")


def outside(target: str, page: str) -> str | None:
    """Path in the repository of a link that leaves docs/, or None."""
    path = os.path.normpath(PurePosixPath("docs", page).parent / target).replace(os.sep, "/")
    return None if path.startswith(("docs/", "..")) or path == "docs" else path


def page_of(path: str) -> str:
    """The site's page of a file of the repository."""
    return PAGES.get(path, f"source/{path}.md")


def text_of(path: str) -> str:
    """Text of a file's page."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path in PAGES:
        return LINK.sub(lambda found: inward(found, path), text)
    kind = {".py": "python", ".md": "markdown", ".toml": "toml", ".json": "json"}.get(Path(path).suffix, "")
    return (
        f"---\nhide: [toc]\nsearch: {{exclude: true}}\n---\n# `{path}`\n\n~~~~{kind}\n{text.rstrip()}\n~~~~\n"
    )


def inward(found: re.Match[str], path: str) -> str:
    """A link of a file at the repository's root, as seen from docs/."""
    words, target, anchor = found.groups()
    return f"[{words}]({os.path.relpath(Path(path).parent / target, 'docs')}{anchor or ''})"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages."""
    wanted = set(PAGES)
    texts = [(file.src_uri, file.content_string) for file in files.documentation_pages()]
    texts += [(PAGES[path], text_of(path)) for path in PAGES]
    for page, text in texts:
        for found in LINK.finditer(text):
            path = outside(found[2], page)
            if path and (ROOT / path).is_file():
                wanted.add(path)
    for path in sorted(wanted):
        files.append(File.generated(config, page_of(path), content=text_of(path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of a page to the pages of the files."""
    here = PurePosixPath(page.file.src_uri).parent

    def replaced(found: re.Match[str]) -> str:
        words, target, anchor = found.groups()
        path = outside(target, page.file.src_uri)
        if path and files.get_file_from_path(page_of(path)):
            target = os.path.relpath(page_of(path), here)
        elif target.endswith(".ipynb"):
            target = target.removesuffix(".ipynb") + ".md"
        return f"[{words}]({target}{anchor or ''})"

    return markdown if page.file.src_uri.startswith("source/") else LINK.sub(replaced, markdown)
