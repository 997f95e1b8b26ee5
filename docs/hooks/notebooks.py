"""Pages of the tutorials: the cells of each notebook of docs/tutorials/, with the outputs that are saved in it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def joined(lines: str | list[str]) -> str:
    """A text of a notebook, which may be a list of lines."""
    return lines if isinstance(lines, str) else "".join(lines)


def shown(output: dict) -> str:
    """One output of a cell, as Markdown."""
    if output["output_type"] == "stream":
        return fenced(joined(output["text"])) if output["name"] == "stdout" else ""
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="figure of the cell above" src="data:image/png;base64,{joined(data["image/png"]).strip()}">\n'
    if "text/html" in data:
        return f'<div class="output">\n{joined(data["text/html"]).strip()}\n</div>\n'
    return fenced(joined(data.get("text/plain", "")))


def fenced(text: str, kind: str = "text") -> str:
    """A block of code or output."""
    return f"~~~~{kind}\n{ESCAPES.sub('', text).rstrip()}\n~~~~\n" if text.strip() else ""


def page(notebook: dict, name: str) -> str:
    """The Markdown of a notebook."""
    parts = []
    for cell in notebook["cells"]:
        source = joined(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        else:
            parts += [fenced(source, "python"), *(shown(output) for output in cell["outputs"])]
    download = f'<p><a href="{name}" download>Download this page as a notebook</a></p>\n'
    return "\n\n".join([*parts, download])


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add a page beside each notebook."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        notebook = json.loads(Path(str(file.abs_src_path)).read_text(encoding="utf-8"))
        text = page(notebook, Path(file.src_uri).name)
        files.append(File.generated(config, file.src_uri.removesuffix(".ipynb") + ".md", content=text))
    return files
